"""
A signal's handler that publishes, reports progress and logs while the main thread does the same.

Not here: handlers that raise (test_hard_cases.py).
"""

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import TaskProgressed
from tests.running import run_python
from tests.services.broker import Broker
from tests.test_degradation import ids_in
from tests.test_delivery import settings_of

PROGRAM = """
import itertools, logging, random, signal, sys, time
from dkist_processing_core import TaskBase, lifecycle
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.publisher import Publisher
from tests.facts import progressed

numbers, interruptions = itertools.count(), itertools.count()
# Every report is to be published, and not one a second.
lifecycle.PROGRESS_SECONDS = 0.0

class A(TaskBase):
    def run(self):
        with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:
            def do(*_):
                publisher.publish(progressed("B", next(numbers)))
                self.progress(1)
                logging.getLogger("author").warning("here")
            def interrupt(*_):
                do()
                # Again a moment after its end, wherever that is, but not for ever: a slow disk would never catch up.
                if next(interruptions) < 150:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.005))
            signal.signal(signal.SIGALRM, interrupt)
            interrupt()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                do()
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            publisher.close(10)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
print(next(numbers))
"""


def run_it(environment: dict[str, str]) -> int:
    """
    Run the program, and return how many events it has published beside the task's own.
    """
    done = run_python(PROGRAM, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


def test_a_handler_may_publish_while_it_interrupts_a_publish() -> None:
    """
    What it publishes is appended by the call that it has interrupted: nothing hangs, nothing is lost or doubled.
    """
    count = run_it({})

    ids = ids_in(DKISTProcessingCoreConfiguration())
    assert len(ids) == len(set(ids))
    assert count > 20
    assert len([sequence for task, sequence in reports() if task == "B"]) == count


def reports() -> list[tuple[str, int]]:
    """
    Return task and number of each report of progress in the embedded journal.
    """
    events = subscribe("task.progressed", replay=True, timeout=0)
    return [(event.task_name, event.sequence) for event in events if isinstance(event, TaskProgressed)]


def test_a_handler_may_publish_beside_the_thread_that_delivers(broker: Broker) -> None:
    """
    The same on RabbitMQ: all of it is confirmed, or waits in the journal.
    """
    count = run_it(broker.env)

    with open_bus(settings_of(broker)).open_journal() as journal:
        assert journal.books().published > count > 20
