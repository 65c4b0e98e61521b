"""
A process that can have no further thread, as under a limit on processes or while its interpreter exits.

Not here: what is published and flushed in one (test_hard_cases.py).
"""

from dkist_processing_core.bus import open_bus, to_message
from dkist_processing_core.runs import State
from tests.facts import started
from tests.running import run_python
from tests.services.broker import Broker
from tests.test_delivery import books_of, settings_of
from tests.test_local import the_run

# More than any machine has: the kernel refuses each thread, and no process.
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
    Its calling thread starts and follows each launcher; the events of all tasks are there.
    """
    done = run_python(NONE_TO_BE_HAD + LOCAL, {})

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "True"), done.stderr
    run = the_run()
    assert (run.state, [task.state for task in run.tasks]) == (State.FINISHED, [State.FINISHED] * 4)


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
    From Python 3.12 on no thread can be started by then: what it publishes is delivered all the same.
    """
    done = run_python(AT_EXIT, broker.env)

    assert (done.returncode, done.stderr) == (0, "")
    books = books_of(settings_of(broker))
    assert (books.published, books.pending) == (3, 0)


def test_an_outbox_is_drained_without_a_thread(broker: Broker) -> None:
    """
    The command delivers in its own thread.
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
    It says what to do, and leaves no connection behind.
    """
    done = run_python(NONE_TO_BE_HAD + SUBSCRIPTION, broker.env)

    assert done.returncode == 0, done.stderr
    assert "no subscription without a thread of its own" in done.stdout


LOOK = """
from datetime import UTC, datetime
from dkist_processing_core.airflow._look import look_at
look = look_at("W", datetime.now(UTC))
print(look.is_read())
"""


def test_a_look_of_the_engine_s_callbacks_without_a_thread_is_one_at_a_bus_that_does_not_answer() -> None:
    """
    Failures are announced without it, as they are where no bus answers.
    """
    done = run_python(NONE_TO_BE_HAD + LOOK, {})

    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


SHOWN = """
import sys
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.display import open_display
from dkist_processing_core.identity import Run
with open_display(Run("W", "1", "r", 1), ["A"], DKISTProcessingCoreConfiguration()) as display:
    sys.__stdout__.write(type(display).__name__)
"""


def test_a_run_is_shown_line_by_line_in_a_terminal_without_threads() -> None:
    """
    What moves would need two of them.
    """
    done = run_python(NONE_TO_BE_HAD + SHOWN, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"})

    assert (done.returncode, done.stdout) == (0, "PlainDisplay"), done.stderr
