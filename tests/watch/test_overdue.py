"""
What a watcher publishes: each decision once, and only if the store is complete now; and the facts that it reads.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import LISTENING
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, TaskOverdue
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.watch.facts import Facts
from dkist_processing_core.watch.limits import FEWEST
from dkist_processing_core.watch.listening import Listening
from dkist_processing_core.watch.overdue import OverdueReports
from dkist_processing_core.watch.reading import FactsReader
from tests.facts import NOON, finished, started
from tests.watch.test_judging import SIGN, attempt

BUS = "the bus"
_LATE = SIGN + 100.0


def facts(until: float, **changes: Any) -> Facts:
    """
    Return the facts about an attempt that is silent from its last sign on, in a store that is complete until a time.
    """
    return Facts([attempt(**changes)], listening=Listening([(0.0, until)]))


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """
    A publisher on the embedded journal.
    """
    with closing(Publisher.open(read_settings())) as opened:
        yield opened


def published() -> list[TaskOverdue]:
    """
    Return the alarms on the bus.
    """
    return [each for each in replayed(read_settings(), "task.overdue") if isinstance(each, TaskOverdue)]


def test_an_alarm_is_published_once_until_the_store_has_it(publisher: Publisher) -> None:
    """It comes back through the bus later; the event has the time of the judgement, and the watcher as its reporter."""
    reports = OverdueReports(publisher)

    counts = [len(reports.publish(facts(_LATE + second), _LATE + second)) for second in range(4)]

    assert counts == [0, 1, 0, 0]
    (event,) = published()
    assert (event.reported_by, event.time, event.exceeded) == ("watcher", NOON + timedelta(seconds=701), "silence")
    assert (event.sequence, event.limit_seconds) == (2000 * int(SIGN), 90.0)


@pytest.mark.parametrize("until", [[_LATE, _LATE], [_LATE - 30.0, _LATE - 20.0], [_LATE + 30.0, _LATE + 40.0]])
def test_a_store_that_is_not_complete_now_raises_no_alarm(publisher: Publisher, until: list[float]) -> None:
    """It was not complete since the last call, or long ago, or its clock was set back."""
    reports = OverdueReports(publisher)

    assert [reports.publish(facts(each), _LATE) for each in until] == [[], []]


def test_a_report_that_was_not_published_is_published_later(publisher: Publisher) -> None:
    """A publisher that is closed raises an error, which is logged."""
    closed = Publisher.open(read_settings())
    closed.close()
    reports = OverdueReports(closed)
    reports.publish(facts(_LATE), _LATE)

    assert reports.publish(facts(_LATE + 1), _LATE + 1) == []
    reports._publisher = publisher
    assert len(reports.publish(facts(_LATE + 2), _LATE + 2)) == 1


# The facts


@pytest.fixture
def connection() -> Iterator[Connection]:
    """
    An empty store.
    """
    with closing(Database.open(None, read_settings())) as database, database.transaction() as transaction:
        yield transaction


def take_in(connection: Connection, *events: Event) -> None:
    """
    Add reports, and fold them.
    """
    store = Store(clock=lambda: SIGN)
    for event in events:
        store.add(connection, event)
    while store.fold(connection, 100):
        pass


def test_a_limit_is_learnt_from_the_attempts_of_all_versions_and_instances(connection: Connection) -> None:
    """Of the same task in the same workflow, with the durations that launchers and tasks have reported."""
    for number in range(FEWEST):
        name = {"task_name": f"T[{number}]", "run_id": f"r{number}", "workflow_version": str(number % 3)}
        take_in(connection, finished(duration_seconds=100.0 + number, **name))
        take_in(connection, finished(**name | {"task_name": "Other"}, duration_seconds=9.0, reported_by="engine"))
    take_in(connection, *(started(name, run_id="now") for name in ("T", "T[99]", "Other")))
    connection.execute(insert(LISTENING).values(bus=BUS, since=SIGN - 10.0, until=SIGN))

    read = FactsReader(BUS, idle_after=1.0).read(connection)

    assert read.listening.until == SIGN
    assert {each.task_name for each in read.attempts} == {"T", "T[99]", "Other"}
    assert read.learnt == {("W", "T"): 357.0, ("W", "T[99]"): 357.0}


def test_a_learnt_limit_is_kept_for_five_minutes(connection: Connection) -> None:
    """Each needs a query."""
    take_in(connection, *(finished("T", run_id=f"r{number}", duration_seconds=100.0) for number in range(FEWEST)))
    take_in(connection, started("T", run_id="now"))
    reader, limits = FactsReader(BUS, idle_after=1.0), []
    for until in (SIGN, SIGN + 299.0, SIGN + 300.0):
        connection.execute(insert(LISTENING).values(bus=BUS, since=until, until=until))
        limits.append(reader.read(connection).learnt["W", "T"])
        take_in(connection, *(finished("T", run_id=f"{until}{each}", duration_seconds=200.0) for each in range(9)))

    assert limits == [300.0, 300.0, 600.0]


def test_a_withdrawal_needs_no_listening(publisher: Publisher) -> None:
    """The sign that withdraws the alarm is there."""
    reports = OverdueReports(publisher)
    reports.publish(facts(_LATE), _LATE)
    reports.publish(facts(_LATE + 1), _LATE + 1)
    known = tuple(published())

    later = replace(attempt(alarms=known), last_sign_at=_LATE + 2, last_received_at=_LATE + 2)
    (withdrawal,) = reports.publish(Facts([later]), _LATE + 3)

    assert withdrawal.sequence == known[0].sequence + 1
