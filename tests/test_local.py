"""
Tests of running workflows on this host, each task in a separate process.
"""

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core import RunState, TaskBase, Workflow, subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import IdentityError, RunFailedError, WorkflowError
from dkist_processing_core.events import Reporter, TaskEnd, TaskFailed, TaskStarted, WorkflowFailed, WorkflowStarted
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.local.outcomes import RunResult, TaskOutcome, TaskState
from dkist_processing_core.runs import RunView, State
from dkist_processing_core.text import duration
from tests import launched, pipelines
from tests.pace import here
from tests.running import children_of, run_python
from tests.services.broker import Broker
from tests.waiting import SECONDS, wait_until

ROOT = Path(__file__).parent.parent


def the_run() -> RunView:
    """
    Return the state of the one run in the embedded journal.
    """
    (view,) = RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs
    return view


def test_tasks_run_in_dependency_order_each_in_its_own_process(capfd: pytest.CaptureFixture[str]) -> None:
    """
    `run` returns the outcome of each task, and the run is on the bus with its graph.
    """
    result = pipelines.diamond.run(recipe_run_id=5)

    run = the_run()
    shown = capfd.readouterr()
    assert {name: outcome.state for name, outcome in result.items()} == dict.fromkeys(
        ["First", "Left", "Right", "Last"], TaskState.SUCCESS
    )
    assert result.succeeded
    assert run.run.run_id == result.run_id
    assert result.run_id.startswith("local__5__")
    assert (run.state, run.verdict) == (State.FINISHED, State.FINISHED)
    assert run.graph == pipelines.diamond.graph
    starts = {task.name: task.attempts[0].started_at for task in run.tasks}
    ends = {task.name: task.attempts[0].ended_at for task in run.tasks}
    for upstream, downstream in pipelines.diamond.graph.edges:
        start, end = starts[downstream], ends[upstream]
        assert start is not None
        assert end is not None
        assert start > end
    assert "First | first of 5 in " in shown.out
    assert f"first of 5 in {os.getpid()}\n" not in shown.out
    assert next(line for line in shown.err.splitlines() if line.startswith("First: ")) == "First: started"
    assert shown.err.endswith("run finished\n")

    # One duration in each view: from the start of the process, so longer than its phases.
    for task in run.tasks:
        (attempt,) = task.attempts
        assert attempt.end is not None
        assert attempt.started_at is not None
        assert attempt.duration_seconds is not None
        assert attempt.duration_seconds == result[task.name].duration_seconds
        life = (attempt.end.time - attempt.started_at).total_seconds()
        assert sum(attempt.end.phases.values()) < attempt.duration_seconds <= life + 0.01
        # The call takes milliseconds. A launcher on a busy host takes most of the time before the process starts.
        assert attempt.duration_seconds > life / 4
        assert f"{task.name}: finished in {duration(attempt.duration_seconds)} (" in shown.err


def test_a_failed_task_stops_its_downstream_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Retries are made first. Each attempt has one outcome, with reports of its task and its launcher.
    """
    monkeypatch.setenv("PIPELINES_FAIL", "always")

    result = pipelines.diamond.run(recipe_run_id="5")

    run = the_run()
    tasks = {task.name: task for task in run.tasks}
    assert {name: outcome.state.value for name, outcome in result.items()} == {
        "First": "success",
        "Left": "success",
        "Right": "failed",
        "Last": "upstream_failed",
    }
    assert not result.succeeded
    assert result["Right"].attempts == 2
    assert (run.state, tasks["Last"].state, tasks["Left"].state) == (State.FAILED, State.NOT_RUN, State.FINISHED)
    assert [attempt.state for attempt in tasks["Right"].attempts] == [State.FAILED, State.FAILED]
    for attempt in tasks["Right"].attempts:
        assert isinstance(attempt.end, TaskFailed)
        assert (attempt.cause, attempt.end.message, attempt.end.phase) == ("exception", "wanted", "run")
        assert attempt.end.final is (attempt.number == 2)
        assert set(attempt.reporters) == {Reporter.TASK, Reporter.LAUNCHER}
        assert attempt.contradictions == ()
    failures = re.findall(r"Right: failed after [^)]*\)(.*)", capfd.readouterr().err)
    assert failures == [", attempt 2 of 2 follows: ArithmeticError: wanted", ": ArithmeticError: wanted"]


def test_a_retry_that_succeeds_makes_the_task_a_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A failed attempt with retries left does not fail the run.
    """
    monkeypatch.setenv("PIPELINES_FAIL", "1")
    monkeypatch.setenv("PIPELINES_FOLDER", str(tmp_path))

    result = pipelines.diamond.run(recipe_run_id=5)

    right = next(task for task in the_run().tasks if task.name == "Right")
    assert result.succeeded
    assert result["Right"].attempts == 2
    assert [attempt.state for attempt in right.attempts] == [State.FAILED, State.FINISHED]


def test_one_failure_message_is_pending_for_each_task_that_failed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No failure message is published for a retry, or for a task that was not run.
    """
    monkeypatch.setenv("PIPELINES_FAIL", "always")

    pipelines.diamond.run(recipe_run_id=5)

    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        entries = [entry for entry in journal.read(0, 1000) if entry.message.exchange == "master.direct.x"]
    assert [entry.message.routing_key for entry in entries] == ["recipe.run.failure.m"]
    assert b'"taskName":"Right"' in entries[0].message.body


def test_a_killed_task_still_has_an_end_on_the_bus() -> None:
    """
    The launcher reports the signal, which the task cannot report.
    """
    result = pipelines.killed.run(recipe_run_id=5)

    (attempt,) = the_run().tasks[0].attempts
    assert result["Killed"].state is TaskState.FAILED
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.cause, attempt.end.signal, attempt.end.provisional) == ("signal", "SIGKILL", False)


def test_independent_tasks_run_side_by_side_up_to_the_limit() -> None:
    """
    With a limit of one, no task starts before the previous one has ended.
    """
    pipelines.diamond.run(recipe_run_id=5, max_parallel=1)

    spans = sorted(
        (attempt.started_at, attempt.ended_at)
        for task in the_run().tasks
        for attempt in task.attempts
        if attempt.started_at and attempt.ended_at
    )
    assert len(spans) == 4
    for (_, ended), (started, _) in pairwise(spans):
        assert ended <= started


def test_a_task_defined_at_a_prompt_runs_in_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A task class that exists only in this process runs in this process.
    """

    class Interactive(TaskBase):
        def run(self) -> None:
            print("here", os.getpid())  # noqa: T201 - read by a test

    workflow = Workflow(process_category="by", process_name="prompt")
    workflow.add_node(Interactive)

    result = workflow.run(recipe_run_id=5)

    assert result.succeeded
    assert f"here {os.getpid()}\n" in capfd.readouterr().out
    (attempt,) = the_run().tasks[0].attempts
    assert (attempt.number, attempt.state) == (1, State.FINISHED)
    assert not [name for name in os.environ if name.startswith("DKIST_CORE_RUN") or name == "TRACEPARENT"]


def test_the_truth_value_of_a_result_is_the_success_of_the_run() -> None:
    """
    A script ends with the right status by `sys.exit(not workflow.run(…))`.
    """
    run_id = "local__3__20261129T020544Z__8bf54b12"
    finished = RunResult(run_id, {"First": TaskOutcome(TaskState.SUCCESS, 1)})
    failed = RunResult(
        run_id,
        {"First": TaskOutcome(TaskState.FAILED, 2), "Last": TaskOutcome(TaskState.UPSTREAM_FAILED)},
    )

    assert (bool(finished), bool(failed)) == (True, False)
    assert ShortIds().of(run_id) == "8bf54b12"
    assert finished.summary == "run 8bf54b12 finished"
    assert failed.summary == "run 8bf54b12 failed: First failed after 2 attempts, 1 task was not run"


def test_a_checked_run_raises_an_error_with_its_result() -> None:
    """
    The error names the run and the task, and can go to another process; a run that is not checked returns its result.
    """

    class Fails(TaskBase):
        def run(self) -> None:
            raise ValueError

    workflow = Workflow(process_category="checked", process_name="run")
    workflow.add_node(Fails)

    result = workflow.run(recipe_run_id=5)
    with pytest.raises(RunFailedError, match=r"^run \w{8} failed: Fails failed$") as raised:
        workflow.run(recipe_run_id=5, check=True)

    assert not result
    assert raised.value.result["Fails"].state is TaskState.FAILED
    assert pickle.loads(pickle.dumps(raised.value)).result == raised.value.result


SCRIPT = """\
from dkist_processing_core import TaskBase, Workflow

class Hello(TaskBase):
    def run(self):
        print("hello from", __name__)

workflow = Workflow(process_category="my", process_name="script")
workflow.add_node(Hello)
{call}
"""


@pytest.mark.parametrize(
    ("call", "status", "expected"),
    [
        ('if __name__ == "__main__":\n    workflow.run(recipe_run_id=1)', 0, "Hello | hello from script"),
        ("workflow.run(recipe_run_id=1)", 0, 'put the call under `if __name__ == "__main__":`'),
    ],
)
def test_a_script_s_tasks_are_loaded_from_its_file(call: str, status: int, expected: str, tmp_path: Path) -> None:
    """
    A script needs no package. A script that runs its workflow unguarded prints what to write.
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(call=call))

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert expected in done.stdout
    assert status == done.returncode


def test_a_script_that_no_import_finds_is_loaded_all_the_same(tmp_path: Path) -> None:
    """
    A script may have any file name.
    """
    script = tmp_path / "my-script"
    script.write_text(SCRIPT.format(call='if __name__ == "__main__":\n    workflow.run(recipe_run_id=1)'))

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert "Hello | hello from __mp_main__" in done.stdout


FRAMES = """\
import multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor
from dkist_processing_core import TaskBase, Workflow

class Frame:
    def __init__(self, number):
        self.number = number

class BadFrameError(Exception):
    pass

def read(number):
    if number == 3:
        raise BadFrameError(number)
    return Frame(number * 10)

class ReadsFrames(TaskBase):
    def scaled(self, number):
        return number * self.recipe_run_id

    def run(self):
        for method in ("fork", "spawn", "forkserver"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
                frames = list(pool.map(read, [1, 2]))
                assert {type(frame) for frame in frames} == {Frame}, frames
                print(method, [frame.number for frame in frames], list(pool.map(self.scaled, [4])))
                try:
                    pool.submit(read, 3).result()
                except BadFrameError as error:
                    print(method, "raised", error)
        print("pickled", type(pickle.loads(pickle.dumps(Frame(1)))) is Frame)
        print("flags", sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions)

if __name__ == "__main__":
    workflow = Workflow(process_category="my", process_name="frames")
    workflow.add_node(ReadsFrames)
    sys.exit(not workflow.run(recipe_run_id=5).succeeded)
"""


@pytest.mark.parametrize("name", ["solar-frames.py", "solar_frames.py"])
def test_a_script_s_functions_and_classes_go_to_pools_and_back(name: str, tmp_path: Path) -> None:
    """
    This holds for each start method, with any file name and under the interpreter's options.
    """
    script = tmp_path / name
    script.write_text(FRAMES)
    options = ["-O", "-X", "dev", "-W", "error"]

    done = subprocess.run(
        [sys.executable, *options, script], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )

    assert (done.returncode, done.stderr.count("Error")) == (0, 0), done.stdout + done.stderr
    assert [line.removeprefix("ReadsFrames | ") for line in done.stdout.splitlines() if "INFO" not in line] == [
        *("fork [10, 20] [20]", "fork raised 3"),
        *("spawn [10, 20] [20]", "spawn raised 3"),
        *("forkserver [10, 20] [20]", "forkserver raised 3"),
        "pickled True",
        "flags 1 True ['default', 'error']",
    ]


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_what_a_task_prints_before_it_is_killed_is_shown_under_any_option(option: str, tmp_path: Path) -> None:
    """
    An interpreter that ignores Python's variables does not buffer the output.
    """
    script = tmp_path / "killed.py"
    run = 'print("printed")\n        import os; os.kill(os.getpid(), 9)'
    call = 'if __name__ == "__main__":\n    workflow.run(recipe_run_id=1)'
    script.write_text(SCRIPT.format(call=call).replace('print("hello from", __name__)', run))

    done = subprocess.run([sys.executable, option, script], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert "Hello | printed" in done.stdout, done.stderr


def test_a_module_that_runs_its_workflow_as_it_is_imported_does_not_start_itself_for_ever(tmp_path: Path) -> None:
    """
    Each task prints one sentence with the remedy, and no process starts another.
    """
    (tmp_path / "unguarded.py").write_text(SCRIPT.format(call="workflow.run(recipe_run_id=1)"))

    done = subprocess.run(
        [sys.executable, "-c", "import unguarded"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=300,
    )

    assert done.stdout == (
        "Hello | my_script.run() was reached while its module was loaded for a task, which runs in a process of its "
        'own: put the call under `if __name__ == "__main__":`\n'
    )


def run_one(run: str, *, before: str = "", environment: dict[str, str] | None = None) -> RunView:
    """
    Run a workflow of one task with this body in a separate process, and return the state of the run.
    """
    program = (
        "import os, sys\n"
        "from dkist_processing_core import TaskBase, Workflow\n"
        f"class One(TaskBase):\n    def run(self):\n        {run}\n"
        f"workflow = Workflow(process_category='only', process_name='one')\nworkflow.add_node(One)\n{before}\n"
        "if __name__ == '__main__':\n    workflow.run(recipe_run_id=1)\n"
    )
    folder = Path(os.environ["DKIST_CORE_STATE_DIR"])
    script = folder / "one.py"
    script.write_text(program)
    subprocess.run(
        [sys.executable, script],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
        timeout=300,
    )
    return the_run()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("os.kill(os.getpid(), 40)", {"cause": "signal", "signal": "SIG40"}),
        ("sys.exit(0)", {"cause": "exit_code", "exit_code": 0}),
        ("sys.exit(3)", {"cause": "exit_code", "exit_code": 3}),
        ("os._exit(3)", {"cause": "exit_code", "exit_code": 3}),
    ],
)
def test_however_a_task_ends_run_and_task_agree_that_it_failed(body: str, expected: dict[str, object]) -> None:
    """
    A signal without a name, an exit with a number, and an exit with 0 during `run` are failures of the task and the
    run.
    """
    run = run_one(body)

    end = run.tasks[0].attempts[0].end
    assert (run.state, run.tasks[0].state, run.tasks[0].engine_state) == (State.FAILED, State.FAILED, "failed")
    assert run.tasks[0].attempts[0].contradictions == ()
    assert expected == {name: getattr(end, name) for name in expected}


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("os.close(1); sys.stdout = None", {}),
        ("os.close(2); os.close(1); sys.stdout = sys.stderr = None", {}),
        ("", {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_what_cannot_be_shown_does_not_fail_the_task(before: str, environment: dict[str, str]) -> None:
    """
    A task succeeds although the streams are closed or their encoding cannot represent a character.
    """
    guarded = f"if __name__ == '__main__':\n    {before}" if before else ""

    run = run_one("sys.stdout.buffer.write('é\\n'.encode() * 100_000)", before=guarded, environment=environment)

    assert run.state is State.FINISHED


def test_a_reader_that_goes_away_does_not_fail_the_task() -> None:
    """
    A closed standard output, as by `| head -1`, ends the display and not the run.
    """
    program = "from tests.pipelines import diamond; diamond.run(recipe_run_id=5)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(60)

    assert the_run().state is State.FINISHED


def test_the_search_path_is_the_task_s_and_not_that_of_what_it_starts() -> None:
    """
    Another interpreter that a task starts does not find this one's libraries.
    """
    assert (
        run_one("assert 'PYTHONPATH' not in os.environ; assert 'SEARCH' not in str(os.environ)").state is State.FINISHED
    )


def test_an_identity_of_the_run_s_own_process_is_not_its_tasks() -> None:
    """
    A task of a workflow that runs within another task does not have the other task's log URL.
    """
    run = run_one("raise ValueError", environment={"DKIST_CORE_LOG_URL": "http://outer/", "DKIST_CORE_REPORT_FD": "9"})

    end = run.tasks[0].attempts[0].end
    assert isinstance(end, TaskFailed)
    assert end.log_url is None


def test_an_exit_of_a_task_at_a_prompt_is_its_failure_and_not_the_run_s() -> None:
    """
    `sys.exit` in a task that runs in this process ends neither the process nor the run.
    """

    class Leaving(TaskBase):
        def run(self) -> None:
            sys.exit(3)

    workflow = Workflow(process_category="by", process_name="prompt")
    workflow.add_node(Leaving)

    result = workflow.run(recipe_run_id=5)

    assert result["Leaving"].state is TaskState.FAILED
    assert the_run().state is State.FAILED


CLOSING = """\
import os
from pathlib import Path
from dkist_processing_core import TaskBase, Workflow
from tests.launched import Meets

def run(folder):
    class Closing(TaskBase):
        def run(self):
            (folder / "began").read_text()
            os.closerange(3, 256)
            (folder / "done").write_text("")

    workflow = Workflow(process_category="by", process_name="prompt")
    for task in (Meets, Closing):
        workflow.add_node(task)
    print({name: outcome.state.value for name, outcome in workflow.run(1, max_parallel=2).items()})

run(Path(os.environ["MEETING"]))
"""


def test_a_run_ends_though_a_task_at_a_prompt_closes_its_descriptors(tmp_path: Path) -> None:
    """
    The closed descriptors include the pipe of another task's launcher. That task continues and succeeds.
    """
    for name in ("began", "done"):
        os.mkfifo(tmp_path / name)

    shown = run_python(CLOSING, {"MEETING": str(tmp_path)})

    assert shown.stdout.splitlines()[-1] == "{'Meets': 'success', 'Closing': 'success'}", shown.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_run_ends_its_tasks(number: signal.Signals) -> None:
    """
    A terminated run ends its tasks, and the ends are on the bus.
    """
    program = "from tests.pipelines import endless; endless.run(recipe_run_id=5)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Endless | waiting\n"
        process.send_signal(number)
        process.communicate(timeout=300)

    assert process.returncode == -number
    assert the_run().tasks[0].attempts[0].cause == "terminated"


ENDED_AT_ITS_END = """
import os, signal
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from tests.pipelines import diamond

class Ends(SpanProcessor):
    def on_start(self, span, parent_context=None):
        if any(str(value).startswith("workflow.finished.") for value in span.attributes.values()):
            self.on_start = lambda *_, **__: None
            os.kill(os.getpid(), signal.SIGTERM)

provider = TracerProvider()
provider.add_span_processor(Ends())
trace.set_tracer_provider(provider)
diamond.run(recipe_run_id=5)
"""


def test_a_signal_while_the_end_of_the_run_is_published_leaves_it_published() -> None:
    """
    At that time all tasks have ended, and no other process could report the end of the run.
    """
    shown = run_python(ENDED_AT_ITS_END, {})

    assert shown.returncode == -signal.SIGTERM, shown.stderr
    assert the_run().ended_at is not None


def test_what_a_task_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    """
    A process that the task leaves behind, and that keeps writing, does not delay the end.
    """
    has_ended = tmp_path / "has_ended"
    writer = f"i=0; while [ $i -lt 1000000 ]; do echo $i; i=$((i+1)); done; touch {has_ended}"

    run_one(f"import subprocess; subprocess.Popen(['/bin/sh', '-c', '{writer}'])")

    assert not has_ended.exists()


def test_a_fork_of_a_task_at_a_prompt_ends_alone() -> None:
    """
    A worker that is terminated or fails ends neither the run nor its task.
    """

    class Pooling(TaskBase):
        def run(self) -> None:
            worker = multiprocessing.get_context("fork").Process(target=os.read, args=(os.pipe()[0], 1))
            worker.start()
            worker.terminate()
            worker.join()
            assert worker.exitcode == -signal.SIGTERM
            if os.fork() == 0:
                raise KeyboardInterrupt
            os.wait()

    workflow = Workflow(process_category="by", process_name="prompt")
    workflow.add_node(Pooling)

    result = workflow.run(recipe_run_id=5)

    names = [event.name for event in subscribe(replay=True, every_report=True, timeout=0.05)]
    assert result.succeeded
    assert names == ["workflow.started", "task.dispatched", "task.started", "task.finished", "workflow.finished"]


def test_a_search_path_may_hold_what_python_ignores(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Some programs add paths to `sys.path` that are not strings.
    """
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])

    assert pipelines.diamond.run(recipe_run_id=5).succeeded


def test_every_fault_is_seen_in_a_local_run_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Each attempt has one outcome, the same cause as under any launcher, and no report of the engine.
    """
    monkeypatch.setenv("FAULT_MARKS", str(tmp_path))

    result = launched.everything.run(recipe_run_id=5, max_parallel=3)

    tasks = {task.name: task.attempts for task in the_run().tasks}
    assert {name: attempts[0].cause for name, attempts in tasks.items()} == {
        "Succeeds": None,
        "Raises": "exception",
        "Exits3": "exit_code",
        "Exits99": "exit_code",
        "LeavesInTheMiddle": "exit_code",
        "IsKilled": "signal",
        "Crashes": "signal",
        "TakesAllAddressSpace": "out_of_memory",
        "FailsAfterwards": "exception",
    }
    assert {name for name, outcome in result.items() if outcome.succeeded} == {"Succeeds"}
    assert all(len(attempts) == 1 for attempts in tasks.values())
    assert not any(Reporter.ENGINE in attempts[0].reporters for attempts in tasks.values())


ENDLESS = ("Waits", "Pools", "HearsNothing")
"""A task that reacts to SIGTERM, one with a pool, and one that ignores SIGTERM."""


@contextmanager
def endless_run() -> Iterator[subprocess.Popen[str]]:
    """
    Run these tasks at the same time, and yield the process of the run when all of them have begun.
    """
    program = "from tests.launched import endless; endless.run(recipe_run_id=5, max_parallel=3)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert {process.stdout.readline() for _ in ENDLESS} == {f"{name} | waiting\n" for name in ENDLESS}
        yield process


def causes_in(run: RunView) -> dict[str, str | None]:
    """
    Return the cause of the end of each task's first attempt.
    """
    return {task.name: task.attempts[0].cause for task in run.tasks}


@pytest.mark.quiet
def test_ctrl_c_ends_every_task_within_five_seconds() -> None:
    """
    A task that reacts to SIGTERM, one with a pool and one that ignores SIGTERM each have an end on the bus.

    The user reads how to force it, and no traceback; the end of the run has the reason.
    """
    with endless_run() as process:
        told = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=300)
        took = time.monotonic() - told

    run = the_run()
    assert took < here(5.0)
    assert "interrupted (Ctrl-C): stopping 3 tasks, at most 5 s; Ctrl-C again kills at once\n" in shown
    assert "Traceback" not in shown
    assert (process.returncode, run.reason) == (-signal.SIGINT, "interrupted (Ctrl-C)")
    assert causes_in(run) == dict.fromkeys(ENDLESS, "terminated")
    assert run.state is State.FAILED


@pytest.mark.quiet
def test_who_insists_does_not_wait_for_a_deaf_task() -> None:
    """
    A second Ctrl-C kills the tasks at once.
    """
    with endless_run() as process:
        told = time.monotonic()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "Waits" in ended_tasks())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
        took = time.monotonic() - told

    assert took < here(3.0)
    assert causes_in(the_run()) == dict.fromkeys(ENDLESS, "terminated")


def test_a_run_that_is_killed_leaves_no_task_behind() -> None:
    """
    The kernel notifies each launcher, which ends its task and reports it as lost; one reports the end of the run.
    """
    with endless_run() as process:
        process.kill()
        wait_until(lambda: len(ended_tasks()) == 3)
        # Ends when all of them have closed the pipe.
        assert process.stdout is not None
        process.stdout.read()
        wait_until(lambda: the_run().verdict is not None)

    run = the_run()
    assert causes_in(run) == dict.fromkeys(ENDLESS, "lost")
    assert run.state is State.FAILED
    assert run.reason == f"lost: the process that ran it (pid {process.pid}) ended without a report"
    with subscribe("workflow.failed", replay=True, every_report=True, timeout=0.05) as events:
        assert len(list(events)) == 1


def test_the_launchers_of_a_killed_run_deliver_its_end_to_the_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The process of the run would have delivered their events, so they do it themselves.
    """
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)

    with endless_run() as process:
        process.kill()
        with subscribe("workflow.failed", replay=True, timeout=SECONDS) as events:
            end = next(iter(events))

    assert isinstance(end, WorkflowFailed)
    assert end.reason == f"lost: the process that ran it (pid {process.pid}) ended without a report"
    assert end.tasks == dict.fromkeys(ENDLESS, "failed")


def test_a_launcher_that_is_killed_is_the_engine_s_to_report() -> None:
    """
    The guard of a task reports its end. If the task ignores SIGTERM, only the engine reports it.
    """
    with endless_run() as process:
        for launcher in children_of(process.pid):
            os.kill(launcher, signal.SIGKILL)
        process.communicate(timeout=300)

    tasks = {task.name: task.attempts[0] for task in the_run().tasks}
    assert {name: attempt.cause for name, attempt in tasks.items()} == dict.fromkeys(tasks, "lost")
    assert {name: isinstance(each.end, TaskFailed) and each.end.provisional for name, each in tasks.items()} == {
        "Waits": False,
        "Pools": False,
        "HearsNothing": True,
    }


def test_an_environment_that_cannot_be_built_fails_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The run uses environments with the releases of its package, as a worker does.
    """
    monkeypatch.setenv("DKIST_CORE_ENVIRONMENTS_DIR", str(tmp_path))
    for name, value in {"NO_INDEX": "1", "EXTRA_INDEX_URL": "", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    workflow = Workflow(
        process_category="no", process_name="release", workflow_package="no_such.package", workflow_version="1.0"
    )
    workflow.add_node(pipelines.First, pip_extras=["a"])

    result = workflow.run(recipe_run_id=5, environments=True)

    end = the_run().tasks[0].attempts[0].end
    assert result["First"].state is TaskState.FAILED
    assert isinstance(end, TaskFailed)
    assert end.cause == "environment"
    assert "no-such[a]==1.0" in (end.message or "")


def test_ctrl_c_ends_every_task_and_the_run() -> None:
    """
    An interrupted run leaves no process behind, and its end is on the bus.
    """
    program = "from tests.pipelines import endless; endless.run(recipe_run_id=5)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Endless | waiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)

    run = the_run()
    (attempt,) = run.tasks[0].attempts
    assert errors.endswith("run failed: interrupted (Ctrl-C)\n")
    assert (run.state, attempt.state, attempt.cause) == (State.FAILED, State.FAILED, "terminated")
    assert run.tasks[1].state is State.NOT_RUN


def started_tasks() -> set[str]:
    """
    Return the names of the tasks whose first process has begun.
    """
    with subscribe("task.started", replay=True, timeout=0.05) as events:
        return {event.task_name for event in events if isinstance(event, TaskStarted)}


RETRIED = """\
import time
from dkist_processing_core import TaskBase, Workflow

class Broken(TaskBase):
    retries, retry_delay_seconds = 1, 600

    def run(self):
        raise ValueError

class Waits(TaskBase):
    retries = 1

    def run(self):
        time.sleep(600)  # the test ends it by a signal

class Last(TaskBase):
    def run(self):
        pass

workflow = Workflow(process_category="with", process_name="retries")
workflow.add_node(Broken)
workflow.add_node(Waits)
workflow.add_node(Last, upstreams=[Broken, Waits])
if __name__ == "__main__":
    workflow.run(recipe_run_id=5, max_parallel=2)
"""


def test_an_interrupted_run_has_a_final_failure_of_each_task_that_is_not_tried_again(tmp_path: Path) -> None:
    """
    One task waits for its next attempt, and one runs: an operator hears of both, and the engine's states agree.
    """
    script = tmp_path / "retried.py"
    script.write_text(RETRIED)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: "Broken" in ended_tasks() and "Waits" in started_tasks())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)

    with subscribe("task.failed", replay=True, timeout=0.05) as events:
        failures = [
            (event.task_name, event.attempt) for event in events if isinstance(event, TaskFailed) and event.final
        ]
    run = the_run()
    assert sorted(failures) == [("Broken", None), ("Waits", None)]
    assert [task.attempts[0].cause for task in run.tasks[:2]] == ["exception", "terminated"]
    assert {task.name: task.engine_state for task in run.tasks} == {
        "Broken": "failed",
        "Waits": "failed",
        "Last": "no_status",
    }


@pytest.mark.parametrize(
    ("recipe_run_id", "max_parallel", "error", "message"),
    [
        ("1$(touch x)", None, IdentityError, "recipe_run_id: found"),
        *(
            (1, wrong, WorkflowError, f"^max_parallel is {wrong!r}, expected a whole number from 1$")
            for wrong in (0, -1, True, 1.5, "2", b"2")
        ),
    ],
)
def test_a_run_that_cannot_begin_is_refused(
    recipe_run_id: int | str, max_parallel: Any, error: type[Exception], message: str
) -> None:
    """
    A wrong argument raises an error before anything is started or published.
    """
    with pytest.raises(error, match=message):
        pipelines.diamond.run(recipe_run_id=recipe_run_id, max_parallel=max_parallel)

    assert list(subscribe(replay=True, timeout=0.05)) == []


def ended_tasks() -> set[str]:
    """
    Return the tasks with an end on the bus.
    """
    return {
        event.task_name
        for event in subscribe("task.failed", "task.finished", replay=True, timeout=0.05)
        if isinstance(event, TaskEnd)
    }


def test_a_workflow_without_tasks_cannot_run() -> None:
    """
    A workflow without tasks raises WorkflowError.
    """
    with pytest.raises(WorkflowError, match="no_tasks has no tasks to run"):
        Workflow(process_category="no", process_name="tasks").run(recipe_run_id=1)


def test_the_run_s_own_events_are_the_engine_s() -> None:
    """
    The engine reports the start and the end of the run. The end contains the state of every task.
    """
    pipelines.killed.run(recipe_run_id=5)

    events = list(subscribe("workflow.started", "workflow.failed", replay=True, timeout=0.05))
    assert [type(event) for event in events] == [WorkflowStarted, WorkflowFailed]
    assert {event.reported_by for event in events} == {Reporter.ENGINE}
    end = events[1]
    assert isinstance(end, WorkflowFailed)
    assert end.tasks == {"Killed": "failed", "Last": "upstream_failed"}
