"""
A handler that takes all events of a transaction at once, and what becomes of the others if it fails for one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from dkist_processing_core import Consumer
from dkist_processing_core.events import Event
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
