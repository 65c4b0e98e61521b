"""
When a store was complete: a span ends with anything that may have kept reports from it.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from dkist_processing_core.bus import open_bus
from dkist_processing_core.collect import collector as collector_module
from dkist_processing_core.collect.collector import NAME, Collector
from dkist_processing_core.collect.listening import LONGEST_GAP_SECONDS, Listening, complete_until, spans
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import ATTEMPTS
from dkist_processing_core.consumer.caught_up import SETTLING_SECONDS, CaughtUp, Moment, OnCaughtUp
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.inbox.tables import inbox
from dkist_processing_core.inbox.tables import metadata as inbox_tables
from dkist_processing_core.settings.reading import read_settings
from tests.facts import started
from tests.services.broker import Broker
from tests.test_store import empty
from tests.test_store_commands import publish, service
from tests.waiting import wait_until

BEGIN = 1_000_000.0
BUS = "the bus"


@dataclass
class Machine:
    """The clocks of a machine, and the last disturbance of its bus."""

    connection: Connection
    listening: Listening
    time: float = BEGIN
    monotonic: float = 0.0
    disturbed_at: float = float("-inf")

    def passes(self, seconds: float) -> None:
        """Let time pass without a proof."""
        self.time += seconds
        self.monotonic += seconds

    def proves(self, seconds: int) -> None:
        """Let time pass with a proof each second."""
        for _ in range(seconds):
            self.passes(1.0)
            self.listening.extend(self.connection, Moment(self.time, self.monotonic), self.disturbed_at)

    @property
    def spans(self) -> list[tuple[float, float]]:
        """The spans, as seconds after the beginning."""
        return [(since - BEGIN, until - BEGIN) for since, until in spans(self.connection, BUS)]


@contextmanager
def machine_with(settling: float) -> Iterator[Machine]:
    """Run a machine with an empty store in memory."""
    with empty() as store:
        inbox_tables.create_all(store)
        with store.begin() as connection:
            yield Machine(connection, Listening(NAME, BUS, settling=settling, monotonic=lambda: 0.0))


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with a broker, after whose disturbances 60 s pass."""
    with machine_with(SETTLING_SECONDS) as made:
        yield made


def test_a_span_begins_when_publishers_have_found_the_bus_and_lasts(machine: Machine) -> None:
    """The broker may have been down before this process began."""
    machine.proves(100)

    assert machine.spans == [(60.0, 100.0)]


def test_a_stalled_process_ends_the_span(machine: Machine) -> None:
    """SIGSTOP, a fold or a database that takes long: the first proof afterwards begins another one."""
    machine.proves(100)
    machine.passes(LONGEST_GAP_SECONDS)
    machine.proves(10)
    machine.passes(2.0)
    machine.proves(10)

    assert machine.spans == [(60.0, 100.0), (106.0, 127.0)]


def test_a_suspended_machine_ends_the_span_however_short(machine: Machine) -> None:
    """The monotonic clock stands still meanwhile."""
    machine.proves(100)
    machine.time += 2.0
    machine.proves(10)

    assert machine.spans == [(60.0, 100.0), (103.0, 112.0)]


@pytest.mark.parametrize(
    ("step", "before"), [(3600.0, [(60.0, 100.0)]), (-30.0, [(60.0, 71.0)]), (-41.0, []), (-3600.0, [])]
)
def test_a_clock_that_is_set_ends_the_span(machine: Machine, step: float, before: list[tuple[float, float]]) -> None:
    """Times before and after have no common measure; what the clock shows again is no longer in the span before."""
    machine.proves(100)
    machine.time += step
    machine.proves(10)

    assert machine.spans == [*before, (101.0 + step, 110.0 + step)]


def test_an_outage_after_a_clock_was_set_back_is_in_no_span(machine: Machine) -> None:
    """The clock shows the time of the first span again while nothing is received."""
    machine.proves(3660)
    machine.time -= 3600.0
    machine.proves(10)
    machine.passes(1800.0)
    machine.proves(10)

    assert machine.spans == [(60.0, 61.0), (61.0, 70.0), (1871.0, 1880.0)]


def test_a_look_at_the_latest_spans_reads_these_alone(machine: Machine) -> None:
    """A look each second is as cheap after a week with many disturbances."""
    assert complete_until(machine.connection, BUS) is None
    machine.proves(100)
    machine.passes(10.0)
    machine.proves(10)
    machine.passes(10.0)
    machine.proves(10)

    assert complete_until(machine.connection, BUS) == BEGIN + 140.0
    assert [since - BEGIN for since, _ in spans(machine.connection, BUS, since=BEGIN + 120.0)] == [111.0, 131.0]
    assert [since - BEGIN for since, _ in spans(machine.connection, BUS, since=BEGIN + 120.5)] == [131.0]
    assert spans(machine.connection, BUS, since=BEGIN + 141.0) == []


def test_a_disturbance_of_the_bus_ends_the_span_and_another_begins_a_minute_later(machine: Machine) -> None:
    """Publishers look for a broker again within 30 s, also if the connection of this process came back at once."""
    machine.proves(100)
    machine.disturbed_at = machine.monotonic + 0.5
    machine.proves(100)

    assert machine.spans == [(60.0, 100.0), (161.0, 200.0)]


def test_reports_that_are_not_handled_or_folded_hold_the_span_back_and_do_not_end_it(machine: Machine) -> None:
    """What is judged at the end of a span is judged by the rows; proofs wait until these have everything."""
    machine.proves(100)
    row = {"consumer": NAME, "key": "k", "provisional": False, "is_end": False, "is_final": False, "received_at": 0.0}
    machine.connection.execute(inbox.insert().values(**row, state="waiting", due_at=BEGIN * 2))
    machine.proves(10)
    waiting = machine.spans
    Store().add(machine.connection, started("A"))
    machine.connection.execute(inbox.delete())
    machine.proves(10)
    unfolded = machine.spans
    Store().fold(machine.connection, 10)
    machine.proves(1)

    assert waiting == unfolded == [(60.0, 100.0)]
    assert machine.spans == [(60.0, 121.0)]


def test_another_process_continues_the_span_of_one_that_has_just_ended(machine: Machine) -> None:
    """After a longer time, or if the new process was disturbed itself, it begins anew."""
    machine.proves(100)
    machine.listening = Listening(NAME, BUS, monotonic=lambda: machine.monotonic)
    machine.passes(3.0)
    machine.proves(10)
    machine.listening = Listening(NAME, BUS, monotonic=lambda: machine.monotonic)
    machine.disturbed_at = machine.monotonic + 0.5
    machine.proves(70)

    assert machine.spans == [(60.0, 113.0), (174.0, 183.0)]


def test_a_file_needs_no_time_to_settle() -> None:
    """Publishers write into it as long as they run."""
    with machine_with(0.0) as machine:
        machine.proves(3)
        assert machine.spans == [(1.0, 3.0)]


@given(
    steps=st.lists(st.sampled_from(["prove", "pass", "suspend", "set", "disturb", "restart"]), min_size=1, max_size=60)
)
def test_no_span_contains_a_moment_of_which_something_kept_reports_away(steps: list[str]) -> None:
    """Whatever happens, in any order: the spans are those between two proofs that follow each other undisturbed."""
    with machine_with(2.0) as machine:
        true: list[tuple[float, float]] = []
        began_at, disturbed_at = 0.0, float("-inf")
        last: Moment | None = None
        for step in steps:
            if step == "prove":
                machine.proves(1)
                last = true_last(true, last, machine, began_at, disturbed_at)
            elif step == "pass":
                machine.passes(3.0)
            elif step == "suspend":
                machine.time += 4.0
                last = None
            elif step == "set":
                machine.time -= 90.0
                last = None
            elif step == "disturb":
                machine.passes(0.5)
                machine.disturbed_at = disturbed_at = machine.monotonic
                last = None
            else:
                machine.listening = Listening(NAME, BUS, settling=2.0, monotonic=lambda: machine.monotonic)
                began_at = machine.monotonic
        found = spans(machine.connection, BUS)
    # What was suspended or set before a restart is not known after it.
    if "restart" not in steps:
        assert found == true


def true_last(
    true: list[tuple[float, float]], last: Moment | None, machine: Machine, began_at: float, disturbed_at: float
) -> Moment | None:
    """Add a proof to the spans as they should be, and return it if it is in one."""
    now = Moment(machine.time, machine.monotonic)
    if last is not None and now.monotonic - last.monotonic <= LONGEST_GAP_SECONDS:
        true[-1] = (true[-1][0], now.time)
        return now
    if now.monotonic >= max(began_at, disturbed_at) + 2.0:
        true[:] = [(since, min(until, now.time)) for since, until in true if since < now.time]
        true.append((now.time, now.time))
        return now
    return None


# Proofs


class Answering:
    """A receiver of which a test sets what its bus answers."""

    def __init__(self) -> None:
        """Begin with an empty queue."""
        self.is_connected = True
        self.connections = 1
        self.waiting: int | None = 0

    def backlog(self) -> int | None:
        """Return how many messages wait."""
        return self.waiting


class Proofs:
    """The proofs so far; each look at a clock takes a second."""

    def __init__(self, *, is_remote: bool = True) -> None:
        """Begin without a proof."""
        self.found: list[tuple[float, float]] = []
        seconds = itertools.count()
        self.receiver = Answering()
        self._caught_up = CaughtUp(
            lambda at, disturbed_at: self.found.append((at.monotonic, disturbed_at)),
            is_remote=is_remote,
            clock=lambda: float(next(seconds)),
            monotonic=lambda: float(next(seconds)),
        )

    def stored(self, batches: int, *, is_drained: bool = True) -> None:
        """Store some batches, after each of which no further message had arrived, or one had."""
        for _ in range(batches):
            self._caught_up.note_stored(cast("Any", self.receiver), is_drained=is_drained)


def test_what_the_bus_has_sent_before_its_answer_is_stored_first() -> None:
    """A batch is taken twice: a message may be on its way between two threads when the first one is."""
    proofs = Proofs()
    proofs.stored(2)
    before = list(proofs.found)
    proofs.stored(1, is_drained=False)
    proofs.stored(1)

    assert before == []
    assert [at for at, _ in proofs.found] == [2.0]


@pytest.mark.parametrize("waiting", [3, None])
def test_a_backlog_and_a_bus_that_does_not_answer_prove_nothing(waiting: int | None) -> None:
    """A broker that is stopped keeps its connections, and sends nothing."""
    proofs = Proofs()
    proofs.receiver.waiting = waiting
    proofs.stored(20)

    assert proofs.found == []


def test_messages_that_another_reader_may_have_are_unknown(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that connect at the same time may both find the queue free; what one has received is not ready."""
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    bus = open_bus(read_settings())
    with bus.subscribe(("task.failed",), name="read-twice", in_batches=True) as receiver, broker.connect() as other:
        wait_until(lambda: receiver.backlog() == 0)
        channel = other.channel()
        channel.basic_consume("read-twice", lambda *_: None)
        beside = receiver.backlog()
        channel.close()
        wait_until(lambda: receiver.backlog() == 0)

    assert beside is None


def test_a_connection_that_was_lost_in_between_is_a_disturbance() -> None:
    """It may be back before the next look, but publishers may have lost theirs as well."""
    proofs = Proofs()
    proofs.stored(3)
    proofs.receiver.connections += 1
    proofs.stored(6)

    (_, undisturbed), *_, (at, disturbed_at) = proofs.found
    assert undisturbed == float("-inf")
    assert 0 < disturbed_at < at


def test_a_file_is_read_to_its_end_and_need_not_be_empty_when_asked() -> None:
    """Other processes write into it all the time; only a process that does not read it knows nothing."""
    busy, passive = Proofs(is_remote=False), Proofs(is_remote=False)
    busy.receiver.waiting, passive.receiver.waiting = 5, None
    busy.stored(3)
    passive.stored(3)

    assert (len(busy.found), len(passive.found)) == (1, 0)


# Real processes


def spans_of(collector: Collector) -> list[tuple[float, float]]:
    """Return when the store of a collector was complete."""
    with collector.connection() as connection:
        return spans(connection, archive_of(collector.bus))


def test_a_collector_that_is_stopped_has_not_listened() -> None:
    """SIGSTOP, as of a debugger: what was published meanwhile is stored before the next span begins."""
    with service() as process, Collector(read_settings()) as collector:
        wait_until(lambda: any(until - since > 1.0 for since, until in spans_of(collector)))
        os.kill(process.pid, signal.SIGSTOP)
        stopped_at = time.time()
        publish(started("A"))
        # The stall has to be longer than the gap that a busy machine may have.
        time.sleep(LONGEST_GAP_SECONDS + 1.0)
        resumed_at = time.time()
        os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: len(spans_of(collector)) > 1)
        with collector.connection() as connection:
            stored = connection.scalars(select(ATTEMPTS.c.task_name)).all()
        (_, until), (since, _) = spans_of(collector)[:2]

    assert until <= stopped_at + 1.0
    assert since >= resumed_at
    assert stored == ["A"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of this process, in each kind of database."""
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        postgres.create_database("listening")
        monkeypatch.setenv("DKIST_CORE_INBOX", postgres.url("listening", driver="psycopg"))


@pytest.mark.usefixtures("store")
def test_of_two_collectors_of_a_store_one_proves_until_it_ends(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the one that receives can have messages that are not stored, and only it extends the spans."""
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(collector_module, "SETTLING_SECONDS", 0.0)
    proofs: list[int] = []
    with ExitStack() as stack:
        consumers = []
        for number in range(2):
            collector = stack.enter_context(Collector(read_settings()))
            member = stack.enter_context(collector.service())
            extend = member.consumer.on_caught_up
            assert extend is not None

            def note(at: Moment, disturbed_at: float, number: int = number, extend: OnCaughtUp = extend) -> None:
                extend(at, disturbed_at)
                proofs.append(number)

            member.consumer.on_caught_up = note
            consumers.append(member.consumer)
            thread = threading.Thread(target=member.consumer.run, kwargs={"since": member.since})
            stack.callback(thread.join)
            stack.callback(member.consumer.stop)
            thread.start()
        wait_until(lambda: len(proofs) >= 5)
        first = proofs[0]
        consumers[first].stop()
        wait_until(lambda: proofs[-1] != first)
        wait_until(lambda: len(set(proofs[-3:])) == 1)
        found = spans_of(collector)

    assert proofs == sorted(proofs, key=lambda number: number != first)
    assert len(found) <= 2


def test_a_broker_that_is_stopped_was_not_listened_to(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay, and nothing arrives, as with nothing to report."""
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(collector_module, "SETTLING_SECONDS", 0.0)
    with Collector(read_settings()) as collector, collector.service() as member:
        thread = threading.Thread(target=member.consumer.run, kwargs={"since": member.since})
        thread.start()
        try:
            wait_until(lambda: any(until - since > 1.0 for since, until in spans_of(collector)))
            broker.node.pause()
            stopped_at = time.time()
            # As above: the outage has to be longer than a gap within a span.
            time.sleep(LONGEST_GAP_SECONDS + 1.0)
            resumed_at = time.time()
            broker.node.resume()
            publish(started("A"))
            wait_until(lambda: len(spans_of(collector)) > 1)
            (_, until), (since, _) = spans_of(collector)[:2]
        finally:
            broker.node.resume()
            member.consumer.stop()
            thread.join()

    assert until <= stopped_at + 1.0
    assert since >= resumed_at - 1.0
