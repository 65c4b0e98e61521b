"""
Provisional reports are believed when everything is stored that was on the bus when they were due.

Not here: the rows (tests.inbox.test_provisional), and the proof itself (tests.test_listening).
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from dkist_processing_core import Consumer
from dkist_processing_core.consumer.caught_up import Moment
from dkist_processing_core.consumer.doubts import Doubts
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database, Inbox, Rules
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival

LOST = failed("A", cause="lost", reported_by="engine", provisional=True)
Run = Callable[[], None]


@pytest.fixture
def bus() -> Iterator[InMemoryBus]:
    """
    The bus of this process.
    """
    with InMemoryBus() as bus:
        yield bus


@pytest.fixture
def clock() -> Clock:
    """
    A clock that only the test moves.
    """
    return Clock()


@pytest.fixture
def seen() -> list[Event]:
    """
    The events that the consumer has handled.
    """
    return []


@pytest.fixture
def run(bus: InMemoryBus, effects: Effects, clock: Clock, seen: list[Event]) -> Run:
    """
    A function that runs a process of the consumer until it has nothing to do.
    """
    consumer = Consumer("actor", inbox=effects.url)
    consumer.on("task.failed")(seen.append)

    def run() -> None:
        database = Database.open(effects.url, read_settings())
        ConsumerService(consumer, bus, database, clock=clock).run(until_idle=True)

    return run


@pytest.mark.parametrize(
    ("firm", "handled"),
    [
        pytest.param([], [LOST], id="none"),
        pytest.param([failed("A")], [failed("A")], id="same"),
        pytest.param([finished("A")], [], id="contrary"),
    ],
)
def test_a_consumer_that_starts_again_reads_the_bus_before_it_believes_a_provisional_report(
    run: Run, bus: InMemoryBus, clock: Clock, seen: list[Event], firm: list[Event], handled: list[Event]
) -> None:
    """
    It has not run for longer than the report waits. One that is believed is handled before it is idle.
    """
    run()
    bus.publish(LOST)
    run()
    bus.publish(*firm)
    clock.now += 61
    before = list(seen)

    run()

    assert (before, seen) == ([], handled)


def test_a_consumer_ends_when_it_is_idle_although_a_provisional_report_cannot_be_proved(
    run: Run, bus: InMemoryBus, clock: Clock, seen: list[Event]
) -> None:
    """
    Another receiver of its name may have received the firm one. The report waits for a process that can know.
    """
    run()
    bus.publish(LOST)
    run()
    clock.now += 61
    with closing(bus.subscribe(["task.#"], name="actor")) as other:
        other.receive(0.0)
        run()
    before = list(seen)

    run()

    assert (before, seen) == ([], [LOST])


def test_nothing_is_believed_while_publishers_may_still_look_for_the_bus(effects: Effects, clock: Clock) -> None:
    """
    After a disturbance. A consumer asks the bus only if a provisional report is due.
    """
    with (
        closing(Database.open(effects.url, read_settings())) as database,
        closing(Inbox(database, Rules("actor"), clock=clock)) as inbox,
    ):
        doubts = Doubts(inbox, settling=60.0, also=None)
        inbox.store([arrival(LOST)])
        is_wanted_early = doubts.want_proof()
        clock.now += 60
        found = []
        for monotonic in (159.0, 160.0):
            is_wanted = doubts.want_proof()
            doubts.note_proof(Moment(clock.now, monotonic), 100.0)
            found.append((is_wanted, doubts.is_any, len(inbox.claim(1))))

        assert not is_wanted_early
        assert found == [(True, False, 0), (True, False, 1)]
