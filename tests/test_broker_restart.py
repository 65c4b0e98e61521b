"""
A broker that dies under load and comes back: everything arrives, and publishing goes on during the outage.

Not here: the network in between (test_network_faults.py), and publishers that die (test_kill_points.py).
"""

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pytest

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Books
from tests.arrivals import Arrivals, Ledger
from tests.facts import progressed
from tests.services.broker import Broker
from tests.services.rabbitmq import RabbitMQNode
from tests.test_delivery import settings_of, warnings_in
from tests.waiting import wait_until

COUNT = 3000
TASKS = ("A", "B", "C")
# Longer than the longest pause between two tries.
PATIENCE = 30.0
# The longest duration of one publish while the broker is down: it waits only for the disk.
SLOW = 1.0


class Load(threading.Thread):
    """
    A thread that publishes the progress of three tasks at full speed, and records the duration of the slowest publish.
    """

    def __init__(self, publisher: Publisher) -> None:
        """
        Store the publisher.
        """
        super().__init__(name="load")
        self._publisher = publisher
        self.ids: list[str] = []
        self.slowest = 0.0
        self.is_back = threading.Event()
        """Set when the broker is back. The thread publishes until then, and at least `COUNT` events."""

    def __enter__(self) -> Self:
        """
        Begin to publish.
        """
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Stop publishing, and wait for the thread's end.
        """
        self.is_back.set()
        self.join()

    def run(self) -> None:
        """
        Publish.
        """
        for number in itertools.count():
            if number >= COUNT and number % len(TASKS) == 0 and self.is_back.is_set():
                return
            event = progressed(TASKS[number % len(TASKS)], number // len(TASKS))
            began = time.monotonic()
            self._publisher.publish(event)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.ids.append(event.id)


def in_order_of(task_name: str, ids: list[str]) -> list[int]:
    """
    Return the sequence numbers of a task's events in the order in which they came last.

    Not first: a killed broker may have kept some of the unconfirmed events, with gaps. All of those are sent again, in
    order.
    """
    numbers = {progressed(task_name, number).id: number for number in range(len(ids) // len(TASKS))}
    return [numbers[identifier] for identifier in ids if identifier in numbers]


@pytest.mark.quiet  # the slowest publish is measured
@pytest.mark.parametrize("end", [RabbitMQNode.kill, RabbitMQNode.stop], ids=["killed", "stopped"])
def test_a_broker_that_ends_under_load_gets_everything_in_order_when_it_is_back(
    broker: Broker, end: Callable[[RabbitMQNode], None], caplog: pytest.LogCaptureFixture
) -> None:
    """
    At least three thousand events over an end and a new start: all arrive, each task's in order, with few warnings.
    """
    settings = settings_of(broker)
    ledger = Ledger(settings, Arrivals(broker, settings))

    with Publisher.open(settings) as publisher:
        with Load(publisher) as load:
            wait_until(lambda: len(load.ids) > COUNT // 4)
            end(broker.node)
            before = len(load.ids)
            broker.node.start()
            meanwhile = len(load.ids) - before
        wait_until(lambda: ledger.books.pending == 0, PATIENCE)
    ledger.note(load.ids, load.ids, "load")
    ledger.assert_nothing_lost()

    count = len(load.ids)
    assert ledger.books == Books(published=count, confirmed=count, pending=0, set_aside=0)
    assert [in_order_of(name, ledger.arrivals.ids) for name in TASKS] == [list(range(count // len(TASKS)))] * len(TASKS)
    assert 1 <= len(warnings_in(caplog)) <= 2, warnings_in(caplog)
    assert meanwhile > COUNT // 10
    assert load.slowest < SLOW
