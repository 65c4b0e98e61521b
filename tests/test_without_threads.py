"""
A process that can start no thread, such as under a limit on processes or while its interpreter exits.

Not here: publish and flush in such a process (test_hard_cases.py).
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.events import TaskEvent, TaskFailed
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.process.mounts import Mount
from dkist_processing_core.process.thread_limits import can_start_threads, room_in_groups
from dkist_processing_core.runs import State
from tests.facts import started
from tests.running import ROOT, run_python
from tests.services.broker import Broker
from tests.test_delivery import books_of, settings_of
from tests.test_faults import environ_of, journal_rows
from tests.test_local import the_run

# More than any machine has: the kernel refuses each thread, but no process.
NONE_TO_BE_HAD = """
import threading
threading.stack_size(1 << 46)
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise AssertionError("there are threads")
"""

LOCAL = """
from tests import pipelines
result = pipelines.diamond.run(recipe_run_id=5, max_parallel=2)
print(result.succeeded)
"""


def test_a_local_run_without_threads_runs_one_task_after_another() -> None:
    """
    The calling thread starts and follows each launcher. The events of all tasks are on the bus.
    """
    done = run_python(NONE_TO_BE_HAD + LOCAL, {})

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "True"), done.stderr
    run = the_run()
    assert (run.state, [task.state for task in run.tasks]) == (State.FINISHED, [State.FINISHED] * 4)


INTERRUPTED = """
import signal
from tests.pipelines import endless
signal.signal(signal.SIGINT, signal.default_int_handler)
endless.run(recipe_run_id=5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_local_run_without_threads_that_is_interrupted_waits_for_the_end_of_its_task(number: signal.Signals) -> None:
    """
    The launcher ends the task and reports that. The engine reports no end of the task.
    """
    with subprocess.Popen(
        [sys.executable, "-c", NONE_TO_BE_HAD + INTERRUPTED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Endless | waiting\n"
        process.send_signal(number)
        process.communicate(timeout=300)

    events = list(subscribe(replay=True, every_report=True, timeout=0.05))
    assert process.returncode == -number
    ends = [event for event in events if isinstance(event, TaskFailed)]
    assert [(end.cause, end.provisional) for end in ends] == [("terminated", False)] * len(ends) != []
    assert events[-1].name == "workflow.failed"


AT_EXIT = """
import atexit
from dkist_processing_core import TaskBase

class A(TaskBase):
    def run(self):
        self.progress(1)

atexit.register(A(recipe_run_id=1, workflow_name="W", workflow_version="1"))
"""


def test_a_task_that_is_called_while_the_interpreter_exits_is_reported(broker: Broker) -> None:
    """
    From Python 3.12 on, no thread can be started then. The events are delivered without a thread.
    """
    done = run_python(AT_EXIT, broker.env)

    assert (done.returncode, done.stderr) == (0, "")
    books = books_of(settings_of(broker))
    assert (books.published, books.pending) == (3, 0)


def test_an_outbox_is_drained_without_a_thread(broker: Broker) -> None:
    """
    The command delivers in its main thread.
    """
    settings = settings_of(broker)
    bus = open_bus(settings)
    with bus.open_journal() as journal:
        journal.append([to_message(started("A"), bus.event_exchange)])

    done = run_python(
        f"{NONE_TO_BE_HAD}\nimport sys\nsys.argv[1:] = ['outbox', 'drain']\n"
        "from dkist_processing_core.cli import main\nmain()",
        broker.env,
    )

    assert done.returncode == 0, done.stderr
    books = books_of(settings)
    assert (books.confirmed, books.pending) == (1, 0)


SUBSCRIPTION = """
from dkist_processing_core import subscribe
from dkist_processing_core.errors import BusError
try:
    with subscribe(timeout=0) as events:
        list(events)
except BusError as error:
    print(error)
"""


def test_a_subscription_without_a_thread_is_one_clear_error(broker: Broker) -> None:
    """
    The error states the remedy, and no connection is left open.
    """
    done = run_python(NONE_TO_BE_HAD + SUBSCRIPTION, broker.env)

    assert done.returncode == 0, done.stderr
    assert "a subscription needs its own thread" in done.stdout


READER = """
from datetime import UTC, datetime
from dkist_processing_core.airflow._bus_reader import reader_since
reader = reader_since("W", datetime.now(UTC))
print(reader.has_read_backlog())
"""


def test_a_callback_without_a_thread_for_reading_the_bus_treats_it_as_silent() -> None:
    """
    The bus is treated as one that does not answer, and failures are published.
    """
    done = run_python(NONE_TO_BE_HAD + READER, {})

    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


SHOWN = """
import sys
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.local.display import open_display
from dkist_processing_core.identity import Run
with open_display(Run("W", "1", "r", 1), ["A"], DKISTProcessingCoreConfiguration()) as display:
    sys.__stdout__.write(type(display).__name__)
"""


def test_a_run_is_shown_line_by_line_in_a_terminal_without_threads() -> None:
    """
    A live display would need two threads.
    """
    done = run_python(NONE_TO_BE_HAD + SHOWN, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"})

    assert (done.returncode, done.stdout) == (0, "PlainDisplay"), done.stderr


LAUNCHER = """
import sys
from dkist_processing_core.launcher.launch import main
sys.exit(main())
"""


def test_a_launcher_without_threads_reports_the_end_of_a_task_that_was_killed(broker: Broker, tmp_path: Path) -> None:
    """
    The launcher watches, reports and delivers in one thread.
    """
    variables = environ_of("IsKilled", FAULT_MARKS=str(tmp_path), **broker.env)

    done = run_python(NONE_TO_BE_HAD + LAUNCHER, variables)

    assert done.returncode == 137, done.stderr
    books = books_of(settings_of(broker))
    assert (books.published, books.confirmed) == (3, 3)


def limited(processes: int) -> list[str]:
    """
    Return the start of a command that runs as a user with a limit of `processes` more processes and threads.
    """
    user, prefix = os.getuid(), []
    if user == 0:
        # Root is not limited. The files of this interpreter may be readable for root only.
        user, right = 61_000 + os.getpid() % 4_000, "+dac_read_search"
        rights = ["--inh-caps", right, "--ambient-caps", right, "--bounding-set", f"-all,{right}"]
        prefix = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", *rights]
    owners = []
    for path in Path("/proc").glob("[0-9]*/task/*"):
        # A thread of another process may end at any moment.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            owners.append(path.stat().st_uid)
    return ["prlimit", f"--nproc={owners.count(user) + processes}", *prefix]


@pytest.mark.parametrize("processes", [3, 5, 8])
def test_a_launcher_under_a_limit_on_processes_reports_the_end_of_a_task_that_was_killed(
    processes: int, refusing_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A collector is named as well, whose delivery has threads too.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setenv("DKIST_CORE_STATE_DIR", f"{folder}/state")
        collector = f"http://127.0.0.1:{refusing_port}"
        done = subprocess.run(
            [*limited(processes), sys.executable, "-P", "-c", LAUNCHER],
            env=environ_of("IsKilled", FAULT_MARKS=folder, OTEL_EXPORTER_OTLP_ENDPOINT=collector),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        events = [event for _, event in journal_rows()]

    assert done.returncode == 137, done.stderr
    assert [event.name for event in events] == ["task.dispatched", "task.started", "task.failed"]
    assert isinstance(events[-1], TaskFailed)
    assert events[-1].signal == "SIGKILL"


@pytest.mark.parametrize(
    ("groups", "mount", "room"),
    [
        ("0::/pod/task\n", Mount("/", "{point}", "cgroup2", "rw"), 5),
        ("1:name=systemd:/\n2:cpu,pids:/pod/task\n0::/\n", Mount("/", "{point}", "cgroup", "rw,pids"), 5),
        # A container sees only its part of the tree, here under its outside name.
        ("0::/pod/task\n", Mount("/pod", "{point}/pod", "cgroup2", "rw"), 5),
        ("0::/\n", Mount("/", "{point}/pod", "cgroup2", "rw"), 5),
        ("0::/../other\n", Mount("/", "{point}", "cgroup2", "rw"), math.inf),
        ("2:pids:/pod/task\n", Mount("/", "{point}", "cgroup", "rw,memory"), math.inf),
    ],
)
def test_no_thread_is_tried_where_a_control_group_has_no_room_for_all(
    groups: str, mount: Mount, room: float, tmp_path: Path
) -> None:
    """
    Trying would use up the room that other processes may need for a fork. The limit is read instead.
    """
    for folder, limit, current in (("pod", "30", "25"), ("pod/task", "max", "3")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pids.max").write_text(limit + "\n")
        (tmp_path / folder / "pids.current").write_text(current + "\n")
    shown = Mount(mount.root, mount.point.format(point=tmp_path), mount.file_system, mount.options)

    found = room_in_groups(groups, [shown])

    assert found == room
    assert can_start_threads(6, room=lambda: found) == (room > 6)


CALLED_AT_EXIT = """
import atexit
from dkist_processing_core import TaskBase, Workflow

class Last(TaskBase):
    def run(self):
        self.progress(1)

class First(TaskBase):
    def run(self):
        atexit.register(Last(recipe_run_id=1, workflow_name="last", workflow_version="1"))
        atexit.register(self.progress, 2)

workflow = Workflow(process_category="at", process_name="exit", workflow_package="no.package", workflow_version="1")
workflow.add_node(First)

if __name__ == "__main__":
    workflow.run(1)
"""


def test_a_task_that_a_launched_one_calls_as_its_process_exits_is_reported(broker: Broker, tmp_path: Path) -> None:
    """
    Each of them has its start and its end. Progress after the end is not reported.
    """
    script = tmp_path / "exits.py"
    script.write_text(CALLED_AT_EXIT)

    done = subprocess.run(
        [sys.executable, script], env=os.environ | broker.env, capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, done.stderr
    events = subscribe(replay=True, timeout=0.0, settings=settings_of(broker))
    seen = {(event.task_name, event.name.removeprefix("task.")) for event in events if isinstance(event, TaskEvent)}
    first = {("First", "dispatched"), ("First", "started"), ("First", "finished")}
    assert seen == first | {("Last", "started"), ("Last", "progressed"), ("Last", "finished")}
