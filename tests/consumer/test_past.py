"""
Past events that a consumer takes in: none is handled again, also after its key was deleted, and none is lost.

Not here: the forms of a start in the past (tests of subscriptions), and a broker that has lost events (test_outages).
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

from dkist_processing_core import Consumer
from dkist_processing_core.bus import ReceivedMessage, Receiver
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.events import TaskFailed
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import FixedClock, InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import failed

DAY = 86_400.0


class Life:
    """
    A consumer whose days pass at once.
    """

    def __init__(self, effects: Effects) -> None:
        """
        It has not begun.
        """
        self.clock = FixedClock(datetime(2026, 11, 1, tzinfo=UTC))
        self.bus = InMemoryBus(clock=self.clock)
        self.seen: list[str] = []
        self.consumer = Consumer("actor", inbox=effects.url)

        @self.consumer.on("task.failed")
        def act(event: TaskFailed) -> None:
            self.seen.append(event.task_name)

    def run(self, *, since: datetime | bool | None = None) -> list[str]:
        """
        Run until nothing is left, and return what was handled.
        """
        self.seen.clear()
        database = Database.open(self.consumer.inbox, read_settings())
        ConsumerService(self.consumer, self.bus, database, clock=self.clock, since=since).run(until_idle=True)
        return list(self.seen)


@pytest.fixture
def life(effects: Effects) -> Iterator[Life]:
    """
    A consumer on a bus in memory, both with a clock that the test sets.
    """
    life = Life(effects)
    with life.bus:
        yield life


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    Return the warnings of consumers.
    """
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_handled_before_its_key_was_deleted_is_passed_over(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    """
    One line states how many past events these are. An old event that has arrived late is handled, live and later.
    """
    life.bus.publish(failed("A"), failed("B"))
    first = life.run(since=True)
    life.clock.advance(8 * DAY)
    life.bus.publish(failed("Late"))
    live = life.run()
    life.bus.publish(failed("New"))

    again = life.run(since=True)

    assert (first, live, again) == (["A", "B"], ["Late"], ["New"])
    (line,) = lines(caplog)
    assert line == (
        "the consumer 'actor' has passed over 2 past events that reached the bus before 2026-11-02T00:00:10+00:00: "
        "it may have handled them, and has deleted their keys"
    )


def test_a_consumer_that_has_deleted_no_key_takes_in_events_of_any_age(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A bus may keep events for longer than an inbox keeps keys.
    """
    life.bus.publish(failed("A"))
    life.clock.advance(30 * DAY)
    life.bus.publish(failed("B"))

    assert (life.run(since=True), life.run(since=True)) == (["A", "B"], [])
    assert lines(caplog) == []


def test_a_start_after_the_deleted_keys_passes_over_nothing(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    """
    The keys of what reached the bus since then are known.
    """
    life.bus.publish(failed("A"))
    life.run(since=True)
    life.clock.advance(8 * DAY)
    life.run()
    life.bus.publish(failed("B"), failed("C"))

    assert life.run(since=life.clock.now - timedelta(days=1)) == ["B", "C"]
    assert life.run(since=life.clock.now - timedelta(days=1)) == []
    assert lines(caplog) == []


def test_keys_are_not_deleted_while_what_was_not_acknowledged_may_come_again(life: Life) -> None:
    """
    A consumer that was killed between handling and acknowledging, and starts after a week, handles nothing twice.
    """
    names = [f"Task{number}" for number in range(60)]
    database = Database.open(life.consumer.inbox, read_settings())
    with closing(ConsumerService(life.consumer, life.bus, database, clock=life.clock)) as service:
        assert service.intake is not None
        service.intake.step(0.0)
        life.bus.publish(*map(failed, names))
        receiver = service.intake._receiver
        assert receiver is not None
        service.intake.store(receiver.receive_batch(100, 0.0))
        for worker in service.workers:
            while worker.step() is not None:
                pass
    assert life.seen == names
    life.clock.advance(8 * DAY)

    assert life.run() == []


class UnreadBus(InMemoryBus):
    """
    A bus whose events since a time are long in coming, as those of a broker with a large archive of other events.
    """

    is_asked = threading.Event()

    def subscribe(self, patterns: Iterable[str], **given: Any) -> Any:
        """
        Return a receiver; one for a time has received nothing yet.
        """
        receiver = super().subscribe(patterns, **given)
        return Unread(receiver, self.is_asked) if isinstance(given.get("replay"), datetime) else receiver


class Unread:
    """
    A receiver that has received nothing yet.
    """

    is_connected = True
    connections = 1

    def __init__(self, receiver: Receiver, is_asked: threading.Event) -> None:
        """
        Store the receiver that it replaces.
        """
        self._is_asked, self.close = is_asked, receiver.close

    def receive_batch(self, _most: int, timeout: float) -> Sequence[ReceivedMessage]:
        """
        Wait in vain.
        """
        self._is_asked.set()
        threading.Event().wait(timeout)
        return ()

    def has_caught_up(self, _since: float) -> bool:
        """
        Return False: there may be more.
        """
        return False

    def __enter__(self) -> Self:
        """
        Return the receiver itself.
        """
        return self

    def __exit__(self, *_: object) -> None:
        """
        Close the receiver.
        """
        self.close()


@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_consumer_ends_on_request_while_it_looks_for_the_first_past_event(effects: Effects) -> None:
    """
    A large archive may take minutes.
    """
    life = Life(effects)
    life.bus = bus = UnreadBus(clock=life.clock)
    with bus:
        life.bus.publish(failed("A"))
        life.run(since=True)
        life.clock.advance(8 * DAY)
        life.run()
        database = Database.open(life.consumer.inbox, read_settings())
        service = ConsumerService(life.consumer, life.bus, database, clock=life.clock, since=True)
        thread = threading.Thread(target=service.run)
        thread.start()
        assert bus.is_asked.wait(20)
        service.stop()
        thread.join(10)

        assert not thread.is_alive()
