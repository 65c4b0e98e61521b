"""
Questions about many runs: each answer is that of a plain count over all runs, in each kind of database.
"""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.collect.questions.overview import Order
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import KEPT_SECONDS, Store
from dkist_processing_core.collect.tables import METADATA
from dkist_processing_core.events import Event, TaskDispatched, WorkflowFailed, WorkflowFinished, WorkflowStarted
from dkist_processing_core.inbox import Database
from dkist_processing_core.runs import State
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, make, started
from tests.test_store import empty

_RUNS = 60
_WORKFLOWS = ("visp", "vbi", "cryo")
_OF_TEXT = Choice(text="abcdefgh", text_since=NOON)
_OF_CAUSE = Choice(cause="exception", failed_since=NOON)


def history(seed: int = 1) -> list[Event]:
    """
    Return the reports on runs of several workflows and versions within two days, of which some go on.
    """
    chance = random.Random(seed)
    events: list[Event] = []
    for number in range(_RUNS):
        began = NOON - timedelta(seconds=chance.randrange(2 * 86400))
        run: dict[str, Any] = {
            "workflow_name": chance.choice(_WORKFLOWS),
            "workflow_version": chance.choice(("1", "2")),
            "run_id": f"run-{number}",
            "recipe_run_id": number % 7,
        }
        events.append(make(WorkflowStarted, None, time=began, started_at=began, reported_by="engine", **run))
        ended = began + timedelta(seconds=chance.randrange(10, 5000))
        for task in ("A", "B[0]", "B[1]"):
            seconds = chance.randrange(100) / 4
            events += [
                make(TaskDispatched, task, time=began, queued_seconds=seconds, reported_by="engine", **run),
                started(task, time=began, reported_by="launcher", environment_seconds=2 * seconds, **run),
            ]
            if task == "A" and chance.random() < 0.3:
                cause = chance.choice(("exception", "signal"))
                events.append(failed(task, time=ended, cause=cause, duration_seconds=seconds, **run))
            else:
                events.append(finished(task, time=ended, duration_seconds=seconds, **run))
        if chance.random() < 0.8:
            kind = chance.choice((WorkflowFinished, WorkflowFailed))
            events.append(make(kind, None, time=ended, ended_at=ended, reported_by="engine", **run))
    return events


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.processes])])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """
    A store with these reports in each kind of database.
    """
    if request.param == "sqlite":
        engine = create_engine("sqlite://", poolclass=StaticPool)
        METADATA.create_all(engine)
        _fill(engine)
        yield engine
        engine.dispose()
        return
    postgres = request.getfixturevalue("postgres")
    postgres.create_database("overview")
    with closing(Database.open(postgres.url("overview", driver="psycopg"), read_settings())) as opened:
        _fill(opened.engine)
        yield opened.engine


def _fill(engine: Engine) -> None:
    """
    Add the reports in two parts, so that rows are derived again.
    """
    events = history()
    random.Random(2).shuffle(events)
    store = Store(clock=(NOON + timedelta(days=1)).timestamp)
    for part in (events[::2], events[1::2]):
        with engine.connect() as connection, connection.begin():
            for event in part:
                store.add(connection, event)
            while store.fold(connection, 7):
                pass


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """
    A transaction of the store of which nothing remains.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@pytest.fixture
def questions(connection: Connection) -> Questions:
    """
    The questions to the store.
    """
    return Questions(connection)


def _key(run: StoredRun, order: Order) -> Any:
    if order is Order.WORKFLOW:
        return run.run.workflow_name
    if order is Order.DURATION:
        is_known = run.is_start_known and run.began_at and run.ended_at
        return (run.ended_at - run.began_at).total_seconds() if is_known else -1.0  # type: ignore[operator]
    return run.last_sign_at if order is Order.LAST_REPORT else run.began_at


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("is_descending", [True, False])
def test_the_parts_of_a_list_are_the_whole_list_in_its_order(
    questions: Questions,
    order: Order,
    is_descending: bool,  # noqa: FBT001
) -> None:
    """No run is missing between two parts, or in both."""
    pages = [
        questions.run_page(Choice(), order=order, is_descending=is_descending, first=first, size=13)
        for first in range(0, _RUNS, 13)
    ]
    runs = [run for page in pages for run in page.runs]
    keys = [_key(run, order) for run in runs]

    assert sorted(run.number for run in runs) == sorted(run.number for run in questions.runs(Choice()))
    assert keys == sorted(keys, reverse=is_descending)
    assert {page.total for page in pages} == {_RUNS}


def _fits(run: StoredRun, choice: Choice) -> bool:
    return (
        (choice.since is None or run.last_sign_at >= choice.since)
        and (choice.until is None or run.last_sign_at < choice.until)
        and (choice.workflow is None or run.run.workflow_name.startswith(choice.workflow.rstrip("*")))
        and (choice.version is None or run.run.workflow_version == choice.version)
        and (not choice.states or run.state in choice.states)
        and (choice.recipe_run_id is None or run.run.recipe_run_id == choice.recipe_run_id)
        and (choice.text is None or choice.text.lower() in run.run.run_id or choice.text in run.run.workflow_name)
        and (choice.cause is None or any(failure.cause == choice.cause for failure in run.failures))
        and (choice.family is None or any(failure.family == choice.family for failure in run.failures))
    )


@pytest.mark.parametrize(
    "choice",
    [
        Choice(since=NOON - timedelta(hours=20)),
        Choice(since=NOON - timedelta(hours=30), until=NOON - timedelta(hours=20)),
        Choice(workflow="v*"),
        Choice(workflow="cryo", version="2"),
        Choice(version="1"),
        Choice(states=(State.FAILED, State.RUNNING)),
        Choice(workflow="visp", states=(State.FINISHED,)),
        Choice(recipe_run_id=3),
        Choice(text="UN-1"),
        Choice(text="bi"),
        Choice(text="%"),
        Choice(cause="signal"),
        Choice(workflow="none"),
    ],
)
def test_each_choice_has_its_runs_and_their_number(questions: Questions, choice: Choice) -> None:
    """The numbers of whole versions, which the store keeps, are those of a count."""
    expected = [run for run in questions.runs(Choice(), most_failures=None) if _fits(run, choice)]
    page = questions.run_page(choice, size=_RUNS, most_failures=None)
    states = questions.states(choice)

    assert page.runs == expected
    assert page.total == len(expected)
    assert states == {state: count for state in State if (count := sum(run.state is state for run in expected))}


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_run_of_a_list_has_as_many_failures_as_are_requested(connection: Connection, most: int) -> None:
    """The first ones, in the order of the tasks; attempts that another one followed are none of them."""
    store = Store(clock=NOON.timestamp)
    events = [failed(task, run_id=run_id, max_attempts=2) for run_id in ("few", "many") for task in "AC"]
    store.add(connection, *events, failed("B", run_id="many"), failed("D", run_id="many"))
    store.add(connection, started("A", run_id="many", attempt=2, max_attempts=2))
    store.fold(connection, 9)
    questions = Questions(connection)
    all_of_them = questions.runs(Choice(), most_failures=None)
    names = {run.run.run_id: [each.task_name for each in run.failures] for run in all_of_them}

    assert {run.number: run.failures for run in questions.runs(Choice(), most_failures=most)} == {
        run.number: run.failures[:most] for run in all_of_them
    }
    assert (names["few"], sorted(names["many"])) == (["A", "C"], ["B", "C", "D"])


def test_the_hours_of_a_day_have_the_runs_that_ended_in_them(questions: Questions) -> None:
    """The hours of the workflows add up to those of all; hours without an end are there as well."""
    until = NOON + timedelta(minutes=20)
    found = questions.activity(Choice(), until, 24)
    of_visp = questions.activity(Choice(workflow="visp"), until, 24)
    of_signals = questions.activity(Choice(cause="signal"), until, 24)
    with_signal = [
        run
        for run in questions.runs(Choice(cause="signal"))
        if run.ended_at is not None and NOON - timedelta(hours=23) <= run.ended_at <= until
    ]
    begin = NOON - timedelta(hours=23)
    expected = [
        {
            state: count
            for state in State
            if (
                count := sum(
                    run.state is state and run.ended_at is not None and hour <= run.ended_at < hour + timedelta(hours=1)
                    for run in questions.runs(Choice())
                    if run.ended_at is not None and run.ended_at <= until
                )
            )
        }
        for hour in (begin + timedelta(hours=number) for number in range(24))
    ]

    assert [hour.ended for hour in found.hours] == expected
    assert found.hours[0].began_at == begin
    assert sum(map(len, expected)) > 5
    assert of_visp.hours == of_visp.workflows["visp"] == found.workflows["visp"]
    assert list(found.workflows) == sorted(_WORKFLOWS)
    assert 0 < sum(sum(hour.ended.values()) for hour in of_signals.hours) == len(with_signal)


def test_a_workflow_has_its_versions_and_the_figures_of_its_tasks(questions: Questions) -> None:
    """Durations count for attempts with success, and instances of a mapped task are one."""
    runs = [run for run in questions.runs(Choice()) if run.run.workflow_name == "vbi"]
    versions = questions.version_figures("vbi")
    tasks = {(each.task_name, each.version): each for each in questions.task_figures("vbi")}
    summaries = {each.version: each.runs for each in questions.workflows() if each.name == "vbi"}
    events = [event for event in history() if event.workflow_name == "vbi" and event.name == "task.failed"]

    assert {each.version: dict(each.runs) for each in versions} == summaries
    assert sum(sum(each.runs.values()) for each in versions) == len(runs)
    assert {name for name, _ in tasks} == {"A", "B"}
    assert sum(each.failed for each in tasks.values()) == len(events)
    of_a = [each for (name, _), each in tasks.items() if name == "A"]
    assert sum(each.attempts for each in of_a) == len(runs)
    for each in tasks.values():
        assert each.durations is not None
        assert each.durations.count == each.attempts - each.failed
        assert each.queued is not None
        assert each.environment is not None
        assert each.environment.median == 2 * each.queued.median


def test_earlier_attempts_are_the_latest_successful_ones(questions: Questions) -> None:
    """Of all versions of the workflow, and of all instances of a mapped task."""
    before = NOON - timedelta(hours=6)
    found = questions.earlier_attempts("visp", ["A", "B[7]"], before=before, limit=5)
    ends = [event for event in history() if event.workflow_name == "visp" and event.name == "task.finished"]
    times = sorted((event.time for event in ends if event.task_name[0] == "B" and event.time < before), reverse=True)  # type: ignore[attr-defined]

    assert list(found) == ["A", "B"]
    assert [each.ended_at for each in found["B"]] == times[:5]
    assert all(each.preparation_seconds == 2 * (each.queued_seconds or 0.0) for each in found["B"])


def test_failures_are_listed_latest_first(questions: Questions) -> None:
    """Those of the chosen time alone."""
    choice = Choice(since=NOON - timedelta(hours=30), until=NOON - timedelta(hours=2))
    found = questions.failures(choice)
    times = [event.time for event in history() if event.name == "task.failed"]

    def is_chosen(time: datetime) -> bool:
        return choice.since is not None and choice.until is not None and choice.since <= time < choice.until

    assert [each.failed_at for each in found] == sorted(filter(is_chosen, times), reverse=True)
    assert len(questions.failures(choice, 2)) == 2


def test_the_trend_of_a_family_has_each_failure_in_its_part_of_the_time(questions: Questions) -> None:
    """The parts are equal, the last one includes its end, and failures outside of the time are left out."""
    since, until, parts = NOON - timedelta(days=1), NOON, 5
    expected: dict[str, list[int]] = {}
    for failure in questions.failures(Choice()):
        assert failure.family is not None
        assert failure.failed_at is not None
        counts = expected.setdefault(failure.family, [0] * parts)
        if since <= failure.failed_at <= until:
            counts[min(parts - 1, int((failure.failed_at - since) / (until - since) * parts))] += 1

    found = questions.family_trends(Choice(), list(expected), since, until, parts)
    of_workflows = [
        questions.family_trends(Choice(workflow=name), list(expected), since, until, parts) for name in _WORKFLOWS
    ]

    assert found == {family: tuple(counts) for family, counts in expected.items()}
    assert sum(map(sum, found.values())) > 0
    for family, of_all in found.items():
        assert of_all == tuple(map(sum, zip(*(each[family] for each in of_workflows), strict=True)))
    assert all(sum(map(sum, each.values())) < sum(map(sum, found.values())) for each in of_workflows)


def test_the_runs_of_a_time_are_those_that_had_begun_and_not_ended(questions: Questions) -> None:
    """A run that goes on has not ended. Those that still went on at the end of the time are the first."""
    first, last = NOON - timedelta(hours=30), NOON - timedelta(hours=20)
    found = questions.runs_between(first, last)
    went_on = [run for run in found if run.ended_at is None or run.ended_at >= last]
    expected = [
        run
        for run in questions.runs(Choice())
        if run.began_at is not None and run.began_at < last and (run.ended_at is None or run.ended_at >= first)
    ]

    assert {run.number for run in found} == {run.number for run in expected}
    assert found[: len(went_on)] == went_on
    assert 0 < len(went_on) < len(found)
    for part in (went_on, found[len(went_on) :]):
        assert part == sorted(part, key=lambda run: (run.began_at, run.number), reverse=True)


def test_the_runs_of_a_time_include_those_of_days_and_those_without_a_start_or_an_end() -> None:
    """The usual ones are found by their end, which is within a day."""
    at, day = NOON, timedelta(days=1)
    reports = [
        *_whole("long", at - 3 * day, at + 3 * day),
        *_whole("short", at - timedelta(hours=1), at + timedelta(hours=1)),
        *_whole("before", at - 3 * day, at - 2 * day),
        *_whole("after", at + timedelta(hours=1), at + 3 * day),
        make(WorkflowStarted, None, run_id="goes on", reported_by="engine", time=at - 3 * day),
        started("A", run_id="no start", time=at - 2 * day),
        _whole("no start", at, at + 4 * day)[1],
        started("A", run_id="no end", time=at - 2 * day),
        make(WorkflowFailed, None, run_id="no end", reported_by="engine", reason=WorkflowFailed.lost, time=at + day),
        started("A", run_id="no end before", time=at - 3 * day),
        make(
            WorkflowFailed,
            None,
            run_id="no end before",
            reported_by="engine",
            reason=WorkflowFailed.lost,
            time=at - 2 * day,
        ),
    ]
    with empty() as engine, engine.begin() as connection:
        store = Store(clock=(at + 5 * day).timestamp)
        for report in reports:
            store.add(connection, report)
        store.fold(connection, 100)
        found = Questions(connection).runs_between(at - timedelta(hours=1), at)

    assert {run.run.run_id for run in found} == {"long", "short", "goes on", "no start", "no end"}


def _whole(run_id: str, begin: datetime, end: datetime) -> list[Event]:
    """Return the start and the end of a run."""
    facts: dict[str, Any] = {"run_id": run_id, "reported_by": "engine"}
    return [make(WorkflowStarted, None, time=begin, **facts), make(WorkflowFinished, None, time=end, **facts)]


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        # Of a time long ago, not all that have ended since.
        (
            lambda of: of.runs_between(NOON - timedelta(hours=2), NOON, 10),
            "dkist_core_run_ended (ended_at>? AND ended_at<?)",
        ),
        (lambda of: of.run_page(Choice(), order=Order.BEGAN), "dkist_core_run_begin_order"),
        (lambda of: of.run_page(Choice(states=(State.FAILED,)), order=Order.BEGAN), "dkist_core_run_state_begin"),
        (lambda of: of.run_page(Choice(states=(State.FAILED,)), order=Order.DURATION), "dkist_core_run_state_duration"),
        (lambda of: of.run_page(Choice(workflow="a"), order=Order.BEGAN), "dkist_core_run_workflow_begin"),
        (
            lambda of: of.run_page(Choice(workflow="a", states=(State.FAILED,)), order=Order.BEGAN),
            "dkist_core_run_workflow_state",
        ),
        (lambda of: of.run_before(1), "dkist_core_run_workflow_state"),
        (lambda of: of.last_run("a", "r"), "dkist_core_run_1 (identity=?)"),
        (lambda of: of.runs(Choice(), most_failures=1), "dkist_core_attempt_1 (run=?)"),
        (lambda of: of.overdue_attempts(9), "dkist_core_attempt_alarmed"),
        (lambda of: of.states(Choice(recipe_run_id=1)), "dkist_core_run_recipe"),
        (lambda of: of.activity(Choice(workflow="a"), NOON), "dkist_core_run_ended"),
        (lambda of: of.families(Choice(workflow="a", since=NOON)), "dkist_core_attempt_failed"),
        (lambda of: of.families(Choice(family="a", since=NOON)), "dkist_core_attempt_family"),
        (lambda of: of.families(Choice(cause="a", since=NOON)), "dkist_core_attempt_cause (cause=? AND failed_at>?)"),
        (lambda of: of.families(Choice(cause="a", since=NOON)), "failed_at=?"),
        (lambda of: of.families_named("a" * 16), "COVERING INDEX dkist_core_attempt_family (family=?)"),
        (lambda of: of.open_attempts(Choice(workflow="a")), "dkist_core_attempt_open"),
        (lambda of: of.latest_failures(Choice()), "COVERING INDEX dkist_core_attempt_failed"),
        (lambda of: of.latest_failures(Choice(cause="a")), "COVERING INDEX dkist_core_attempt_cause (cause=? AND"),
        (lambda of: of.latest_failures(Choice(family="a")), "COVERING INDEX dkist_core_attempt_family (family=? AND"),
        (lambda of: of.latest_runs(Choice(text="a")), "COVERING INDEX dkist_core_run_last_sign_at"),
        (lambda of: of.run_page(_OF_CAUSE), "COVERING INDEX dkist_core_attempt_cause (cause=? AND failed_at>?)"),
        (lambda of: of.run_page(_OF_TEXT), "dkist_core_run_last_sign_at (last_sign_at>?)"),
        (lambda of: of.run_page(_OF_TEXT), "dkist_core_run_ending (ending=?)"),
    ],
)
def test_many_runs_are_found_by_indexes(ask: Callable[[Questions], object], index: str) -> None:
    """Not by an index of all earlier runs or of all runs of a workflow, and none are sorted to show a part of them."""
    plans = _plans(ask)

    assert any(index in plan for plan in plans)
    assert not any(re.search("SCAN dkist_core_(run|attempt)'", plan) for plan in plans)


def _plans(ask: Callable[[Questions], object]) -> list[str]:
    """
    Return how SQLite finds the answers to a question.
    """
    statements: list[Any] = []
    with empty() as engine, engine.connect() as connection:
        store = Store(clock=NOON.timestamp)
        store.add(connection, started("A", workflow_name="a"))
        store.fold(connection, 1)
        event.listen(engine, "before_cursor_execute", lambda *values: statements.append(values[2:4]))
        ask(Questions(connection))
        return [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())
            for text, values in list(statements)
            if "WHERE" in text
        ]


@pytest.mark.parametrize("choice", [_OF_TEXT, _OF_CAUSE, replace(_OF_CAUSE, cause=None, family="a")])
@pytest.mark.parametrize("order", list(Order))
def test_few_runs_are_not_looked_for_among_all_runs_of_a_state_or_a_workflow(choice: Choice, order: Order) -> None:
    """They are found by what is special about them, whatever else they are to be."""
    of_all = re.compile("dkist_core_run_(state|workflow)|SCAN dkist_core_(run|attempt)'")
    plans = [
        plan
        for given in (choice, replace(choice, states=(State.FAILED,)), replace(choice, workflow="a"))
        for plan in _plans(lambda of, given=given: of.run_page(given, order=order))  # type: ignore[misc]
    ]

    assert plans
    assert not any(of_all.search(plan) for plan in plans)


@pytest.mark.parametrize("text", ["ÅNGSTRÖM", "ngstr", "Gstr", "Å"])
def test_a_text_with_other_letters_is_found_as_it_is_written(connection: Connection, text: str) -> None:
    """The cases of A to Z are alike."""
    store = Store(clock=NOON.timestamp)
    store.add(connection, started("A", run_id="ÅNGSTRÖM"))
    store.fold(connection, 1)
    found = Questions(connection).runs(Choice(text=text))

    assert [run.run.run_id for run in found] == ["ÅNGSTRÖM"]


def test_a_run_is_found_by_its_identity_with_its_attempts(questions: Questions) -> None:
    """Its attempts are in the order of its tasks."""
    wanted = questions.runs(Choice())[0]
    found = questions.run(wanted.run)

    assert found == wanted
    assert [each.task_name for each in questions.attempts(wanted.number)] == ["A", "B[0]", "B[1]"]


def test_a_revision_has_the_runs_that_have_changed_since(connection: Connection) -> None:
    """A deletion of runs is a change, of which the runs are not named."""
    questions, later = Questions(connection), NOON + timedelta(days=1)
    before = questions.revision()
    store = Store(clock=later.timestamp)
    for name in ("first", "second"):
        store.add(connection, started("A", run_id=name))
        store.fold(connection, 9)
    changes = questions.changed_since(before)
    cut = questions.changed_since(before, limit=1)
    same = questions.changed_since(changes.revision)
    Store(clock=lambda: later.timestamp() + 2 * KEPT_SECONDS).prune(connection, 3)
    deleted = questions.changed_since(changes.revision)

    assert [run.run_id for run in changes.runs] == ["first", "second"]
    assert (changes.revision, changes.is_cut) == (questions.revision() - 1, False)
    assert ([run.run_id for run in cut.runs], cut.is_cut) == (["second"], True)
    assert (same.runs, same.is_cut, same.revision) == ([], False, changes.revision)
    assert (deleted.runs, deleted.is_cut) == ([], True)


def test_the_numbers_of_runs_follow_deletions(connection: Connection) -> None:
    """The numbers that the store keeps are those of the runs that it has."""
    questions = Questions(connection)
    store = Store(clock=lambda: (NOON + timedelta(days=1)).timestamp() + 2 * KEPT_SECONDS)
    store.prune(connection, 20)
    left = questions.runs(Choice())

    assert len(left) == _RUNS - 20
    assert sum(questions.states(Choice()).values()) == len(left)
    store.clear(connection)
    assert questions.states(Choice()) == {}
    assert questions.workflows() == []
