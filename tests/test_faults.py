"""
Every way in which a task can end, provoked for real, seen in the events of its launcher and of the task itself.

The table that is printed at the end has a row for each: the cause, who reported the end first, and how many
milliseconds after the fault it was in the journal. Not here: environments (test_environments.py).
"""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dkist_processing_core import RunState, budget
from dkist_processing_core.attempt.report_pipe import STARTED
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event, TaskEnd, TaskFailed, TaskFinished, TaskStarted, decode
from dkist_processing_core.export.bash_operator import COMMAND
from dkist_processing_core.identity import to_run_data
from dkist_processing_core.runs import AttemptView
from tests import launched
from tests.journalled import deliver
from tests.pace import here
from tests.running import ROOT
from tests.services.otlp import OtlpReceiver
from tests.services.wheels import make_wheel
from tests.waiting import wait_until

LIMIT_SECONDS = 200
# The installation of a published release takes a quarter of a minute on a quiet machine.
INSTALLATION_SECONDS = 300
"""The command of an exported DAG, as the design specifies it."""


@dataclass
class Row:
    """
    One line of the table.
    """

    fault: str
    cause: str
    reporter: str
    milliseconds: float


rows: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def _table(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Print the table when its last row is complete.
    """
    yield
    if not rows:
        return
    manager = request.config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print(f"\n{'fault':42} {'cause':14} {'first':9} ms until the end is in the journal")  # noqa: T201 - the table
        for row in rows:
            print(f"{row.fault:42} {row.cause:14} {row.reporter:9} {row.milliseconds:8.0f}")  # noqa: T201


@pytest.fixture(autouse=True)
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    The folder in which tasks record the times of their faults.
    """
    monkeypatch.setenv("FAULT_MARKS", str(tmp_path))
    return tmp_path


@dataclass
class Launched:
    """
    A running launcher, started as Airflow starts it.
    """

    process: "subprocess.Popen[str]"
    task: str
    lines: list[str] = field(default_factory=list)

    def wait_for_line(self, text: str) -> None:
        """
        Wait until the task has written a line.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(self.lines)

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        """
        Wait for the launcher's end.
        """
        output, _ = self.process.communicate(timeout=seconds)
        self.lines += output.splitlines()
        return self.process.returncode


def environ_of(task: str, **variables: str) -> dict[str, str]:
    """
    Return the variables with which a launcher runs a task of `tests.launched`.
    """
    return {
        **os.environ,
        "DKIST_CORE_PYTHON": sys.executable,
        "DKIST_CORE_RUN_ID": "manual__1",
        "DKIST_CORE_WORKFLOW": "faults",
        "DKIST_CORE_VERSION": "dev",
        "DKIST_CORE_TASK": task,
        "DKIST_CORE_ATTEMPT": "1",
        "DKIST_CORE_MAX_ATTEMPTS": "1",
        "DKIST_CORE_RECIPE_RUN_ID": "5",
        "DKIST_CORE_TASK_MODULE": "tests.launched",
        "DKIST_CORE_TASK_SEARCH_PATH": json.dumps([str(ROOT), *sys.path]),
        **variables,
    }


@contextmanager
def launch(task: str, *prefix: str, **variables: str) -> Iterator[Launched]:
    """
    Start a launcher by the command of exported operators, in a new session as Airflow does.
    """
    with subprocess.Popen(
        [*prefix, "/bin/bash", "-c", COMMAND],
        cwd=ROOT,
        env=environ_of(task, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield Launched(process, task)
        with suppress(ProcessLookupError):
            process.kill()


def journal_rows() -> list[tuple[float, Event]]:
    """
    Return every event in the journal, with the time at which it was stored.
    """
    path = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT appended, body FROM message WHERE exchange = 'workflow.events.x' ORDER BY seq"
        ).fetchall()
    return [(appended, decode(bytes(body), "application/cloudevents+json")) for appended, body in found]


def the_attempt(task: str) -> AttemptView:
    """
    Return the one attempt of a task, folded from every report.
    """
    (run,) = RunState(event for _, event in journal_rows()).runs
    (attempt,) = next(view for view in run.tasks if view.name == task).attempts
    return attempt


def note(fault: str, task: str, moment: float | None = None, *, marks: Path | None = None) -> AttemptView:
    """
    Add a row to the table, and return the one attempt; `moment` is when the fault was provoked.
    """
    heard = journal_rows()
    ends = [(appended, event) for appended, event in heard if isinstance(event, TaskEnd) and event.task_name == task]
    attempt = the_attempt(task)
    if moment is None:
        assert marks is not None
        moment = float((marks / task).read_text())
    appended, first = min(ends, key=lambda each: each[0])
    cause = attempt.cause or "(finished)"
    rows.append(Row(fault, cause, first.reported_by.value, (appended - moment) * 1000))
    assert attempt.contradictions == ()
    assert isinstance(attempt.end, TaskEnd)
    return attempt


ALONE = [
    (launched.Succeeds, 0, "", "task", {}),
    (launched.Raises, 1, "exception", "task", {"error_type": "ArithmeticError", "phase": "run"}),
    (launched.Exits3, 3, "exit_code", "task", {"exit_code": 3}),
    (launched.Exits99, 99, "exit_code", "task", {"exit_code": 99}),
    (launched.LeavesInTheMiddle, 1, "exit_code", "launcher", {"exit_code": 0}),
    (launched.IsKilled, 137, "signal", "launcher", {"signal": "SIGKILL"}),
    (launched.Crashes, 139, "signal", "launcher", {"signal": "SIGSEGV"}),
    (launched.TakesAllAddressSpace, 1, "out_of_memory", "task", {"error_type": "MemoryError"}),
]


@pytest.mark.parametrize(
    ("task", "status", "cause", "reporter", "expected"), ALONE, ids=[row[0].__name__ for row in ALONE]
)
def test_an_end_that_needs_nobody_else(
    task: type, status: int, cause: str, reporter: str, expected: dict[str, object], marks: Path
) -> None:
    """
    One start, one end, one cause; the status is the task's, and its resource usage is known.
    """
    with launch(task.__name__) as launcher:
        assert launcher.wait() == status, launcher.lines

    attempt = note(task.__name__, task.__name__, marks=marks)
    events = [event for _, event in journal_rows()]
    assert [event.name for event in events] == [
        "task.dispatched", "task.started", "task.failed" if cause else "task.finished",
    ]  # fmt: skip
    assert [event.reported_by.value for event in events] == ["launcher", "launcher", reporter]
    assert (attempt.cause or "") == cause
    assert expected == {name: getattr(attempt.end, name) for name in expected}
    assert attempt.end is not None
    assert 0 < (attempt.end.cpu_seconds or 0) < 60
    # The usage of a killed task is the last sample, perhaps from before its growth.
    assert 5_000_000 < (attempt.end.peak_memory_bytes or 0) < 2_000_000_000


@contextmanager
def limited_group(megabytes: int) -> Iterator[Path | None]:
    """
    Create a control group with that much memory, of the version that the machine has; None if that is not permitted.
    """
    name = f"dkist-core-test-{uuid.uuid4().hex[:8]}"
    for parent, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = parent / name
        try:
            if limit == "memory.max":
                (parent / "cgroup.subtree_control").write_text("+memory")
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(megabytes * 1024 * 1024))
            yield group
        finally:
            wait_until(lambda: not (group / "cgroup.procs").read_text().split())  # noqa: B023 - called now
            group.rmdir()
        return
    yield None


def test_a_task_that_the_kernel_kills_for_want_of_memory(marks: Path) -> None:
    """
    In a control group with a limit, as in a worker's container; if none can be created, killed by hand: a signal.
    """
    with limited_group(300) as group:
        task = "IsKilled" if group is None else "TakesAllMemory"
        join = f'echo $$ > "{group}/cgroup.procs" && exec "$@"' if group else 'exec "$@"'
        with launch(task, "/bin/sh", "-c", join, "sh") as launcher:
            assert launcher.wait() == 137, launcher.lines

    attempt = note("out of memory in a limited control group", task, marks=marks)
    assert attempt.cause == ("signal" if group is None else "out_of_memory")
    assert isinstance(attempt.end, TaskFailed)
    assert attempt.end.signal == "SIGKILL"
    if group is not None:
        assert (attempt.end.peak_memory_bytes or 0) > 100_000_000


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("task", "within"), [("Waits", 1.0), ("Pools", 2.0), ("HearsNothing", 4.0), ("StartsAnother", 1.0)]
)
def test_a_task_that_receives_a_termination_request(task: str, within: float, marks: Path) -> None:
    """
    One end, in the journal before Airflow's kill timeout, for each reaction of the task; no process of it is left.
    """
    with launch(task) as launcher:
        launcher.wait_for_line("waiting")
        told = time.time()
        launcher.process.terminate()
        assert launcher.wait() != 0

    attempt = note(f"{task}, told to end by SIGTERM", task, told)
    ends = [event for _, event in journal_rows() if isinstance(event, TaskEnd)]
    assert [event.reported_by.value for event in ends] == ["launcher"]
    assert attempt.cause == "terminated"
    assert rows[-1].milliseconds < here(within) * 1000
    if task == "StartsAnother":
        assert not is_alive(int((marks / "grandchild").read_text()))


def test_a_task_that_another_process_terminates() -> None:
    """
    The signal reaches the task without its launcher: the end is the same.
    """
    with launch("Waits") as launcher:
        launcher.wait_for_line("waiting")
        told = time.time()
        os.kill(task_pid("Waits"), signal.SIGTERM)
        assert launcher.wait() != 0

    attempt = note("Waits, SIGTERM to the task itself", "Waits", told)
    assert attempt.cause == "terminated"
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.end.phase, attempt.end.signal) == ("run", "SIGTERM")


@pytest.mark.quiet
def test_a_second_signal_kills_at_once() -> None:
    """
    A second request does not wait for four seconds.
    """
    with launch("HearsNothing") as launcher:
        launcher.wait_for_line("waiting")
        told = time.time()
        launcher.process.terminate()
        # Another signal: two of one kind might arrive as one.
        launcher.process.send_signal(signal.SIGINT)
        assert launcher.wait() == 137

    assert note("HearsNothing, told twice", "HearsNothing", told).cause == "terminated"
    assert rows[-1].milliseconds < here(3.0) * 1000


def test_what_survives_a_task_delays_nothing(marks: Path) -> None:
    """
    A grandchild holds the report descriptor: it is not read to its end.
    """
    grandchild = 0
    with launch("LeavesGrandchild") as launcher:
        try:
            launcher.process.wait(LIMIT_SECONDS)
            grandchild = int((marks / "grandchild").read_text())
            assert launcher.process.returncode == 0
            assert is_alive(grandchild)
        finally:
            os.kill(grandchild, signal.SIGKILL)

    attempt = note("a grandchild survives", "LeavesGrandchild", marks=marks)
    assert isinstance(attempt.end, TaskFinished)


ENGINE = """\
import os, subprocess, sys
launcher = subprocess.Popen([sys.executable, "-m", "dkist_processing_core.launcher"], stdin=subprocess.DEVNULL)
launcher.wait()
"""


@pytest.mark.quiet
@pytest.mark.parametrize("task", ["Waits", "Pools", "HearsNothing"])
def test_the_parent_of_the_launcher_is_killed(task: str) -> None:
    """
    As when a worker runs out of memory: the kernel notifies the launcher, which ends the task and reports that it is
    lost.
    """
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE],
        cwd=ROOT,
        env=environ_of(task),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as engine:
        launcher = Launched(engine, task)
        launcher.wait_for_line("waiting")
        pid = task_pid(task)
        killed = time.time()
        engine.kill()
        wait_until(lambda: not is_alive(pid))
        wait_until(lambda: any(isinstance(event, TaskEnd) for _, event in journal_rows()))

    attempt = note(f"{task}, the launcher's parent killed", task, killed)
    assert (attempt.cause, [reporter.value for reporter in attempt.reporters]) == ("lost", ["launcher"])
    assert rows[-1].milliseconds < here(4.0) * 1000


SUCCEEDS = """
from tests.launched import Succeeds
with Succeeds(recipe_run_id=5, workflow_name="faults", workflow_version="dev") as task:
    task()
"""
DIES_UNDER_IT = """
from dkist_processing_core import budget
from tests.launched import Waits
budget.DYING_SECONDS = 60
with Waits(recipe_run_id=5, workflow_name="faults", workflow_version="dev") as task:
    task()
"""


def test_a_launcher_that_dies_while_a_task_reports_to_it_has_not_received_the_report() -> None:
    """
    The threads of a killed process end one after the other, and its pipes with the last of them.
    """
    reading, report = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", DIES_UNDER_IT],
        cwd=ROOT,
        env=environ_of("Waits", DKIST_CORE_REPORT_FD=str(report)),
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[report],
    ) as process:
        os.close(report)
        task = Launched(process, "Waits")
        task.wait_for_line("waiting")
        process.terminate()
        assert b'"end": "task.failed"' in os.read(reading, 100_000)
        os.close(reading)
        task.wait()

    attempt = the_attempt("Waits")
    assert (attempt.cause, [reporter.value for reporter in attempt.reporters]) == ("lost", ["task"])


def test_a_task_that_ends_before_its_start_is_reported_waits_with_its_end(marks: Path) -> None:
    """
    Its launcher needs longer than the task, as on a machine with much other work.
    """
    reading, report = os.pipe()
    started, notify = os.pipe()
    pipes = {"DKIST_CORE_REPORT_FD": str(report), "DKIST_CORE_STARTED_FD": str(started)}
    with (
        open(reading, "rb") as reports,  # noqa: PTH123 - a descriptor
        subprocess.Popen(
            [sys.executable, "-c", SUCCEEDS], cwd=ROOT, env=environ_of("Succeeds", **pipes), pass_fds=[report, started]
        ) as process,
    ):
        os.close(report)
        os.close(started)
        wait_until((marks / "Succeeds").exists)
        # Longer than a task waits before it reports progress.
        is_early = bool(select.select([reports], [], [], 3 * budget.START_SECONDS)[0])
        os.write(notify, STARTED)
        (end,) = map(json.loads, reports)
        os.close(notify)
        assert process.wait() == 0

    assert not is_early
    assert (end["end"], end["is_on_disk"]) == ("task.finished", True)


@pytest.mark.parametrize("task", ["Waits", "Pools"])
def test_the_launcher_is_killed(task: str) -> None:
    """
    The guard terminates the task, which detects that its launcher is gone and reports its end itself.
    """
    with launch(task) as launcher:
        launcher.wait_for_line("waiting")
        pid = task_pid(task)
        killed = time.time()
        launcher.process.kill()
        wait_until(lambda: not is_alive(pid))

    attempt = note(f"{task}, the launcher killed", task, killed)
    assert attempt.cause == "lost"
    assert "task" in [reporter.value for reporter in attempt.reporters]


def test_a_deaf_task_does_not_outlive_its_launcher() -> None:
    """
    A task that ignores the request is killed four seconds later, and Airflow's report stands.
    """
    with launch("HearsNothing") as launcher:
        launcher.wait_for_line("waiting")
        pid = task_pid("HearsNothing")
        launcher.process.kill()
        wait_until(lambda: not is_alive(pid))

    (run,) = RunState(event for _, event in journal_rows()).runs
    assert run.tasks[0].attempts[0].end is None


def test_an_environment_that_cannot_be_built(tmp_path: Path) -> None:
    """
    The attempt is announced first; its end has the installer's last lines, and no secret.
    """
    began = time.time()
    with launch(
        "Succeeds",
        DKIST_CORE_PACKAGE="no_such_package.workflows",
        DKIST_CORE_VERSION="1.0",
        DKIST_CORE_ENVIRONMENTS_DIR=str(tmp_path / "environments"),
        PIP_NO_INDEX="1",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS=str(tmp_path),
        PIP_CONFIG_FILE="/dev/null",
        A_PASSWORD="not to be seen",
    ) as launcher:
        assert launcher.wait() == 1

    attempt = note("an environment that cannot be built", "Succeeds", began)
    assert isinstance(attempt.end, TaskFailed)
    assert attempt.cause == "environment"
    assert "no-such-package" in (attempt.end.message or "")
    assert attempt.dispatched_at is not None
    assert attempt.started_at is None


HOSTILE = {
    "a command": '"1$(touch x)"',
    "a command, not JSON": "1$(touch x)",
    "quotes": to_run_data("1'; touch x; '\""),
    "newlines": to_run_data("1\n2\n"),
    "1 MB": to_run_data("9" * 1_000_000),
    "as long as a variable may be": "9" * 130_000,
    "a fraction": "1.5",
    "nothing": "null",
    "a list": "[1]",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_run_data_that_is_no_recipe_run_id(what: str, tmp_path: Path) -> None:
    """
    No task is executed, and the end states the found and the expected value.
    """
    began = time.time()
    with launch("Succeeds", DKIST_CORE_RECIPE_RUN_ID=HOSTILE[what]) as launcher:
        assert launcher.wait() == 1

    attempt = note(f"run data: {what}", "Succeeds", began)
    assert isinstance(attempt.end, TaskFailed)
    assert attempt.cause == "configuration"
    assert (attempt.end.message or "").startswith("recipe_run_id: found ")
    assert (attempt.end.message or "").endswith(
        "expected an integer or decimal digits, from 0 to 2^63 - 1; "
        'in Airflow it comes from the run configuration, such as {"recipe_run_id": 1}'
    )
    assert attempt.end.recipe_run_id is None
    assert attempt.started_at is None
    assert not (tmp_path / "Succeeds").exists()
    assert not (ROOT / "x").exists()


@pytest.mark.parametrize("said", ["5", '"5"', "05"])
def test_run_data_that_is_a_recipe_run_id(said: str) -> None:
    """
    A JSON integer, a JSON string of digits, and bare digits.
    """
    with launch("Succeeds", DKIST_CORE_RECIPE_RUN_ID=said) as launcher:
        assert launcher.wait() == 0, launcher.lines

    assert {event.recipe_run_id for _, event in journal_rows()} == {5}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DKIST_CORE_ATTEMPT": "first"}, "DKIST_CORE_ATTEMPT: found 'first', expected a whole number from 1"),
        ({"DKIST_CORE_TASK_MODULE": "os; x"}, "DKIST_CORE_TASK_MODULE: found 'os; x', expected the name of the task's"),
        ({"DKIST_CORE_TASK": "A B"}, "DKIST_CORE_TASK: found 'A B', expected the name of a class"),
        ({"DKIST_CORE_PACKAGE": "a b", "DKIST_CORE_VERSION": "1"}, "a b"),
        ({"DKIST_CORE_PACKAGE": "a", "DKIST_CORE_VERSION": "1 --index-url x"}, "1 --index-url x"),
    ],
)
def test_an_assignment_that_is_unusable(variables: dict[str, str], message: str) -> None:
    """
    Each is the cause `configuration`, and names the variable or the value.
    """
    with launch("Succeeds", **variables) as launcher:
        assert launcher.wait() == 1

    attempt = the_attempt(variables.get("DKIST_CORE_TASK", "Succeeds"))
    assert isinstance(attempt.end, TaskFailed)
    assert attempt.cause == "configuration"
    assert message in (attempt.end.message or "")


def test_a_launcher_without_an_assignment_names_what_it_needs() -> None:
    """
    Only the process that has started it can be notified.
    """
    with launch("", DKIST_CORE_RUN_ID="") as launcher:
        assert launcher.wait() == 64

    (line,) = launcher.lines
    assert line == (
        "dkist_processing_core.launcher: DKIST_CORE_RUN_ID, DKIST_CORE_TASK: found nothing, expected the names of the "
        "run and the task to launch"
    )


@pytest.mark.parametrize(
    ("task", "status", "error_type", "result"),
    [
        ("SpeaksInSpans", "UNSET", None, "success"),
        ("Raises", "ERROR", "ArithmeticError", "failure"),
        ("IsKilled", "ERROR", "signal", "error"),
        ("LeavesInTheMiddle", "ERROR", "exit_code", "failure"),
    ],
)
def test_the_attempt_is_one_span_from_dispatch_to_end(
    task: str, status: str, error_type: str | None, result: str, otlp: OtlpReceiver, state_dir: Path
) -> None:
    """
    It also ends for a killed task; the spans of the task's own process are its children, in the given trace.

    A launcher leaves telemetry to the next process if the collector is too busy to answer in a moment.
    """
    environment = {**otlp.grpc_env, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    outer = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with launch(task, **environment, TRACEPARENT=outer) as launcher:
        launcher.wait()
    deliver(state_dir, environment)

    spans = otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == task] and receiver.spans())
    (attempt,) = [span for span in spans if span.name == task]
    assert (attempt.trace_id, attempt.parent_id) == (outer[3:35], outer[36:52])
    assert (attempt.status_code, attempt.attributes.get("error.type")) == (status, error_type)
    assert attempt.attributes["cicd.pipeline.task.run.result"] == result
    events = [event for _, event in journal_rows()]
    assert {event.traceparent for event in events} == {f"00-{attempt.trace_id}-{attempt.span_id}-01"}
    assert attempt.start / 1e9 == pytest.approx(events[0].time.timestamp(), abs=0.001)
    if task in ("SpeaksInSpans", "Raises"):
        (run,) = [span for span in spans if span.name == "Run"]
        assert run.parent_id == attempt.span_id
        assert attempt.start < run.start < run.end < attempt.end
    if task == "SpeaksInSpans":
        (own,) = [span for span in spans if span.name == "own step"]
        assert own.parent_id == run.span_id
    if task == "Raises":
        assert [event.attributes["exception.message"] for event in attempt.events] == ["wanted"]


def test_what_a_killed_task_has_used_is_known() -> None:
    """
    Processor time from the kernel's accounts, the peak of memory from samples.
    """
    with launch("WorksHard") as launcher:
        assert launcher.wait() == 137

    end = the_attempt("WorksHard").end
    assert end is not None
    assert 1.4 < (end.cpu_seconds or 0) < 5
    assert 100 * 1024**2 < (end.peak_memory_bytes or 0) < 400 * 1024**2
    assert 1.4 < (end.duration_seconds or 0) < 60


def test_a_failure_after_the_end_is_no_success() -> None:
    """
    The task has reported that it finished, but its process fails: the attempt has failed, and both reports are kept.
    """
    with launch("FailsAfterwards") as launcher:
        assert launcher.wait() == 1

    attempt = the_attempt("FailsAfterwards")
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.cause, attempt.end.error_type, attempt.end.reported_by) == ("exception", "OSError", "launcher")
    assert [type(event) for event in attempt.contradictions] == [TaskFinished]


def test_a_class_that_is_not_there_is_an_exception() -> None:
    """
    A task that cannot be loaded has an end with its stack.
    """
    with launch("Missing") as launcher:
        assert launcher.wait() == 1

    attempt = the_attempt("Missing")
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.cause, attempt.end.error_type) == ("exception", "AttributeError")
    assert "has no attribute 'Missing'" in (attempt.end.stack or "")


ENGINES_SECRETS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "jwt",
    "AIRFLOW__CORE__FERNET_KEY": "fernet",
    "AIRFLOW_CONN_DB": "postgres://u:p@h/d",
    "AIRFLOW_VAR_SECRET": "variable",
    "_AIRFLOW_PROCESS_CONTEXT": "client",
    "__AIRFLOW_SUPERVISOR_FD": "7",
    "CELERY_BROKER_URL": "amqp://u:p@h",
    "CELERY_RESULT_BACKEND": "db",
    "MY_SQL_ALCHEMY_CONN": "postgres://u:p@h/d",
    "airflow__core__fernet_key": "fernet",
}


def test_the_task_s_environment_holds_none_of_the_engine_s() -> None:
    """
    It contains the launcher's variables without Airflow's, the identity of the task and its trace.
    """
    with launch(
        "ShowsItsEnvironment",
        **ENGINES_SECRETS,
        AIRFLOW_CTX_DAG_ID="kept",
        DKIST_CORE_QUEUE="default",
        DKIST_CORE_PACKAGE="tests",
        DKIST_CORE_EXTRAS="a",
    ) as launcher:
        assert launcher.wait() == 0, launcher.lines

    held = dict(line.split("=", 1) for line in launcher.lines if "=" in line)
    given = set(environ_of("ShowsItsEnvironment"))
    assert not set(ENGINES_SECRETS).intersection(held)
    own = set(held) - given - {"AIRFLOW_CTX_DAG_ID", "SHLVL", "_", "PWD", "OLDPWD"}
    assert own <= {"TRACEPARENT", "PYTHONUNBUFFERED"}
    assert (held["PYTHONUNBUFFERED"], held["TRACEPARENT"][:3]) == ("1", "00-")
    ours = {name for name in held if name.startswith("DKIST_CORE_")}
    assert ours == {"DKIST_CORE_STATE_DIR", "DKIST_CORE_TEST_SESSION"}


def task_pid(task: str) -> int:
    """
    Return the process of a task, by its start.
    """
    found: list[int] = []

    def has_started() -> bool:
        with suppress(sqlite3.OperationalError):
            starts = [event for _, event in journal_rows() if isinstance(event, TaskStarted)]
            found.extend(event.pid for event in starts if event.task_name == task and event.pid)
        return bool(found)

    wait_until(has_started)
    return found[0]


def is_alive(pid: int) -> bool:
    """
    Return True if a process runs.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


OLD_RELEASE = "7.5.0" if sys.version_info >= (3, 13) else "5.1.1"
"""The newest published release of the system before this one that the interpreter can run."""
OLD_TASKS = """\
import os, signal, time
from dkist_processing_core import TaskBase

class _Marking(TaskBase):
    def run(self):
        with open(os.path.join(os.environ["FAULT_MARKS"], type(self).__name__), "w") as file:
            file.write(repr(time.time()))
        self.end()

class OldSucceeds(_Marking):
    def end(self): pass

class OldRaises(_Marking):
    def end(self): raise ArithmeticError("wanted")

class OldIsKilled(_Marking):
    def end(self): os.kill(os.getpid(), signal.SIGKILL)

class OldLeaves(_Marking):
    def end(self): os._exit(0)
"""


@pytest.fixture(scope="module")
def old_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """
    The variables of a task whose environment holds the release before this one, as published; the first use builds it.
    """
    wheels = tmp_path_factory.mktemp("wheels")
    make_wheel(
        wheels,
        "old-pipeline",
        "1.0",
        requires=[f"dkist-processing-core=={OLD_RELEASE}"],
        files={"old_pipeline/__init__.py": "", "old_pipeline/tasks.py": OLD_TASKS},
    )
    return {
        "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels.as_uri()}".strip(),
        "DKIST_CORE_PACKAGE": "old_pipeline.workflows",
        "DKIST_CORE_VERSION": "1.0",
        "DKIST_CORE_TASK_MODULE": "old_pipeline.tasks",
        "DKIST_CORE_ENVIRONMENTS_DIR": str(tmp_path_factory.mktemp("environments")),
    }


@pytest.mark.parametrize(
    ("task", "status", "cause", "expected"),
    [
        ("OldSucceeds", 0, None, {}),
        ("OldRaises", 1, "exception", {"error_type": "ArithmeticError", "message": "wanted"}),
        ("OldIsKilled", 137, "signal", {"signal": "SIGKILL"}),
        ("OldLeaves", 1, "exit_code", {"exit_code": 0}),
    ],
)
@pytest.mark.once  # it installs a release
def test_a_task_of_the_release_before_has_its_start_and_its_end(
    task: str,
    status: int,
    cause: str | None,
    expected: dict[str, object],
    old_environment: dict[str, str],
    marks: Path,
    otlp: OtlpReceiver,
) -> None:
    """
    It does not publish these events itself: the launcher does, from the reports of the constant program.
    """
    telemetry = {**otlp.grpc_env, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    with launch(task, **old_environment, **telemetry) as launcher:
        assert launcher.wait(INSTALLATION_SECONDS) == status, launcher.lines

    attempt = note(f"{task}, of release {OLD_RELEASE}", task, marks=marks)
    assert (attempt.cause, [reporter.value for reporter in attempt.reporters]) == (cause, ["launcher"])
    assert expected == {name: getattr(attempt.end, name) for name in expected}
    # It records nothing, and its launcher measures all the same.
    assert getattr(attempt.end, "last_stack", None) is None
    assert attempt.end is not None
    assert attempt.end.resources is not None
    assert attempt.end.profile
    started = next(event for _, event in journal_rows() if isinstance(event, TaskStarted))
    assert started.environment in ("built", "reused")
    spans = otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == task] and receiver.spans())
    (span,) = [each for each in spans if each.name == task]
    (preparation,) = [each for each in spans if each.name == "Prepare Environment"]
    assert preparation.parent_id == span.span_id
    assert preparation.attributes["dkist.environment"] == "old-pipeline==1.0"
    assert preparation.attributes["dkist.environment.state"] == started.environment
    assert span.start <= preparation.start <= preparation.end <= span.end


INHERITING = """\
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
os.execv("/bin/bash", ["bash", "-c", sys.argv[1]])
"""


def test_what_a_launcher_inherits_does_not_disturb_it() -> None:
    """
    From its parent process: children that are not waited for, and blocked signals.
    """
    with launch("Waits", sys.executable, "-c", INHERITING, COMMAND) as launcher:
        launcher.wait_for_line("waiting")
        launcher.process.terminate()
        assert launcher.wait() == 143, launcher.lines

    assert the_attempt("Waits").cause == "terminated"
