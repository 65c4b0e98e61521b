"""
Folds of the store beside other transactions, and those of runs whose reports cannot be read.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, delete, event, func, select, text, update
from sqlalchemy.exc import OperationalError

from dkist_processing_core.collect import collector as collector_module
from dkist_processing_core.collect import revisions
from dkist_processing_core.collect import store as store_module
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.folding import totals
from dkist_processing_core.collect.folding.counting import Increment
from dkist_processing_core.collect.folding.folded import Before, FoldedRun, folded_run
from dkist_processing_core.collect.folding.rows import rows_of
from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.questions.whole_runs import Reports, read_reports, whole_run
from dkist_processing_core.collect.reading import snapshot
from dkist_processing_core.collect.reports.stored import Merging, digests_on
from dkist_processing_core.collect.store import KEPT_SECONDS, Derived, Store
from dkist_processing_core.collect.tables import PACKS, REPORTS, RUNS, TOTALS
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database
from dkist_processing_core.metrics.declarations import LAST_EVENT
from dkist_processing_core.runs import State, run_view
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, progressed, started
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
            found.append(revisions.next_revisions(second, 2))

    thread = threading.Thread(target=advance)
    with server.begin() as first:
        found.append(revisions.next_revisions(first, 3))
        thread.start()
        wait_until(lambda: _waits(server))
    thread.join(SECONDS)
    with server.begin() as connection:
        last = revisions.revision(connection)

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


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_fold_leaves_the_collection_of_cycles_as_it_was(*, is_enabled: bool) -> None:
    """
    It has none meanwhile, also if it fails.
    """
    store = Store(clock=NOON.timestamp)
    meanwhile: list[bool] = []
    (gc.enable if is_enabled else gc.disable)()
    try:
        with empty() as engine, engine.begin() as connection:

            @event.listens_for(connection, "before_cursor_execute")
            def note(_: object, __: object, statement: str, *___: object) -> None:
                if statement.startswith("INSERT INTO dkist_core_attempt "):
                    meanwhile.append(gc.isenabled())

            store.add(connection, started("A"))
            store.fold(connection, 10)
            after_success = gc.isenabled()
            store.add(connection, finished("A"))
            connection.exec_driver_sql("ALTER TABLE dkist_core_attempt RENAME TO away")
            with pytest.raises(OperationalError):
                store.fold(connection, 10)
            after_failure = gc.isenabled()
    finally:
        gc.enable()

    assert meanwhile == [False]
    assert (after_success, after_failure) == (is_enabled, is_enabled)


def test_all_rows_of_a_table_have_their_columns_in_one_order() -> None:
    """
    They are inserted by the order of the first one.
    """
    reports = [started("A"), finished("A"), started("B"), failed("B"), started("C")]

    rows = rows_of(run_view(reports), reports, NOON)

    assert {attempt["state"] for attempt in rows.attempts} == {"finished", "failed", "running"}
    assert len({tuple(attempt) for attempt in rows.attempts}) == 1
    assert len({tuple(task) for task in rows.tasks}) == 1


def _backlog() -> Iterator[tuple[float, list[Event]]]:
    """
    Yield the batches of a backlog, one a second: twelve runs, of which each arrives within about four seconds.
    """
    reports = [
        (number + place / 4, report)
        for number in range(12)
        for place, report in enumerate(ended_run(f"run-{number}", begin=NOON - timedelta(hours=1)))
    ]
    for second in range(30):
        yield NOON.timestamp() + second, [report for at, report in reports if second <= at < second + 1]


def _dumped(connection: Connection) -> str:
    return "".join(line for line in dump(connection) if "revision" not in line)


def fold_after_a_wait(store: Store, connection: Connection, limit: int = 10) -> int:
    """
    Derive and write the rows of runs with a report that has waited for ten seconds, and return how many were tried.
    """
    derived = store.derive(connection, limit, shortest_wait=10.0)
    store.write(connection, derived)
    return derived.tried


@pytest.mark.parametrize("processes", [1, 2])
def test_each_run_of_a_backlog_is_derived_once(processes: int) -> None:
    """
    It is the same with two processes in turn, and the store has what it has if each report is folded at once.
    """
    now, found = NOON.timestamp(), list[int]()
    stores = [Store(clock=lambda: now) for _ in range(processes)]
    with empty() as one, one.begin() as connection, empty() as other, other.begin() as at_once:
        for number, (now, batch) in enumerate(_backlog()):  # noqa: B007 - the clock of the stores returns it
            for each in (connection, at_once):
                stores[number % processes].add(each, *batch)
            fold_after_a_wait(stores[number % processes], connection, 100)
            stores[number % processes].fold(at_once, 100)
            found.append(revisions.revision(connection))
        left = stores[0].fold(connection, 100)
        derivations, often = revisions.revision(connection), revisions.revision(at_once)
        are_equal = _dumped(connection) == _dumped(at_once)

    assert found[9] == 0
    assert (derivations, left) == (12, 0)
    assert often > 24
    assert are_equal


def test_what_waits_is_derived_after_a_restart_or_when_the_bus_has_no_more() -> None:
    """
    Reports have no further wait after their time, in any process.
    """
    now = NOON.timestamp()
    store = Store(clock=lambda: now)
    with empty() as engine, engine.begin() as connection:
        store.add(connection, started("A", run_id="first"))
        now += 6.0
        store.add(connection, started("A", run_id="second"))
        folds = [fold_after_a_wait(store, connection)]
        now += 4.0
        folds.append(fold_after_a_wait(Store(clock=lambda: now), connection))
        folds += [
            fold_after_a_wait(store, connection),
            store.fold(connection, 10),
            store.fold(connection, 10),
        ]
        # The clock is set back: what seems to be of a later time has waited.
        store.add(connection, started("A", run_id="third"))
        now -= 3600.0
        folds.append(fold_after_a_wait(store, connection))

    assert folds == [0, 1, 0, 1, 0, 1]


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
    dumps: list[tuple[int, str]] = []
    parts: list[list[int]] = []
    for most in (1, 2**20):
        monkeypatch.setattr(store_module, "_MOST_BYTES", most)
        store = Store(clock=NOON.timestamp)
        with empty() as engine, engine.begin() as connection:
            for number in range(3):
                store.add(connection, *ended_run(f"run-{number}", begin=NOON - timedelta(hours=number + 1)))
            counts = []
            while not (derived := store.derive(connection, 10)).is_all:
                counts.append(len(derived.runs))
                store.write(connection, derived)
            counts.append(store.fold(connection, 10))
            dumps.append((revisions.revision(connection), "".join(dump(connection))))
            parts.append(counts)

    assert dumps[0] == dumps[1]
    assert dumps[0][0] == 3
    assert parts == [[1, 1, 1], [3]]


def test_a_fold_in_parts_begins_with_what_has_arrived_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A run with reports all the time does not keep the others waiting.
    """
    monkeypatch.setattr(store_module, "_MOST_BYTES", 1)
    store, found = Store(clock=NOON.timestamp), []
    with empty() as engine, engine.begin() as connection:
        for name in ("first", "second"):
            store.add(connection, started("A", run_id=name))
        for sequence in (1, 2):
            derived = store.derive(connection, 10)
            found += [each.row.run_id for each in derived.runs]
            store.write(connection, derived)
            store.add(connection, progressed("A", sequence, run_id="first"))

    assert found == ["first", "second"]


def test_a_fold_takes_as_many_rounds_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What another process has written meanwhile is derived again, but not for ever.
    """
    monkeypatch.setattr(collector_module, "_RUNS_AT_ONCE", 2)
    rounds: list[int] = []
    write = Store.write

    def counted(store: Store, connection: Connection, derived: Derived) -> int:
        rounds.append(len(derived.runs))
        return 0 if rounds[1:] and len(rounds) <= most else write(store, connection, derived)

    monkeypatch.setattr(Store, "write", counted)
    with Collector(read_settings()) as collector:
        for most in (3, 100):
            rounds.clear()
            with collector._database.transaction() as transaction:
                collector._store.add(transaction, *(started("A", run_id=f"{most} {place}") for place in range(3)))
            collector.fold()
            if most == 3:
                assert rounds == [2, 1, 1, 1]
        assert rounds == [2, 1, 1, 1]
        with collector.questions() as questions:
            known = [each.run.run_id for each in questions.runs(Choice()) if each.state is State.RUNNING]

    assert sorted(known) == ["100 0", "100 1", "3 0", "3 1", "3 2"]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.processes])])
def test_a_run_that_has_changed_since_it_was_derived_is_left_to_the_next_fold(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """
    Another process has derived it meanwhile, or deleted it. The other runs are written.
    """
    names, store = ("first", "second", "third"), Store(clock=NOON.timestamp)
    with ExitStack() as stack:
        engine = stack.enter_context(empty()) if kind == "sqlite" else request.getfixturevalue("server")
        connection = stack.enter_context(engine.begin())
        for name in names:
            store.add(connection, started("A", run_id=name))
        derived = store.derive(connection, 10)
        store.add(connection, finished("A", run_id="first"))
        Store(clock=NOON.timestamp).fold(connection, 1)
        for table in (REPORTS, RUNS):
            column = table.c.run if table is REPORTS else table.c.number
            connection.execute(delete(table).where(column == 3))
        store.write(connection, derived)
        states = [each.state for number in (1, 2) for each in Questions(connection).attempts(number)]
        left = connection.scalar(select(func.count()).select_from(PACKS).where(PACKS.c.run == 3))
        counts = Questions(connection).states(Choice())

    assert [each.row.run_id for each in derived.runs] == list(names)
    assert states == [State.FINISHED, State.RUNNING]
    assert (left, counts) == (0, {State.RUNNING: 2})


def test_reports_that_only_a_newer_release_can_read_are_not_lost_between_two_folds() -> None:
    """
    No row follows from them. Another process has packed them since, with further ones.
    """
    store, other = Store(clock=NOON.timestamp), Store(clock=NOON.timestamp)

    def add(connection: Connection, body: bytes) -> None:
        values = {"run": 1, "digest": digest_of(body), "body": body, "received_at": NOON.timestamp()}
        connection.execute(REPORTS.insert().values(values))

    with empty() as engine, engine.begin() as connection:
        store.add(connection, started("A"))
        connection.execute(delete(REPORTS))
        for body in (b"1", b"2"):
            add(connection, body)
            derived = store.derive(connection, 10)
            other.fold(connection, 10)
        add(connection, b"3")
        other.fold(connection, 10)
        store.write(connection, derived)
        known = digests_on(connection, 1)

    assert known == [digest_of(body) for body in (b"1", b"2", b"3")]


def test_a_writer_does_not_wait_while_runs_are_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On SQLite, too, where one transaction writes at a time: reports arrive meanwhile, and belong to the next fold.
    """
    with Collector(read_settings()) as collector:
        with collector._database.transaction() as transaction:
            collector._store.add(transaction, started("A"))

        def derived(merging: Merging, before: Before, now: float) -> FoldedRun:
            monkeypatch.undo()
            with collector._database.transaction() as transaction:
                collector._store.add(transaction, finished("A"))
            return folded_run(merging, before, now)

        monkeypatch.setattr(store_module, "folded_run", derived)
        collector.fold()
        with collector.questions() as questions:
            states = [questions.attempts(1)[0].state]
        collector.fold()
        with collector.questions() as questions:
            states.append(questions.attempts(1)[0].state)

    assert states == [State.RUNNING, State.FINISHED]


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

                def read(connection: Connection, number: int, known: Reports) -> Reports:
                    reads.append(number)
                    is_reading.set()
                    may_read.wait(SECONDS)
                    return read_reports(connection, number, known)

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
