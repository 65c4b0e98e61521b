"""
The store as it was at a time of the past equals the fold of the reports whose own time is not later.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import METADATA
from dkist_processing_core.dashboard import past as past_module
from dkist_processing_core.dashboard.past import as_of, reports_until
from dkist_processing_core.events import Event, TaskSampled
from dkist_processing_core.runs import RunState, State, kept_reports, run_view
from tests.dashboard.one_store import one_store
from tests.facts import NOON, finished, sampled, started
from tests.stored import ended_run, running_run

_END = NOON + timedelta(minutes=5)
_HISTORY = [*ended_run(), *running_run(now=NOON), *ended_run("r2", begin=NOON - timedelta(minutes=3))]


@contextmanager
def stored(events: list[Event]) -> Iterator[Questions]:
    """
    Yield the questions to a store of the present with these reports.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        METADATA.create_all(connection)
        store = Store(clock=_END.timestamp)
        for event in events:
            store.add(connection, event)
        while store.fold(connection, 100):
            pass
        yield Questions(connection)
    engine.dispose()


def folded(events: list[Event], at: datetime) -> dict[str, tuple[State, dict[State, int]]]:
    """
    Return state and tasks of each run by the pure fold of the reports until a time.
    """
    found = {}
    for view in RunState(reports_until(events, at)).runs:
        reports = [event for event in reports_until(events, at) if event.run_id == view.run.run_id]
        then = run_view(list(kept_reports(reports)), received_at=at)
        states = [task.state for task in then.tasks]
        found[view.run.run_id] = then.state, {state: states.count(state) for state in State if state in states}
    return found


@given(seconds=st.integers(-9000, 300), order=st.randoms())
def test_the_past_is_the_fold_of_the_reports_until_then(seconds: int, order: random.Random) -> None:
    """
    At any time, whatever the order in which the reports arrived.
    """
    events, at = list(_HISTORY), NOON + timedelta(seconds=seconds)
    order.shuffle(events)

    with stored(events) as questions, as_of(questions, at, timedelta(days=1), 100) as past:
        found = {each.run.run_id: (each.state, each.tasks) for each in past.questions.runs(Choice())}

    assert found == folded(_HISTORY, at)
    assert not past.is_cut


def test_samples_are_left_out_and_late_arrivals_count_at_their_own_time() -> None:
    """
    Of samples only the latest is stored, which may be later than the time that is asked for.
    """
    events = [finished("A", time=NOON + timedelta(seconds=9)), sampled("A", 1), started("A")]

    assert [type(event) for event in reports_until(events, NOON)] == [type(events[2])]
    assert not [event for event in reports_until(events, _END) if isinstance(event, TaskSampled)]


def test_more_runs_than_a_page_follows_are_cut() -> None:
    """
    Those that began last remain, and the page can report that others are missing.
    """
    events = [
        event for number in range(3) for event in ended_run(f"run-{number}", begin=NOON + timedelta(minutes=number))
    ]

    with stored(events) as questions, as_of(questions, _END, timedelta(days=1), 2) as past:
        found = sorted(each.run.run_id for each in past.questions.runs(Choice()))

    assert (found, past.is_cut) == (["run-1", "run-2"], True)


def test_few_runs_at_a_time_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each run alone or all together, what is yielded is the same, and it has no report.
    """
    found, address = [], f"/?at={_END.isoformat()}".replace("+", "%2B")
    for most in (1, 2**30):
        monkeypatch.setattr(past_module, "_PART_BYTES", most)
        with one_store(_HISTORY) as store:
            reads = [each for each in store.statements(address) if "dkist_core_pack.run, dkist_core_pack.body" in each]
            with as_of(store.questions, _END, timedelta(days=1), 100) as past:
                rows = {each.run.run_id: (each.state, each.tasks) for each in past.questions.runs(Choice())}
                left = [past.questions.reports(number) for number in range(1, 4)]
        found.append((len(reads), rows, left))

    assert [number for number, *_ in found] == [3, 1]
    assert [each[1:] for each in found] == [(folded(_HISTORY, _END), [[], [], []])] * 2


def test_runs_that_are_too_large_together_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As many as fit remain, at least one.
    """
    found = []
    with stored(_HISTORY) as questions:
        sizes = questions.decoded_sizes([run.number for run in questions.runs_between(NOON - timedelta(1), _END)])
        first, second, third = sizes.values()
        for most in (1, first + second, first + second + third - 1, first + second + third):
            monkeypatch.setattr(past_module, "_MOST_BYTES", most)
            with as_of(questions, _END, timedelta(days=1), 100) as past:
                found.append((past.runs, past.is_cut, len(past.questions.runs(Choice()))))

    assert found == [(1, True, 1), (2, True, 2), (2, True, 2), (3, False, 3)]
