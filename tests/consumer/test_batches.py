"""
A handler that takes all events of a transaction at once, and what becomes of the others if it fails for one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from dkist_processing_core import Consumer
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.events import Event
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import started


@pytest.fixture
def bus() -> Iterator[InMemoryBus]:
    """
    The bus of this process.
    """
    with InMemoryBus() as bus:
        yield bus


def test_a_batch_is_one_call_and_a_failure_of_one_event_is_its_own(bus: InMemoryBus, effects: Effects) -> None:
    """
    The other events of a batch that has failed are handled one by one, and have their effects once.
    """
    sizes: list[int] = []
    failures: list[str] = []

    def take(events: Sequence[Event], transaction: Connection) -> None:
        sizes.append(len(events))
        for event in events:
            effects.take(transaction, event)
        wrong = [name for each in events if (name := getattr(each, "task_name", "")) == "T3"]
        if wrong and len(failures) < 2:
            failures.extend(wrong)
            raise ValueError("of T3")

    consumer = Consumer("batches", inbox=effects.url, first_pause=0.0, longest_pause=0.0, batch_size=100)
    consumer.take_batches(take)
    bus.publish(*(started(f"T{number}") for number in range(8)))
    consumer.run(since="first", until_idle=True)

    assert len(effects.events) == len(set(effects.events)) == 8
    assert len(failures) == 2
    assert max(sizes) > 1


@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_batch_has_more_events_than_share_a_transaction(bus: InMemoryBus, effects: Effects, batch_size: int) -> None:
    """
    Each event is in one batch.
    """
    taken: list[list[Any]] = []
    consumer = Consumer("batches", inbox=effects.url, batch_size=batch_size)
    take: Callable[..., None] = lambda events, transaction: taken.append(list(events))  # noqa: ARG005, E731
    consumer.take_batches(take)
    bus.publish(*(started(f"T{number}") for number in range(12)))
    consumer.run(since="first", until_idle=True)

    assert sorted(event.task_name for events in taken for event in events) == sorted(f"T{n}" for n in range(12))
    assert max(map(len, taken)) <= batch_size


def test_a_handler_of_batches_is_the_only_one(effects: Effects) -> None:
    """
    Another one would not be called, whichever is registered first.
    """
    take: Callable[..., None] = lambda events, transaction: None  # noqa: ARG005, E731
    handle: Callable[..., None] = lambda event: None  # noqa: ARG005, E731
    first, second = (Consumer(name, inbox=effects.url) for name in ("first", "second"))
    first.take_batches(take)
    second.on()(handle)

    with pytest.raises(ValueError, match="the only handler"):
        first.on()(handle)
    with pytest.raises(ValueError, match="the only handler"):
        second.take_batches(take)


class _OnArrival:
    """
    A consumer that is handed reports as they arrive; its intake and its worker make their steps on request.
    """

    def __init__(self, bus: InMemoryBus, effects: Effects, failures: list[ValueError]) -> None:
        """
        Open it, and receive until no report can be a repetition of one that an earlier process has received.
        """
        self.sizes: list[int] = []
        self._effects = effects
        self._failures = failures
        consumer = Consumer(
            "batches", inbox=effects.url, every_report=True, batch_size=5, first_pause=0.0, longest_pause=0.0
        )
        consumer.take_batches(self._take)
        service = ConsumerService.open(consumer, read_settings())
        assert service is not None
        assert service.intake is not None
        self._bus, self._service, self._intake = bus, service, service.intake
        self._intake.step(0.0)
        self.take_in()

    def _take(self, events: Sequence[Event], transaction: Connection) -> None:
        self.sizes.append(len(events))
        for event in events:
            self._effects.take(transaction, event)
        if self._failures and any(getattr(event, "task_name", "") == "T3" for event in events):
            raise self._failures.pop()

    def take_in(self, *numbers: int) -> None:
        """
        Publish the starts of tasks, and receive until nothing is left.
        """
        self._bus.publish(*(started(f"T{number}") for number in numbers))
        self._intake.quiet_at = None
        while self._intake.quiet_at is None:
            self._intake.step(0.0)

    def work(self) -> None:
        """
        Handle what is due.
        """
        while self._service.workers[0].step() is not None:
            pass

    def close(self) -> None:
        """
        Release its locks.
        """
        self._service.close()


def test_reports_are_handled_in_the_transaction_in_which_they_arrive(bus: InMemoryBus, effects: Effects) -> None:
    """
    No worker has to claim them. A repetition has no effect, and those that arrive with it are handled later.
    """
    with closing(_OnArrival(bus, effects, [])) as consumer:
        consumer.take_in(*range(8))
        assert consumer.sizes == [5, 3]
        assert [row[1:] for row in effects.of_state("done")] == [(0, None)] * 8
        assert effects.events == [f"T{number}" for number in range(8)]

        consumer.take_in(*range(4, 12))
        consumer.work()
    assert len(effects.events) == len(set(effects.events)) == 12


def test_what_cannot_be_handled_on_arrival_is_handled_later(bus: InMemoryBus, effects: Effects) -> None:
    """
    The transaction of the arrival is rolled back; then a worker handles the reports, and tries the wrong one again.
    """
    with closing(_OnArrival(bus, effects, [ValueError("of T3")] * 3)) as consumer:
        consumer.take_in(*range(8))
        assert effects.events == []
        assert effects.of_state("waiting") == [(f"T{number}", 0, None) for number in range(8)]

        consumer.work()
    assert len(effects.events) == len(set(effects.events)) == 8


@pytest.mark.parametrize("statement", ["SELECT nothing FROM nowhere", "COMMIT"])
def test_an_error_that_a_function_hides_does_not_lose_its_events(
    bus: InMemoryBus, effects: Effects, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Neither one that makes its transaction unusable, nor an end of the transaction.
    """
    take, hidden = Effects.take, [statement]

    def take_badly(transaction: Connection, event: Event) -> None:
        take(transaction, event)
        if hidden:
            with suppress(DBAPIError):
                transaction.exec_driver_sql(hidden.pop())

    monkeypatch.setattr(effects, "take", take_badly)
    with closing(_OnArrival(bus, effects, [])) as consumer:
        consumer.take_in(*range(3))
        consumer.work()
    assert set(effects.events) == {"T0", "T1", "T2"}
    assert [row[1:] for row in effects.of_state("done")] == [(0, None)] * 3
