"""
What the store knows for a watcher: signs of life, limits, alarms, durations and missed starts, each by an index.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, select

from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.listening import Listening, complete_until, spans
from dkist_processing_core.collect.questions.families import first_failure
from dkist_processing_core.collect.questions.watched import (
    WatchedAttempt,
    WatchedRun,
    durations,
    missed_starts,
    watched_attempts,
    watched_runs,
)
from dkist_processing_core.collect.store import KEPT_SECONDS, Store
from dkist_processing_core.collect.tables import ATTEMPTS, IS_OPEN
from dkist_processing_core.consumer.caught_up import Moment
from dkist_processing_core.events import (
    Event,
    TaskFinished,
    TaskOverdue,
    WorkflowFailed,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.inbox.tables import metadata as inbox_tables
from tests.facts import NOON, failed, finished, make, sampled, started
from tests.test_store import empty, rolled_back

# Its tests on PostgreSQL have pytest.mark.once.
from tests.test_store import engine as engine  # noqa: PLC0414 - a fixture

_Arrival = tuple[float, Event]
FIRST = NOON.timestamp()


def at(seconds: float) -> datetime:
    """Return a time after noon."""
    return NOON + timedelta(seconds=seconds)


def fill(connection: Connection, arrivals: Sequence[_Arrival], *, at_once: bool = False) -> None:
    """Add reports that are received so many seconds after noon; each is folded before the next one, or all at once."""
    for seconds, report in arrivals:
        store = Store(clock=at(seconds).timestamp)
        store.add(connection, report)
        while not at_once and store.fold(connection, 10):
            pass
    while Store(clock=at(arrivals[-1][0]).timestamp).fold(connection, 10):
        pass


def launched(seconds: float, **facts: Any) -> Event:
    """Return the start of task A, reported by its launcher."""
    return started("A", **{"time": at(seconds), "reported_by": "launcher"} | facts)


def alarm(sequence: int, exceeded: str = "silence", **facts: Any) -> Event:
    """Return an alarm about the first attempt of task A."""
    of_alarm: dict[str, Any] = {"sequence": sequence, "exceeded": exceeded, "limit_seconds": 90.0}
    return make(TaskOverdue, "A", **{"reported_by": "watcher", "time": at(500)} | of_alarm | facts)


def run_alarm(sequence: int, **facts: Any) -> Event:
    """Return an alarm about the run."""
    of_alarm: dict[str, Any] = {"sequence": sequence, "limit_seconds": 3600.0, "reported_by": "watcher"}
    return make(WorkflowOverdue, **of_alarm | facts)


def attempts_of(arrivals: Sequence[_Arrival], *, ended_since: float = 0.0) -> list[WatchedAttempt]:
    """Return the watched attempts of a store with these reports."""
    with empty() as store, store.begin() as connection:
        fill(connection, arrivals)
        return watched_attempts(connection, ended_since=ended_since)


def runs_of(arrivals: Sequence[_Arrival], *, silent_since: float = 10_000.0) -> list[WatchedRun]:
    """Return the watched runs of a store with these reports."""
    with empty() as store, store.begin() as connection:
        fill(connection, arrivals)
        return watched_runs(connection, silent_since=FIRST + silent_since, ended_since=0.0)


def test_an_open_attempt_has_its_signs_of_life_and_its_limits() -> None:
    """Its host's clock is 10 s behind, and the first sample came late."""
    (found,) = attempts_of(
        [
            (12.0, launched(0, sample_seconds=30.0, overdue_after_seconds=3600.0)),
            (45.0, sampled("A", 0, time=at(30), interval_seconds=30.0)),
            (70.0, sampled("A", 1, time=at(60), interval_seconds=60.0)),
        ]
    )

    assert (found.is_open, found.started_at) == (True, FIRST)
    assert (found.last_sign_at, found.last_received_at, found.clock_difference) == (FIRST + 60, FIRST + 70, 10.0)
    assert (found.sample_interval, found.overdue_after_seconds, found.alarms) == (60.0, 3600.0, ())


def test_the_first_sample_is_expected_as_the_start_announces_it() -> None:
    """A launcher that announces none has no interval."""
    assert attempts_of([(0.0, launched(0, sample_seconds=30.0))])[0].sample_interval == 30.0
    assert attempts_of([(0.0, launched(0))])[0].sample_interval is None


def test_reports_of_engine_and_watcher_are_no_signs_of_life() -> None:
    """They come from other hosts, whether the attempt is alive or not."""
    of_engine = failed("A", reported_by="engine", provisional=True, time=at(40), attempt=2)

    found = attempts_of([(1.0, launched(0)), (50.0, alarm(8)), (60.0, of_engine)], ended_since=0.0)

    assert [(each.number, each.last_received_at) for each in found] == [(1, FIRST + 1)]


@given(lags=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 60)), min_size=1, max_size=8), data=st.data())
def test_signs_that_were_replaced_still_count(lags: list[tuple[int, float]], data: st.DataObject) -> None:
    """In any order and repeated, folded one by one or at once: the last sample, and the smallest difference."""
    arrivals = [(30.0 * number + lag, sampled("A", number, time=at(30.0 * number))) for number, lag in lags]
    arrivals.sort(key=lambda each: each[0])

    with empty() as store, store.begin() as connection:
        fill(connection, arrivals, at_once=data.draw(st.booleans()))
        (found,) = watched_attempts(connection, ended_since=0.0)

    last = max(number for number, _ in lags)
    assert found.last_sign_at == FIRST + 30.0 * last
    assert found.last_received_at == pytest.approx(
        FIRST + 30.0 * last + min(lag for number, lag in lags if number == last), abs=1e-3
    )
    assert found.clock_difference == pytest.approx(min(lag for _, lag in lags), abs=1e-3)


def test_a_clock_that_is_set_back_makes_no_attempt_silent() -> None:
    """The samples go on, though the times that they state are earlier than before."""
    (found,) = attempts_of(
        [(0.0, launched(0)), (600.0, sampled("A", 0, time=at(600))), (630.0, sampled("A", 1, time=at(330)))]
    )

    assert (found.last_received_at, found.last_sign_at) == (FIRST + 630, FIRST + 600)


def test_alarms_are_known_until_the_attempt_has_long_ended() -> None:
    """One of each kind, whether it stands or is withdrawn; so an end can withdraw it."""
    begin, alarms = (
        (0.0, launched(0)),
        [(95.0, alarm(8)), (96.0, alarm(9, withdrawn=True)), (97.0, alarm(4, "duration"))],
    )
    end = (99.0, finished("A", time=at(98), duration_seconds=98.0))

    (open_one,), (ended,) = attempts_of([begin, *alarms]), attempts_of([begin, *alarms, end])

    assert [(each.sequence, each.exceeded, each.withdrawn) for each in open_one.alarms] == [
        (4, "duration", None),
        (9, "silence", True),
    ]
    assert (ended.is_open, ended.duration_seconds, ended.alarms) == (False, 98.0, open_one.alarms)
    assert attempts_of([begin, *alarms, end], ended_since=FIRST + 100) == []
    assert attempts_of([begin, *alarms, end, (100.0, alarm(5, "duration", withdrawn=True))]) == []


def test_an_attempt_of_a_run_that_has_ended_is_not_open() -> None:
    """An engine that does not name the task ends the run all the same."""
    end = make(WorkflowFailed, time=at(2), ended_at=at(2), tasks={})
    arrivals = [(0.0, launched(0)), (1.0, alarm(8)), (2.0, end)]

    assert [(each.is_open, len(each.alarms)) for each in attempts_of(arrivals)] == [(False, 1)]


def test_a_run_without_an_attempt_is_idle_as_long_as_it_is_silent() -> None:
    """Reports of a watcher do not count."""
    begin = (0.0, make(WorkflowStarted, time=NOON, started_at=NOON, reported_by="engine"))
    done = (60.0, make(TaskFinished, "A", time=at(60)))

    (found,) = runs_of([begin, done, (4000.0, run_alarm(8))])
    assert (found.is_idle, found.last_received_at, found.last_sign_at) == (True, FIRST + 60, FIRST + 60)
    assert found.alarm == run_alarm(8)
    assert runs_of([begin, done], silent_since=60.0) == []
    assert runs_of([begin, (70.0, launched(70))]) == []
    (alarmed,) = runs_of([begin, (4000.0, run_alarm(8)), (4001.0, launched(4001))], silent_since=0.0)
    assert (alarmed.is_idle, alarmed.last_received_at) == (False, FIRST + 4001)


def test_durations_are_those_of_the_latest_successful_attempts_of_a_task(engine: Engine) -> None:
    """Of any version and of any instance of a mapped task, but of no other workflow, as a launcher measured them."""
    with rolled_back(engine) as connection:
        ends = [
            finished(
                f"A[{number}]",
                run_id=f"r{number}",
                workflow_version=str(number % 3),
                duration_seconds=float(number),
                time=at(number),
            )
            for number in range(8)
        ]
        others = [
            finished("A", run_id="o", workflow_name="V", duration_seconds=99.0),
            finished("B", run_id="o", duration_seconds=99.0),
            failed("A", run_id="o", duration_seconds=99.0),
            finished("A", run_id="p", duration_seconds=99.0, reported_by="engine", provisional=True),
        ]
        fill(connection, [(20.0, each) for each in (*ends, *others)], at_once=True)

        assert durations(connection, "W", "A", limit=5) == [7.0, 6.0, 5.0, 4.0, 3.0]
        assert durations(connection, "W", "A[2]", limit=1) == [7.0]
        assert durations(connection, "W", "C") == []


def missed(hours: int, **facts: Any) -> Event:
    """Return the report on a start that was missed."""
    expected: dict[str, Any] = {
        "run_id": "",
        "workflow_version": "",
        "expected_at": at(3600 * hours),
        "grace_seconds": 1800.0,
    }
    return make(WorkflowOverdue, **expected | {"reported_by": "watcher", "time": at(3600 * hours + 1800)} | facts)


def test_missed_starts_are_kept_once_beside_the_runs(engine: Engine) -> None:
    """Two watchers report one start; it is no run, and the dump of a store that is built again has it as well."""
    reports = [missed(0), missed(1), missed(0, time=at(1801))]
    with rolled_back(engine) as connection:
        fill(connection, [(2000.0, each) for each in reports])
        found, lines = missed_starts(connection, NOON), list(dump(connection))
        assert missed_starts(connection, at(1)) == [missed(1)]
        Store(clock=lambda: FIRST + 2001 + KEPT_SECONDS).prune(connection, 10)
        assert missed_starts(connection, NOON) == []
    with rolled_back(engine) as connection:
        fill(connection, [(9000.0, each) for each in reversed(reports)])
        assert list(dump(connection)) == lines

    assert [each.expected_at for each in found] == [NOON, at(3600)]
    assert '"runs":[' in "".join(lines)


@contextmanager
def plans(engine: Engine) -> Iterator[dict[str, str]]:
    """Yield the plans of the statements that are executed meanwhile, by their text."""
    found: dict[str, str] = {}
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "

    def listen(_1: Connection, cursor: Any, statement: str, parameters: Any, _2: Any, _3: bool) -> None:  # noqa: FBT001
        if statement.startswith("SELECT"):
            own = cursor.connection.cursor()
            if engine.dialect.name == "postgresql":
                # A table with few rows is read as a whole, even if there is an index.
                own.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            own.execute(explain + statement, parameters)
            found[statement] = "\n".join(str(row[-1]) for row in own.fetchall())

    event.listen(engine, "before_cursor_execute", listen)
    yield found
    event.remove(engine, "before_cursor_execute", listen)


def test_no_question_of_a_watcher_reads_a_whole_table(engine: Engine) -> None:
    """They are asked every second, and the store has the runs of 400 days."""
    failure = failed("A", run_id="f", fingerprint="f" * 16)
    with rolled_back(engine) as connection:
        fill(connection, [(0.0, launched(0)), (1.0, missed(0)), (2.0, alarm(2)), (3.0, run_alarm(2)), (4.0, failure)])
        with plans(engine) as found:
            watched_attempts(connection, ended_since=0.0)
            watched_runs(connection, silent_since=0.0, ended_since=0.0)
            durations(connection, "W", "A")
            missed_starts(connection, datetime.now(UTC))
            first_failure(connection, "f" * 16)

    # The names of the wanted families are a list in the statement.
    whole = re.compile(r"Seq Scan|SCAN (?!wanted$)\w+$|TEMP B-TREE", flags=re.MULTILINE)
    assert len(found) == 7
    assert {text: plan for text, plan in found.items() if whole.search(plan)} == {}
    # Alarms that were never withdrawn accumulate: the database leaves those of runs that ended long ago out.
    alarmed = [text for text in found if re.search(r"WHERE (is_alarmed|has_alarm)", text)]
    assert [bool(re.search(r"dkist_core_run.received_at >= ", text)) for text in alarmed] == [True, True]


def test_no_look_of_a_collector_reads_all_spans(engine: Engine) -> None:
    """The watcher looks for the latest spans each second."""
    with rolled_back(engine) as connection:
        inbox_tables.create_all(connection)
        fill(connection, [(0.0, launched(0))])
        with plans(engine) as found:
            Listening("c", "b", settling=0.0, monotonic=lambda: 0.0).extend(connection, Moment(FIRST, 1.0), -math.inf)
            complete_until(connection, "b")
            spans(connection, "b", since=FIRST)

    for words, index in (
        ("dkist_core_listening.until >=", "dkist_core_listening_until"),
        ("ORDER BY dkist_core_listening.until DESC", "dkist_core_listening_until"),
    ):
        (plan,) = (plan for text, plan in found.items() if words in text)
        assert index in plan
        assert "TEMP B-TREE" not in plan


def test_attempts_without_an_end_are_open_until_their_run_ends(engine: Engine) -> None:
    """Otherwise each look would read all those of 400 days that an engine did not name."""
    end = make(WorkflowFailed, time=at(2), ended_at=at(2), tasks={})
    with rolled_back(engine) as connection:
        counts = []
        for arrivals in ([(0.0, launched(0))], [(2.0, end)]):
            fill(connection, arrivals)
            counts.append(connection.scalar(select(func.count()).select_from(ATTEMPTS).where(IS_OPEN)))

    assert counts == [1, 0]


@pytest.mark.parametrize("is_alarmed", [True, False])
def test_the_rows_of_a_run_are_the_same_for_any_order_of_its_alarms(is_alarmed: bool) -> None:  # noqa: FBT001
    """An alarm that arrives after its withdrawal does not stand."""
    arrivals = [alarm(8), alarm(9, withdrawn=True), *([alarm(20)] if is_alarmed else [])]

    found = [
        attempts_of([(0.0, launched(0)), *((100.0, each) for each in order)])[0].alarms
        for order in (arrivals, arrivals[::-1])
    ]

    assert found[0] == found[1]
    assert [each.sequence for each in found[0]] == [20 if is_alarmed else 9]
