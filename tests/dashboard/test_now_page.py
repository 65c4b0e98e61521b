"""
The values of the page about the present, and of the same page about a time of the past.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.dashboard.asked import PageError
from dkist_processing_core.dashboard.pages import now
from dkist_processing_core.events import Event, TaskOverdue, WorkflowFailed, WorkflowOverdue, WorkflowStarted
from dkist_processing_core.runs import State
from tests.dashboard.one_store import NOW, one_store
from tests.facts import NOON, failed, finished, make, started


def _begun(run_id: str, **facts: Any) -> Event:
    return make(WorkflowStarted, None, run_id=run_id, reported_by="engine", **facts)


def _lost(run_id: str, **facts: Any) -> Event:
    reason = f"{WorkflowFailed.lost}: its process ended"
    return make(WorkflowFailed, None, run_id=run_id, reported_by="engine", reason=reason, **facts)


def _alarm(run_id: str, **facts: Any) -> Event:
    return make(WorkflowOverdue, None, run_id=run_id, reported_by="watcher", limit_seconds=600.0, **facts)


def _task_alarm(task_name: str, run_id: str, **facts: Any) -> Event:
    alarm: dict[str, Any] = {"reported_by": "watcher", "exceeded": "silence", "limit_seconds": 90.0, "sequence": 1}
    return make(TaskOverdue, task_name, run_id=run_id, last_sign_at=NOON, **alarm | facts)


def test_an_overdue_run_is_late_however_many_runs_have_newer_reports() -> None:
    """It has the oldest report of all, and the list of runs that go on is cut. A withdrawn alarm does not count."""
    since = NOON - timedelta(hours=1)
    events = [_begun(f"run-{number}", time=NOON) for number in range(61)]
    events += [_begun("overdue", time=since), _alarm("overdue", time=NOON, sequence=2)]
    events += [_begun("withdrawn", time=since), _alarm("withdrawn", time=NOON, sequence=3, withdrawn=True)]

    with one_store(events) as store:
        values = store.page("/").values

    assert [each.run.run_id for each in values["late"]] == ["overdue"]  # type: ignore[attr-defined]
    assert values["late_count"] == 1


def test_a_cut_list_of_late_runs_has_the_number_of_the_others() -> None:
    """The number above the list is that of all."""
    events = [event for number in range(62) for event in (_begun(f"run-{number}"), _alarm(f"run-{number}", sequence=2))]

    with one_store(events) as store:
        values, html = store.page("/").values, store.parts("/")

    assert (len(values["late"]), values["late_count"]) == (60, 62)  # type: ignore[arg-type]
    assert "and 2 more" in html["live_late"]
    assert "<strong>62</strong>" in html["live_numbers"]


def test_a_late_attempt_is_listed_however_many_older_ones_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of its run shows its alarm. Those of attempts and runs that have ended do not count."""
    monkeypatch.setattr(now, "MOST_OPEN", 2)
    events: list[Event] = [
        started(f"task {number}", run_id=f"{number % 2}", time=NOON + timedelta(seconds=number)) for number in range(4)
    ]
    alarms = [_task_alarm("task 3", "1"), _task_alarm("task 2", "0"), _task_alarm("task 0", "0", withdrawn=True)]

    with one_store([*events, *alarms]) as store:
        values: Any = store.page("/").values
        store.add(finished("task 2", run_id="0", time=NOW))
        then: Any = store.page("/").values
        store.add(_lost("1", time=NOW))
        none: Any = store.page("/").values

    assert [each.task_name for each in values["late"]] == ["task 2", "task 3"]
    assert values["late_count"] == 2
    assert ([each.task_name for each in then["late"]], then["late_count"]) == (["task 3"], 1)
    assert (none["late"], none["late_count"]) == ([], 0)


def test_a_cut_list_of_missed_starts_has_the_number_of_the_others() -> None:
    """The latest are shown."""
    expected = [NOON - timedelta(minutes=number) for number in range(62)]
    missed = [_alarm("", workflow_version="", expected_at=each, grace_seconds=60.0, time=NOON) for each in expected]

    with one_store(missed) as store:
        values: Any = store.page("/").values
        then = store.page(f"/?at={NOW:%Y-%m-%dT%H:%M:%SZ}").values

    assert [each.expected_at for each in values["missed"]] == expected[59::-1]
    assert (values["missed_count"], values["late_count"], then["missed_count"]) == (62, 0, 62)


def test_lists_read_the_failures_that_they_show() -> None:
    """A mapped task may have failed in thousands of instances, each of which costs as much as a run."""
    events = [failed(f"Calibrate[{number}]", run_id=run_id) for run_id in "ab" for number in range(9)]

    with one_store([*events, _lost("a")]) as store:
        of_now: Any = store.page("/").values["runs"]
        of_list: Any = store.page("/runs").values["rows"]

    assert [len(each.stored.failures) for each in of_now] == [0]
    assert [len(each.stored.failures) for each in of_list] == [1, 1]
    assert [each.why is None for each in of_list] == [each.stored.state is State.RUNNING for each in of_list]


@pytest.mark.parametrize(("address", "name"), [("/", "families"), ("/failures", "rows")])
def test_a_page_asks_as_much_of_many_families_of_failures_as_of_one(address: str, name: str) -> None:
    """Of a store with millions of attempts, the statements are most of the time of a page."""
    failures = [failed("A", run_id=f"run-{number}", fingerprint=f"{number:016x}") for number in range(9)]

    with one_store(failures[:1]) as one, one_store(failures) as many:
        of_one, of_many = one.statements(address), many.statements(address)
        listed = many.page(address).values[name]

    assert len(of_one) == len(of_many)
    assert len(listed) == len(failures)  # type: ignore[arg-type]


def test_the_list_of_runs_asks_as_much_of_many_workflows_as_of_one() -> None:
    """Their names are in the chart of the last hours."""
    runs = [_lost("r", workflow_name=f"workflow {number}") for number in range(9)]

    with one_store(runs[:1]) as one, one_store(runs) as many:
        of_one, of_many = one.statements("/runs"), many.statements("/runs")
        listed = many.page("/runs").values["workflows"]

    assert len(of_one) == len(of_many)
    assert [each.name for each in listed] == [run.workflow_name for run in runs]  # type: ignore[attr-defined]


def test_a_past_with_many_runs_is_read_with_the_statements_for_one() -> None:
    """The reports on all of them are read at once."""
    runs, address = [_begun(f"run-{number}") for number in range(9)], f"/?at={NOON:%Y-%m-%dT%H:%M:%SZ}"

    with one_store(runs[:1]) as one, one_store(runs) as many:
        of_one, of_many = one.statements(address), many.statements(address)
        listed = many.page(address).values["runs"]

    assert len(of_one) == len(of_many)
    assert len(listed) == len(runs)  # type: ignore[arg-type]


def test_the_families_of_the_last_hours_have_what_failed_in_them_alone() -> None:
    """Of each: the number, the last failure, which may have others at the same time, and whether it was final."""
    then, facts = NOON - timedelta(hours=30), {"fingerprint": "a" * 16}
    events = [
        failed("before", run_id="1", time=then, **facts),
        failed("A", run_id="2", time=NOON - timedelta(minutes=2), **facts),
        failed("B", run_id="3", time=NOON, final=False, max_attempts=2, **facts),
        failed("B", run_id="3", time=NOON - timedelta(minutes=1), fingerprint="b" * 16, attempt=2),
        failed("C", run_id="4", time=NOON, **facts),
    ]

    with one_store(events) as store:
        found = store.page("/").values["families"]
        whole = {each.family: each for each in store.questions.families(Choice(since=NOON - timedelta(days=1)))}

    assert [(each.family[0], each.count, each.final, each.tasks) for each in found] == [  # type: ignore[attr-defined]
        ("a", 3, 2, ["A", "B", "C"]),
        ("b", 1, 1, ["B"]),
    ]
    assert [each.last.run.run_id for each in found] == ["4", "3"]  # type: ignore[attr-defined]
    for each in found:  # type: ignore[attr-defined]
        same = whole[each.family]
        assert (same.count, same.final, same.tasks, same.last) == (each.count, each.final, each.tasks, each.last)
    assert (whole["a" * 16].total, whole["a" * 16].first_at) == (4, then)


def test_a_run_whose_end_was_not_reported_ended_with_its_last_report() -> None:
    """It is on the page about an earlier time, in the chart of the hours, and not on the page about a later day."""
    events = [_begun("r", time=NOON - timedelta(minutes=50)), _lost("r", time=NOON - timedelta(minutes=5))]

    with one_store(events) as store:
        (run,) = store.questions.runs(Choice())
        hours = store.questions.activity(Choice(), NOON, 2).hours
        then = store.page(f"/?at={(NOON - timedelta(minutes=20)).isoformat()}".replace("+", "%2B")).values
        later = store.questions.runs_between(NOON, NOW)

    assert (run.state, run.ended_at) == (State.FAILED, None)
    assert [hour.ended for hour in hours] == [{State.FAILED: 1}, {}]
    assert [each.stored.run.run_id for each in then["runs"]] == ["r"]  # type: ignore[attr-defined]
    assert later == []


def test_a_report_at_the_very_time_is_part_of_the_past() -> None:
    """As in the fold of the reports that are not later."""
    with one_store([started("A", time=NOON)]) as store:
        values = store.page(f"/?at={NOON.isoformat()}".replace("+", "%2B")).values

    assert values["running_runs"] == 1


def test_what_went_on_is_in_a_cut_past_before_what_had_ended() -> None:
    """A long run began before all runs that are left out."""
    events = [_begun("long", time=NOON - timedelta(hours=3))]
    for number in range(101):
        began = NOON - timedelta(minutes=number + 2)
        ended = began + timedelta(minutes=1)
        events += [started("A", time=began, run_id=f"{number}"), finished("A", time=ended, run_id=f"{number}")]
        events.append(make(WorkflowFailed, None, time=ended, ended_at=ended, run_id=f"{number}"))

    with one_store(events) as store:
        values = store.page(f"/?at={NOON.isoformat()}".replace("+", "%2B")).values

    assert values["cut_to"] == 100
    assert [each.stored.run.run_id for each in values["runs"]] == ["long"]  # type: ignore[attr-defined]


def test_the_past_is_what_the_store_still_has_of_it() -> None:
    """An alarm that was withdrawn later is missing, and the page says that. Its numbers are no links to the present."""
    present = datetime.now(UTC)
    at = present - timedelta(minutes=2)
    events = [_begun("r", time=at), _alarm("r", time=at, sequence=2)]
    address = f"/?at={at.isoformat()}".replace("+", "%2B")

    with one_store(events, now=present) as store:
        before = store.page(address, now=present).values["late_count"]
        store.add(_alarm("r", time=present, sequence=3, withdrawn=True))
        after = store.page(address, now=present).values["late_count"]
        html, of_present = store.html(address), store.html("/")

    assert (before, after) == (1, 0)
    assert "The store has no alarm of then." in html
    assert "An alarm that was renewed or withdrawn later is missing here." in html
    assert "Progress and alarms are missing where a later report has replaced them" in html
    assert 'href="/runs?state=' not in html
    assert 'href="/runs?state=running"' in of_present


def test_a_time_of_the_future_is_refused() -> None:
    """What follows from the reports of the future is not known."""
    later = (NOW + timedelta(seconds=1)).isoformat()
    with one_store([]) as store, pytest.raises(PageError, match="expected a time that is not later than now"):
        store.page(f"/?at={later}".replace("+", "%2B"))
