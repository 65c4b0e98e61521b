"""
A signal handler that publishes, reports progress and logs while the main thread does the same.

Not here: handlers that raise (test_hard_cases.py).
"""

import os

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import TaskProgressed
from tests.running import run_python
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.test_degradation import ids_in
from tests.test_delivery import settings_of

PROGRAM = """
import itertools, logging, random, signal, sys, time
from dkist_processing_core import TaskBase
from dkist_processing_core.attempt import lifecycle
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
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


def run_it(environment: dict[str, str], program: str = PROGRAM) -> int:
    """
    Run a program, and return the number of events that it has published in addition to the task's.
    """
    done = run_python(program, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


def test_a_handler_may_publish_while_it_interrupts_a_publish() -> None:
    """
    The interrupted call appends the events of the handler. Nothing hangs, and no event is lost or duplicated.
    """
    count = run_it({})

    ids = ids_in(DKISTProcessingCoreConfiguration())
    assert len(ids) == len(set(ids))
    assert count > 20
    assert len([sequence for task, sequence in reports() if task == "B"]) == count


def reports() -> list[tuple[str, int]]:
    """
    Return task and number of each progress report in the embedded journal.
    """
    events = subscribe("task.progressed", replay=True, timeout=0)
    return [(event.task_name, event.sequence) for event in events if isinstance(event, TaskProgressed)]


def test_a_handler_may_publish_beside_the_thread_that_delivers(broker: Broker) -> None:
    """
    On RabbitMQ, all events are confirmed, or pending in the journal.
    """
    count = run_it(broker.env)

    with open_bus(settings_of(broker)).open_journal() as journal:
        assert journal.books().published > count > 20


AT_EACH_LINE = """
import faulthandler, itertools, logging, signal, sys
from dkist_processing_core import TaskBase
from dkist_processing_core.attempt import lifecycle
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

faulthandler.dump_traceback_later(50, exit=True)
lifecycle.PROGRESS_SECONDS = 0.0
WATCHED = (
    "/delivery/", "/progress.py", "/journal/_journal.py", "/journal/_file.py", "/tracing/", "/opentelemetry/sdk/",
    "/threading.py",
)
numbers, seen, inside = itertools.count(), set(), []

def is_watched(frame):
    return any(each in frame.f_code.co_filename for each in WATCHED)

def trace(frame, event, argument):
    # Where it is called from tells apart what one lock is taken for.
    place = frame.f_lineno, frame.f_code, frame.f_back.f_code, frame.f_back.f_back.f_code
    if event == "line" and not inside and place not in seen and (place[1].co_name == "set" or place[:2] not in seen):
        seen.update([place, place[:2]])
        signal.raise_signal(signal.SIGALRM)
    return trace if is_watched(frame) else None

class A(TaskBase):
    def do(self, publisher):
        publisher.publish(progressed("B", next(numbers)))
        publisher.remember(f"note {next(numbers)}")
        publisher.remembers("a note")
        publisher.is_pending
        with self.telemetry_span("step"):
            logging.getLogger("author").warning("here")
        self.progress(1)

    def interrupt(self, *_):
        if not inside:
            inside.append(True)
            try:
                self.do(self.publisher)
            finally:
                inside.pop()

    def run(self):
        self.publisher = Publisher.open(DKISTProcessingCoreConfiguration())
        signal.signal(signal.SIGALRM, self.interrupt)
        sys.settrace(lambda frame, *_: trace if is_watched(frame) else None)
        with Publisher.open(DKISTProcessingCoreConfiguration()) as other:
            self.do(other)
        sys.settrace(None)
        self.publisher.close(10)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
print(next(numbers) // 2)
"""


def test_a_handler_may_interrupt_publisher_and_telemetry_at_any_line(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The handler may interrupt each line of the publisher and of the SDK, including their start, end and wake-up of
    threads. Nothing hangs, and no event is lost.
    """
    # Coverage measurement uses the trace function, too, and would be replaced.
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)
    one_each = {"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}

    count = run_it(otlp.grpc_env | one_each, AT_EACH_LINE)

    settings = DKISTProcessingCoreConfiguration()
    assert count > 200
    assert len({sequence for task, sequence in reports() if task == "B"}) == count
    with open_bus(settings).open_journal() as journal:
        assert sum(journal.remembers(f"note {number}") for number in range(2 * count)) == count
    otlp.wait_for(lambda received: len([each for each in received.logs() if each.body == "here"]) == count)
    otlp.wait_for(lambda received: len([each for each in received.spans() if each.name == "step"]) == count)
    folder = open_bus(settings).journal_path.parent
    kept = {path.name for path in folder.iterdir() if path.suffix != ".lock" and not path.name.startswith("otlp-")}
    assert kept == {"embedded.db"}


FASTER_THAN_THE_DISK = """
import itertools, signal, time
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

numbers = itertools.count()

def publish():
    publisher.publish(progressed("B", next(numbers)))

def interrupt(*_):
    began = time.monotonic()
    publish()
    # So that three quarters of the time are left to what it interrupts, on a slow machine as well.
    signal.setitimer(signal.ITIMER_REAL, 3 * (time.monotonic() - began))

publisher = Publisher.open(DKISTProcessingCoreConfiguration())
publish()
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0001)
for _ in range(3):
    publish()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
publisher.close()
print(next(numbers))
"""


def test_a_handler_that_publishes_faster_than_the_disk_takes_it_does_not_keep_a_publish_from_its_end() -> None:
    """
    The interrupted call appends the handler's events for at most half a second, and later calls append the rest.
    """
    count = run_it({}, FASTER_THAN_THE_DISK)

    assert sorted(sequence for _, sequence in reports()) == list(range(count))
