"""
Folds of the store beside other transactions, and those of runs whose reports cannot be read.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text, update

from dkist_processing_core.collect import changes, folding, totals
from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.collect.counting import Increment
from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.folding import KEPT_SECONDS, Store
from dkist_processing_core.collect.questions import Questions
from dkist_processing_core.collect.reading import snapshot
from dkist_processing_core.collect.tables import PACKS, TOTALS
from dkist_processing_core.collect.whole_runs import whole_run
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database
from dkist_processing_core.metrics.declarations import LAST_EVENT
from dkist_processing_core.runs import State
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, finished, started
from tests.stored import ended_run
from tests.test_store import empty, fill
from tests.waiting import SECONDS, wait_until

_NEVER_WAITS = text("SET LOCAL lock_timeout = '100ms'")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """
    An empty store in PostgreSQL.
    """
    postgres = request.getfixturevalue("postgres")
    postgres.create_database("folding")
    with closing(Database.open(postgres.url("folding", driver="psycopg"), read_settings())) as opened:
        yield opened.engine
    postgres.drop_database("folding")


@pytest.mark.processes
def test_reports_arrive_while_their_run_is_folded(server: Engine) -> None:
    """
    Their insertion does not wait for the end of the fold.
    """
    store = Store(clock=NOON.timestamp)
    with server.begin() as connection:
        store.add(connection, started("A"))
    with server.begin() as folds, server.begin() as adds:
        folded = store.fold(folds, 10)
        adds.execute(_NEVER_WAITS)
        store.add(adds, finished("A"))
    with server.begin() as connection:
        later = store.fold(connection, 10)
        states = [attempt.state for attempt in Questions(connection).attempts(1)]

    assert (folded, later, states) == (1, 1, [State.FINISHED])


def _waits(engine: Engine) -> bool:
    """Return whether a transaction waits for another one."""
    with engine.connect() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


@pytest.mark.processes
def test_an_old_run_that_is_folded_is_deleted_afterwards(server: Engine) -> None:
    """
    The deletion of another one waits for the revision alone, and the numbers of runs are those that are left.
    """
    store, old = Store(clock=NOON.timestamp), Store(clock=lambda: NOON.timestamp() + 2 * KEPT_SECONDS)
    deleted: list[int] = []

    def prune() -> None:
        with server.begin() as connection:
            deleted.append(old.prune(connection, 10))

    with server.begin() as connection:
        fill(connection, [[started("A", run_id=name)] for name in ("first", "second")])
        store.add(connection, finished("A", run_id="first"))
    thread = threading.Thread(target=prune)
    with server.begin() as connection:
        store.fold(connection, 10)
        thread.start()
        wait_until(lambda: _waits(server))
    thread.join(SECONDS)
    with server.begin() as connection:
        left = Questions(connection).states(Choice())
    prune()
    with server.begin() as connection:
        left_at_last = Questions(connection).states(Choice())

    assert deleted == [1, 1]
    assert (left, left_at_last) == ({State.RUNNING: 1}, {})


@pytest.mark.processes
def test_two_processes_make_the_first_revision(server: Engine) -> None:
    """
    The second one waits for the first, and has the next revision.
    """
    found: list[int] = []

    def advance() -> None:
        with server.begin() as second:
            found.append(changes.next_revisions(second, 2))

    thread = threading.Thread(target=advance)
    with server.begin() as first:
        found.append(changes.next_revisions(first, 3))
        thread.start()
        wait_until(lambda: _waits(server))
    thread.join(SECONDS)
    with server.begin() as connection:
        last = changes.revision(connection)

    assert (found, last) == ([1, 4], 5)


@pytest.mark.processes
def test_one_fold_may_add_to_more_totals_than_a_statement_has_parameters(server: Engine) -> None:
    """
    Those for which there is no room are counted together.
    """
    increments = [Increment(LAST_EVENT, {"name": str(number)}, float(number)) for number in range(66_000)]
    with server.begin() as connection:
        totals.add(connection, increments, 1.0, most_sets=3)
        names = connection.scalars(select(TOTALS.c.attributes)).all()

    assert len(names) == 4


def test_runs_are_folded_in_the_order_in_which_their_reports_have_arrived() -> None:
    """
    A run with a lower number may have later reports.
    """
    store = Store(clock=NOON.timestamp)
    with empty() as engine, engine.begin() as connection:
        fill(connection, [[started("A", run_id="first"), started("A", run_id="second")]])
        store.add(connection, finished("A", run_id="second"))
        store.add(connection, finished("A", run_id="first"))
        states = []
        for _ in range(2):
            store.fold(connection, 1)
            questions = Questions(connection)
            states.append([questions.attempts(number)[0].state for number in (1, 2)])

    assert states == [[State.RUNNING, State.FINISHED], [State.FINISHED, State.FINISHED]]


def test_a_run_that_cannot_be_read_is_left_out_and_its_reports_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """
    The others are derived; the next process, perhaps of a newer release, takes it again.
    """
    store = Store(clock=NOON.timestamp)
    with empty() as engine, engine.begin() as connection:
        fill(connection, [[started("A", run_id="first"), started("A", run_id="second")]])
        pack = connection.scalar(select(PACKS.c.body).where(PACKS.c.run == 1))
        connection.execute(update(PACKS).where(PACKS.c.run == 1).values(body=b"\xff"))
        for name in ("first", "second"):
            store.add(connection, finished("A", run_id=name))
        folds = [store.fold(connection, 10), store.fold(connection, 10)]
        state_then = [Questions(connection).attempts(number)[0].state for number in (1, 2)]
        connection.execute(update(PACKS).where(PACKS.c.run == 1).values(body=pack))
        Store(clock=NOON.timestamp).fold(connection, 10)
        state_at_last = Questions(connection).attempts(1)[0].state

    assert folds == [2, 0]
    assert state_then == [State.RUNNING, State.FINISHED]
    assert state_at_last == State.FINISHED
    (warning,) = [each.getMessage() for each in caplog.records if "not derived" in each.getMessage()]
    assert "first" in warning
    assert "newer release" in warning


def test_a_fold_in_parts_has_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each run alone, or all of them together.
    """
    dumps = []
    for most in (1, 2**20):
        monkeypatch.setattr(folding, "_MOST_BYTES", most)
        store = Store(clock=NOON.timestamp)
        with empty() as engine, engine.begin() as connection:
            for number in range(3):
                store.add(connection, *ended_run(f"run-{number}", begin=NOON - timedelta(hours=number + 1)))
            count = store.fold(connection, 10)
            dumps.append((count, changes.revision(connection), "".join(dump(connection))))

    assert dumps[0] == dumps[1]
    assert dumps[0][:2] == (3, 3)


def test_a_run_that_several_viewers_want_is_read_once() -> None:
    """
    The others wait, and have what was read.
    """
    is_reading, may_read = threading.Event(), threading.Event()
    reads: list[int] = []
    found: list[object] = []
    with closing(Database.open(None, read_settings())) as database:
        with database.engine.begin() as connection:
            fill(connection, [list(ended_run())])
            (stored,) = Questions(connection).runs(Choice())

        def view() -> None:
            with snapshot(database) as connection:

                def read(number: int) -> list[Event]:
                    reads.append(number)
                    is_reading.set()
                    may_read.wait(SECONDS)
                    return Questions(connection).reports(number)

                found.append(whole_run(connection, stored.run, read))

        threads = [threading.Thread(target=view) for _ in range(4)]
        for thread in threads:
            thread.start()
        has_begun = is_reading.wait(SECONDS)
        may_read.set()
        for thread in threads:
            thread.join(SECONDS)

    assert has_begun
    assert reads == [1]
    assert len(found) == 4
    assert all(each is found[0] for each in found)
