"""
A run whose reports this release cannot read: it is stale or missing, and nothing else is.
"""

from contextlib import closing
from datetime import timedelta

from sqlalchemy import Connection, update

from dkist_processing_core.collect.collector import NAME
from dkist_processing_core.collect.listening import Listening, complete_until
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import LISTENING, PACKS
from dkist_processing_core.consumer.caught_up import Moment
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, WorkflowOverdue
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.tables import metadata as inbox_tables
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.watch.reading import FactsReader
from tests.dashboard.one_store import NOW, one_store
from tests.dashboard.serving import running
from tests.facts import NOON, failed, make, progressed, started
from tests.test_store import empty, fill
from tests.waiting import wait_until

BUS = "the bus"
FIRST = NOON.timestamp()
_MESSAGE = "packed reports name the dictionary 255"


def damage(connection: Connection) -> None:
    """Have the packed reports on the first run name a dictionary of a newer release."""
    connection.execute(update(PACKS).where(PACKS.c.run == 1).values(body=b"\xff"))


def begun(run_id: str) -> list[Event]:
    """Return the reports on a run with an attempt that goes on, about which an alarm stands."""
    alarm = make(WorkflowOverdue, run_id=run_id, sequence=2, limit_seconds=9.0, reported_by="watcher")
    return [started("A", run_id=run_id, reported_by="launcher"), alarm]


def test_the_record_of_completeness_waits_for_no_run_that_is_left_out() -> None:
    """As long as this process has not tried it, the run may be readable; reports on others are waited for."""
    store, found = Store(clock=lambda: FIRST), list[float | None]()
    with empty() as engine, engine.begin() as connection:
        inbox_tables.create_all(connection)
        listening = Listening(NAME, BUS, settling=0.0, left_out=store.left_out, monotonic=lambda: 0.0)
        seconds = 0.0

        def prove() -> None:
            nonlocal seconds
            seconds += 1.0
            listening.extend(connection, Moment(FIRST + seconds, seconds), float("-inf"))
            found.append(complete_until(connection, BUS))

        fill(connection, [begun("broken")])
        damage(connection)
        store.add(connection, progressed("A", 1, run_id="broken"))
        prove()
        store.fold(connection, 10)
        prove()
        # More of them than are looked at together.
        store.add(connection, *(progressed("A", number, run_id="broken") for number in range(2, 1200)))
        prove()
        store.add(connection, started("A", run_id="whole"))
        prove()

    assert found == [None, FIRST + 2, FIRST + 3, FIRST + 3]


def test_a_run_of_which_the_rows_are_stale_is_not_judged() -> None:
    """What they do not show may have been reported; new reports that wait for a fold make no run stale."""
    with empty() as engine, engine.begin() as connection:
        for run_id in ("broken", "whole"):
            fill(connection, [begun(run_id)])
        store = Store(clock=lambda: FIRST + 10)
        store.add(connection, progressed("A", 1, run_id="broken"))
        facts = []
        for until in (5.0, 20.0):
            connection.execute(LISTENING.insert().values(bus=BUS, since=FIRST, until=FIRST + until))
            facts.append(FactsReader(BUS, idle_after=60.0).read(connection))

    for of_kind in ([each.attempts for each in facts], [each.runs for each in facts]):
        assert [[each.run.run_id for each in found] for found in of_kind] == [["broken", "whole"], ["whole"]]


def test_a_store_that_is_cleared_leaves_no_run_out() -> None:
    """Another run may have the number of the one that could not be read."""
    store = Store(clock=lambda: FIRST)
    with empty() as engine, engine.begin() as connection:
        fill(connection, [begun("broken")])
        damage(connection)
        store.add(connection, progressed("A", 1, run_id="broken"))
        store.fold(connection, 10)
        store.clear(connection)
        store.add(connection, started("A", run_id="whole"))

        assert (store.fold(connection, 10), store.left_out) == (1, set())


def test_its_pages_state_why_they_cannot_be_shown_and_others_are_whole() -> None:
    """The family of its failure has no stack, and *Now* in the past has no such run."""
    of_run = "workflow=W&version=1&id="
    past = f"/?at={(NOON + timedelta(minutes=1)).isoformat()}".replace("+", "%2B")
    events = [
        failed("A", run_id=run_id, fingerprint="f" * 16, stack="of the failure") for run_id in ("broken", "whole")
    ]
    # The last one is that of the first run.
    events.append(failed("B", run_id="broken", fingerprint="f" * 16, stack="of the last", time=NOW))
    with one_store(events) as store:
        damage(store.connection)
        refused = [store.answer(each) for each in (f"/run?{of_run}broken", "/compare?workflow=W&a=whole&b=broken")]
        then, family, other = map(store.html, (past, f"/failures?family={'f' * 16}", f"/run?{of_run}whole"))

    assert [status for _, status in refused] == [503, 503]
    assert all(_MESSAGE in text for text, _ in refused)
    assert "1 run is missing here, since the reports cannot be read" in then
    assert "Failures of one family" in family
    assert "of the last" not in family
    assert "cannot be read" not in other


def test_a_dashboard_is_ready_and_names_how_many_runs_are_not_kept_up_to_date() -> None:
    """Its other runs are."""
    with running() as site, closing(Database.open(None, read_settings())) as database:
        site.publish(started("A", run_id="broken"))
        with database.transaction() as transaction:
            damage(transaction)
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(progressed("A", 1, run_id="broken"))
        wait_until(lambda: site.get("/health/ready").json == {"bus": "ok", "store": "ok", "unreadableRuns": 1})

        assert site.get("/health/ready").status == 200
