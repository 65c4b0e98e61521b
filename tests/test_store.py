"""
The store of runs: it depends only on the set of reports, and answers questions about many runs.
"""

import json
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, inspect, select
from sqlalchemy import column as sa_column
from sqlalchemy import table as sa_table
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.measurements import measurements_of
from dkist_processing_core.collect.questions.answers import Choice, FirstFailure
from dkist_processing_core.collect.questions.families import first_failure
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.reports.stored import held, reports_on
from dkist_processing_core.collect.store import KEPT_SECONDS, Store
from dkist_processing_core.collect.tables import ATTEMPTS, DETAILS, METADATA, PACKS, REPORTS, RUNS, TASKS
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import Event, WorkflowOverdue
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.migrating import upgrade
from dkist_processing_core.metrics.declarations import ATTEMPT_ENDED
from dkist_processing_core.metrics.measurement import Number
from dkist_processing_core.runs import RunState, State, kept_reports, run_view
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, progressed, sampled, started
from tests.stored import ENDED, RUNNING, ended_run, running_run
from tests.strategies import events, reports

NOW = NOON + timedelta(minutes=5)
YESTERDAY = "scheduled__2026-11-21T11:00:00+00:00"
_DERIVED = {
    RUNS: (
        "workflow_name",
        "workflow_version",
        "run_id",
        "state",
        "verdict",
        "began_at",
        "is_start_known",
        "ended_at",
        "last_sign_at",
    ),
    TASKS: ("place", "name", "state", "engine_state"),
    ATTEMPTS: tuple(column.name for column in ATTEMPTS.columns if column.name != "run"),
}


@contextmanager
def empty() -> Iterator[Engine]:
    """
    Yield a store in memory.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.processes, pytest.mark.once])]
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """
    An empty store in each kind of database; a test rolls its changes back.
    """
    if request.param == "sqlite":
        with empty() as store:
            yield store
        return
    postgres = request.getfixturevalue("postgres")
    name = request.module.__name__.rpartition(".")[2]
    postgres.create_database(name)
    with closing(Database.open(postgres.url(name, driver="psycopg"), read_settings())) as database:
        yield database.engine


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Connection]:
    """
    Run a transaction of which nothing remains.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def fill(connection: Connection, parts: Iterable[Sequence[Event]], now: datetime = NOW) -> None:
    """
    Add reports in parts, each of which is folded before the next one is added.
    """
    store = Store(clock=now.timestamp)
    for part in parts:
        for report in part:
            store.add(connection, report)
        while store.fold(connection, 1):
            pass


def fill_unfolded(connection: Connection, reports: Iterable[Event]) -> None:
    """
    Add reports of which no row is derived.
    """
    store = Store(clock=NOW.timestamp)
    for report in reports:
        store.add(connection, report)


def copy_to_earlier(present: Connection, former: Connection) -> None:
    """
    Copy runs and reports into a store of an earlier release, in which all reports are folded.
    """
    for table in (RUNS, REPORTS):
        known = {column["name"] for column in inspect(former).get_columns(table.name)}
        rows = present.execute(select(*(column for column in table.columns if column.name in known))).mappings().all()
        folded = {"is_folded": True} if "is_folded" in known else {}
        columns: list[Any] = [sa_column(name) for name in (*known.intersection(table.c.keys()), *folded)]
        if rows:
            former.execute(sa_table(table.name, *columns).insert(), [dict(row) | folded for row in rows])


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """
    A store with two runs that have ended, and one that runs.
    """
    with rolled_back(engine) as connection:
        fill(
            connection,
            [
                list(ended_run(YESTERDAY, begin=NOON - timedelta(days=1), version="1.2.2")),
                [*ended_run(), *running_run(now=NOW)],
            ],
        )
        yield connection


def rows(connection: Connection) -> list[list[Any]]:
    """
    Return the derived rows, without the numbers of the runs.
    """
    return [
        sorted(map(repr, connection.execute(select(*(table.c[name] for name in names)))))
        for table, names in _DERIVED.items()
    ]


def stored(engine: Engine, parts: Iterable[Sequence[Event]], now: datetime = NOW) -> tuple[list[str], list[Any]]:
    """
    Return the dump and the derived rows of a store with these reports.
    """
    with rolled_back(engine) as connection:
        fill(connection, parts, now)
        return list(dump(connection)), rows(connection)


@given(data=st.data(), received=reports())
def test_the_store_depends_neither_on_the_order_nor_on_the_repetition_of_reports(
    engine: Engine, data: st.DataObject, received: list[Event]
) -> None:
    """The dump and the derived rows are equal for any order, repetition and grouping of the same reports."""
    repeated = data.draw(st.lists(st.sampled_from(received), max_size=5)) if received else []
    again = data.draw(st.permutations([*received, *repeated]))
    size = data.draw(st.integers(1, 5))

    found = stored(engine, [again[first : first + size] for first in range(0, len(again), size)])

    assert found == stored(engine, [received])


@given(received=st.lists(events(), max_size=3))
def test_any_event_can_be_stored(engine: Engine, received: list[Event]) -> None:
    """Texts and numbers at their limits fit the columns of each database."""
    written, _ = stored(engine, [received])

    assert len(json.loads("".join(written))["runs"]) == len(
        {
            (event.workflow_name, event.workflow_version, event.run_id)
            for event in received
            if not (isinstance(event, WorkflowOverdue) and event.is_missed_start)
        }
    )


@pytest.mark.parametrize("name", ["workflow_name", "workflow_version", "run_id", "task_name", "fingerprint"])
def test_texts_of_any_length_are_stored_and_distinguished(connection: Connection, name: str) -> None:
    """An index of PostgreSQL refuses long ones; each is found again, whole."""
    # PostgreSQL compresses texts, but not this one.
    long = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=9000))
    facts = [{"task_name": "A", "run_id": "long"} | {name: f"{long}{end}"} for end in "12"]
    fill(connection, [[failed(**each) for each in facts], [started(**each) for each in facts if name != "fingerprint"]])
    found = [
        each
        for each in Questions(connection).runs(Choice(), most_failures=None)
        if each.run.run_id not in (RUNNING, ENDED, YESTERDAY)
    ]
    failures = [each for run in found for each in run.failures]

    assert len(found) == (1 if name in ("task_name", "fingerprint") else 2)
    assert len(failures) == (1 if name == "fingerprint" else 2)
    assert {len(each.family) for each in Questions(connection).families(Choice())} == {16}


@given(received=reports())
def test_the_kept_reports_give_the_state_that_all_reports_give(received: list[Event]) -> None:
    """Leaving out the reports without an effect does not change the state of a run."""
    state = RunState(received)
    by_run = {run_id: [each for each in received if each.run_id == run_id] for run_id in {e.run_id for e in received}}

    assert {run.run.run_id: run for run in state.runs} == {
        run_id: run_view(kept_reports(each)) for run_id, each in by_run.items()
    }


def test_the_time_of_reception_is_not_in_the_dump() -> None:
    """A store that received the same reports at another time has an equal dump, also if a time is implausible then."""
    reports = [*ended_run(), started("Late", time=NOW + timedelta(days=4))]
    with empty() as first, empty() as second:
        (one, _), (other, _) = stored(first, [reports], NOW), stored(second, [reports], NOW + timedelta(days=6))

    assert one == other


def test_only_the_latest_progress_is_kept() -> None:
    """Many reports of progress take the room of one."""
    with empty() as store, store.begin() as connection:
        fill(connection, [[started("A"), *(progressed("A", n) for n in range(50))], [progressed("A", 20)]])
        kept = reports_on(connection, 1)
        (attempt,) = Questions(connection).open_attempts(Choice())

    assert (len(kept), attempt.done) == (2, 49)


def test_only_the_latest_sample_is_kept_and_it_is_a_sign_of_life() -> None:
    """A store that is built again from all samples has an equal dump, whatever the order."""
    samples = [sampled("A", n, time=NOON + timedelta(seconds=30 * n), host="node7") for n in range(20)]
    dumps = []
    for parts in ([[each] for each in samples], [samples[::-1]]):
        with empty() as store, store.begin() as connection:
            fill(connection, parts, NOW)
            kept = reports_on(connection, 1)
            (attempt,) = Questions(connection).open_attempts(Choice())
            silent = Questions(connection).open_attempts(Choice(), silent_since=samples[-1].time)
            dumps.append("".join(dump(connection)))

    assert dumps[0] == dumps[1]
    assert (len(kept), attempt.state, attempt.host) == (1, State.RUNNING, "node7")
    assert (attempt.last_sign_at, silent) == (samples[-1].time, [])
    assert json.loads(dumps[0])["runs"][0]["tasks"][0]["attempts"][0]["sample"]["sequence"] == 19


def test_a_report_with_an_implausible_time_does_not_change_the_place_of_its_run(connection: Connection) -> None:
    """A clock that is wrong by years neither makes a run the latest nor the oldest one."""
    wrong = started("A", run_id="wrong", time=datetime(2101, 1, 1, tzinfo=UTC))
    old = started("A", run_id="old", time=datetime(1971, 1, 1, tzinfo=UTC))
    fill(connection, [[wrong, old, finished("A", run_id="wrong", time=NOON)]])
    by_id = {run.run.run_id: run.last_sign_at for run in Questions(connection).runs(Choice())}

    assert (by_id["wrong"], by_id["old"]) == (NOON, NOW)


def test_a_report_that_only_a_newer_release_can_read_is_passed_over(connection: Connection) -> None:
    """After a return to an older release, the store still answers, and the report is kept."""
    number = Questions(connection).run_number(RUNNING) or 0
    body = b'{"type": "edu.nso.dkist.task.imagined"}'
    values = {"run": number, "digest": b"new", "body": body, "received_at": NOW.timestamp()}
    connection.execute(REPORTS.insert().values(values))
    folded = Store(clock=NOW.timestamp).fold(connection, 10)
    state = {run.run.run_id: run.state for run in Questions(connection).runs(Choice())}

    assert folded == 1
    assert state[RUNNING] is State.RUNNING
    assert "imagined" not in "".join(dump(connection))
    assert body in [each.body for each in held(connection, [number])[number].packed]
    assert not connection.execute(select(REPORTS.c.number)).all()


def test_a_failure_without_a_plausible_time_is_listed(connection: Connection) -> None:
    """It counts as having failed when its report was received."""
    fill(connection, [[failed("A", run_id="old", time=datetime(1971, 1, 1, tzinfo=UTC), fingerprint="f" * 16)]])
    (family,) = [each for each in Questions(connection).families(Choice()) if each.family == "f" * 16]

    assert (family.count, family.last_at) == (1, NOW)


def test_runs_are_listed_with_their_tasks_and_failures(connection: Connection) -> None:
    """The run with the latest report is first, and the failures of its tasks are those of their last attempts."""
    runs = Questions(connection).runs(Choice(), most_failures=None)

    assert [(run.run.run_id, run.state) for run in runs] == [
        (RUNNING, State.RUNNING),
        (ENDED, State.FAILED),
        (YESTERDAY, State.FAILED),
    ]
    assert runs[1].tasks == {State.FINISHED: 1, State.FAILED: 2, State.SKIPPED: 2, State.NOT_RUN: 1}
    assert [(each.task_name, each.number, each.cause) for each in runs[1].failures] == [
        ("Calibrate", 2, "exception"),
        ("Polcal", 1, "out_of_memory"),
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(since=NOON), [RUNNING, ENDED]),
        (Choice(workflow="l0_to_l1_visp"), [ENDED, YESTERDAY]),
        (Choice(workflow="l?_to_*dlnirsp"), [RUNNING]),
        (Choice(workflow="[l]0*"), []),
        (Choice(version="1.2.2"), [YESTERDAY]),
        (Choice(states=(State.RUNNING,)), [RUNNING]),
        (Choice(cause="out_of_memory"), [ENDED, YESTERDAY]),
        (Choice(cause="timeout"), []),
        (Choice(recipe_run_id=42), [RUNNING]),
    ],
)
def test_each_filter_restricts_the_runs(connection: Connection, choice: Choice, expected: list[str]) -> None:
    """The listed and the counted runs are those that the filter allows."""
    questions = Questions(connection)

    assert [run.run.run_id for run in questions.runs(choice)] == expected
    assert sum(questions.states(choice).values()) == len(expected)


def test_open_attempts_have_their_progress_and_last_sign(connection: Connection) -> None:
    """The attempts that run are listed, the oldest first; those of runs that have ended are not."""
    attempts = Questions(connection).open_attempts(Choice())

    assert [(each.task_name, each.number, each.max_attempts, each.done, each.host) for each in attempts] == [
        ("Gather", 1, 1, None, "node1"),
        ("Invert", 2, 3, 45, "node2"),
        ("Publish", 1, 1, None, None),
    ]
    assert attempts[1].last_sign_at == NOW - timedelta(seconds=2)


def test_of_many_open_attempts_the_oldest_are_read(connection: Connection) -> None:
    """Their number is known without them."""
    questions = Questions(connection)

    assert [each.task_name for each in questions.open_attempts(Choice(), limit=2)] == ["Gather", "Invert"]
    assert questions.number_of_open_attempts() == 3


def test_silent_attempts_are_found(connection: Connection) -> None:
    """What is stuck are the attempts without a report for a time."""
    silent = Questions(connection).open_attempts(Choice(), silent_since=NOW - timedelta(hours=1))

    assert [each.task_name for each in silent] == ["Gather"]


def test_a_family_has_its_first_bad_version_and_the_last_good_one_before(connection: Connection) -> None:
    """The version in which it occurred first, though a later one has it too, and the one that ran the task before."""
    facts: dict[str, Any] = {"workflow_name": "L", "recipe_run_id": 5, "duration_seconds": 1.0}

    def at(minute: int, version: str, **more: Any) -> dict[str, Any]:
        time = NOON + timedelta(minutes=minute)
        return facts | {"run_id": f"r{minute}", "workflow_version": version, "time": time} | more

    fill(
        connection,
        [
            [
                finished("A[1]", **at(1, "1.0")),
                finished("A", **at(2, "1.1")),
                finished("B", **at(3, "1.2")),
                finished("A", **at(4, "2.0")),
                failed("A", **at(5, "2.0", fingerprint="f" * 16)),
                failed("A", **at(6, "2.1", fingerprint="f" * 16, recipe_run_id=6)),
                finished("A", **at(7, "2.2")),
            ]
        ],
    )
    (family,) = Questions(connection).families(Choice(family="f" * 16))
    (other, *_) = Questions(connection).families(Choice(workflow="l0_to_l1_visp"))

    first = FirstFailure((NOON + timedelta(minutes=5)).timestamp(), "L", "2.0", "A", "1.1")
    assert family.first == first_failure(connection, "f" * 16) == first
    assert (family.runs, family.recipe_runs, dict(family.workflows)) == (2, 2, {"L": ["2.0", "2.1"]})
    assert other.first is not None
    assert (other.first.version, other.first.last_good_version) == ("1.2.2", None)
    assert first_failure(connection, "none") is None


def test_failures_are_counted_by_family(connection: Connection) -> None:
    """A family has its counts since a time, and its first occurrence ever."""
    limb, memory = Questions(connection).families(Choice(since=NOON))

    assert (limb.count, limb.final, limb.total, limb.runs) == (2, 1, 4, 1)
    assert (limb.first_at, limb.last_at) == (
        NOON - timedelta(days=1) + timedelta(seconds=37),
        NOON + timedelta(seconds=67),
    )
    assert (limb.workflows, limb.tasks) == ({"l0_to_l1_visp": ["1.2.3"]}, ["Calibrate"])
    assert (memory.count, memory.total, memory.last.cause) == (1, 2, "out_of_memory")


def test_failures_of_all_versions_are_one_family(connection: Connection) -> None:
    """Without a limit in time, a family lists the versions in which it occurred."""
    limb, _ = Questions(connection).families(Choice())

    assert (limb.count, limb.runs, limb.workflows) == (4, 2, {"l0_to_l1_visp": ["1.2.2", "1.2.3"]})


def test_a_family_has_its_occurrences_its_stack_and_what_followed(connection: Connection) -> None:
    """The last failure is first, restricted by the choice, and later successes of its task are counted."""
    later = {"workflow_name": "l0_to_l1_visp", "run_id": "mended", "time": NOON + timedelta(hours=1)}
    fill(connection, [[finished("Calibrate", **later), finished("ParseL0", **later)]])
    questions = Questions(connection)
    (named,) = questions.families_named("5F0a")
    whole = questions.family(Choice(family=named))
    recent = questions.family(Choice(since=NOON + timedelta(minutes=1), family=named), 5)

    assert whole is not None
    assert recent is not None
    assert [(each.run.run_id, each.number, each.is_final) for each in whole.failures] == [
        (ENDED, 2, True),
        (ENDED, 1, False),
        (YESTERDAY, 2, True),
        (YESTERDAY, 1, False),
    ]
    assert [each.number for each in recent.failures] == [2]
    assert (whole.family.count, recent.family.count, whole.finished_since) == (4, 1, 1)
    assert whole.stack is not None
    assert whole.stack.endswith("dkist_processing_visp.errors.LimbError: no limb in frame 3\n")
    assert questions.family(Choice(since=NOW, family=named)) is None


def test_a_family_is_named_by_the_beginning_of_its_id_alone(connection: Connection) -> None:
    """A sign that a database reads as any text is only this sign."""
    questions = Questions(connection)

    assert [len(questions.families_named(each)) for each in ("", "5f0ac1d2e3b4a596", "f0ac", "%", "_f0a")] == [
        2,
        1,
        0,
        0,
        0,
    ]


def test_a_run_is_idle_while_none_of_its_attempts_runs(connection: Connection) -> None:
    """For example while a task waits for its next attempt, and its failure is not final."""
    waits = {"run_id": "waits", "max_attempts": 2, "time": NOW - timedelta(minutes=5)}
    fill(connection, [[started("A", **waits), failed("A", final=False, **waits)]])
    questions = Questions(connection)
    found = [
        [each.run.run_id for each in questions.idle_runs(Choice(), silent_since=since)]
        for since in (None, NOW - timedelta(minutes=4), NOW - timedelta(minutes=6))
    ]
    (before,) = questions.families(Choice(workflow="W"))
    fill(connection, [[started("A", run_id="waits", attempt=2, time=NOW)]])

    assert found == [["waits"], ["waits"], []]
    assert before.final == 0
    assert questions.idle_runs(Choice()) == []


def test_failures_without_an_exception_are_alike_by_task_and_cause() -> None:
    """A signal in one task is no family with the same signal in another task, or with another signal."""
    ends = [
        failed("A", run_id="1", cause="signal", signal="SIGSEGV"),
        failed("A", run_id="2", cause="signal", signal="SIGSEGV"),
        failed("A", run_id="3", cause="signal", signal="SIGBUS"),
        failed("B", run_id="4", cause="signal", signal="SIGSEGV"),
    ]
    with empty() as store, store.begin() as connection:
        fill(connection, [ends])
        families = Questions(connection).families(Choice())

    assert sorted(each.count for each in families) == [1, 1, 2]


def test_a_run_is_named_as_on_the_whole_command_line(connection: Connection) -> None:
    """A short id, an end of it and the whole id name the run; what names several is refused."""
    questions = Questions(connection)
    number = questions.run_number(RUNNING)

    assert number is not None
    assert [questions.run_number(each) for each in ("8bf54b12", "4B12", "8bf5", "5555")] == [number] * 3 + [None]
    with pytest.raises(IdentityError, match="names 2 runs"):
        questions.run_number("T110000")
    assert questions.short_ids([RUNNING, ENDED]).of(RUNNING) == "8bf54b12"


def test_runs_are_kept_for_400_days_after_their_last_report(connection: Connection) -> None:
    """An old run is deleted with everything about it, in steps; a run with a later report is kept."""
    later = NOW + timedelta(seconds=KEPT_SECONDS + 1)
    fill(connection, [[started("A", run_id=RUNNING, workflow_name="l1_to_l2_dlnirsp", workflow_version="dev")]], later)
    store = Store(clock=later.timestamp)
    pruned = [store.prune(connection, 1) for _ in range(3)]
    left = [connection.scalars(select(table.c.run).distinct()).all() for table in (TASKS, ATTEMPTS, PACKS, DETAILS)]

    assert pruned == [1, 1, 0]
    assert [run.run.run_id for run in Questions(connection).runs(Choice())] == [RUNNING]
    assert left[0] == left[1] == left[2]
    assert left[3] == []
    assert len(left[0]) == 1


def test_the_migrations_make_the_tables_of_this_release(engine: Engine) -> None:
    """The tables that a migration has made have the columns and the indexes that the release uses."""
    if engine.dialect.name == "sqlite":
        with closing(Database.open(None, read_settings())) as database:
            found = compared(database.engine)
    else:
        found = compared(engine)

    assert found == []


def test_a_store_of_an_earlier_release_is_derived_again() -> None:
    """Such a store has the first report of a run as its start, whether the start was reported or not."""
    earlier = create_engine("sqlite://", poolclass=StaticPool)
    with empty() as store, store.begin() as present, earlier.begin() as former:
        fill_unfolded(present, [*ended_run(), finished("A", run_id="late")])
        upgrade(former, "in memory", "0003")
        copy_to_earlier(present, former)
        upgrade(former, "in memory")
        count = Store(clock=NOW.timestamp).fold(former, 10)
        known_starts = {run.run.run_id: run.is_start_known for run in Questions(former).runs(Choice())}
        (ended,) = [each for each in measurements_of(former) if each.metric is ATTEMPT_ENDED]
    earlier.dispose()

    assert (count, known_starts) == (2, {ENDED: True, "late": False})
    assert sum(each.value for each in ended.values if isinstance(each, Number)) == 4


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.processes])])
def test_a_migrated_store_has_its_runs_in_the_order_of_new_ones(kind: str, request: pytest.FixtureRequest) -> None:
    """The lists are complete before the runs are derived again."""
    columns = (RUNS.c.run_id, RUNS.c.begin_order, RUNS.c.duration_order)
    if kind == "sqlite":
        earlier = create_engine("sqlite://", poolclass=StaticPool)
    else:
        postgres = request.getfixturevalue("postgres")
        postgres.create_database("ordered")
        earlier = create_engine(postgres.url("ordered", driver="psycopg"))
    with empty() as store, store.begin() as present, earlier.begin() as former:
        fill(present, [[*ended_run(), finished("A", run_id="late"), *running_run()]])
        upgrade(former, "in memory", "0009")
        copy_to_earlier(present, former)
        upgrade(former, "in memory")
        found = former.execute(select(*columns).order_by(RUNS.c.number)).all()
        expected = present.execute(select(*columns).order_by(RUNS.c.number)).all()
    earlier.dispose()

    assert [tuple(row) for row in found] == [tuple(row) for row in expected]
    assert len(found) == 3


def compared(engine: Engine) -> list[Any]:
    """
    Return the differences between a database and the tables of the store.
    """
    with engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in METADATA.tables}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))
