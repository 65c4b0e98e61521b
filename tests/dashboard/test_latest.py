"""
What a page looks at in a large store: the latest failures, and the runs that were reported last.
"""

from datetime import UTC, datetime, timedelta

import pytest

from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.events import Event
from tests.dashboard.one_store import OneStore, one_store
from tests.facts import NOON, failed, finished

_RUNS = 20
_FAMILIES = ("a" * 16, "b" * 16)


def _reports(until: datetime = NOON) -> list[Event]:
    """
    Return the reports on runs of which each fails once, one in each of the last minutes, in two families by turns.
    """
    return [
        failed(
            "A",
            run_id=f"run-{number:08}",
            time=until - timedelta(minutes=_RUNS - number),
            cause=("exception", "signal")[number % 2],
            fingerprint=_FAMILIES[number % 2],
        )
        for number in range(_RUNS)
    ]


class _Few(Questions):
    """
    Questions that look at few failures and runs.
    """

    def latest_failures(self, choice: Choice, most: int = 3) -> Choice:
        """
        Return the choice of few failures.
        """
        return super().latest_failures(choice, most)

    def latest_runs(self, choice: Choice, most_runs: int = 4, most_failures: int = 3) -> Choice:
        """
        Return the choice of few runs.
        """
        return super().latest_runs(choice, most_runs, most_failures)


def _look_at_few(store: OneStore) -> None:
    store.questions.__class__ = _Few


@pytest.mark.parametrize("choice", [Choice(), Choice(family=_FAMILIES[0]), Choice(cause="signal")])
def test_the_latest_failures_are_those_of_the_choice(choice: Choice) -> None:
    """There are about as many as wanted, whatever others there are; a later beginning that was chosen remains."""
    with one_store(_reports()) as store:
        all_of_them = store.questions.failures(choice)
        latest = store.questions.latest_failures(choice, 3)
        found = store.questions.failures(latest)
        same = store.questions.latest_failures(choice, _RUNS)
        later = Choice(since=NOON - timedelta(seconds=90), family=choice.family, cause=choice.cause)
        kept = store.questions.latest_failures(later, 3)

    assert found == all_of_them[:4]
    assert same == choice
    assert kept == later


def test_a_text_is_looked_for_in_the_runs_that_were_reported_last() -> None:
    """A run of any age is found by the end of its id, with eight characters or more; a time leads to other runs."""
    with one_store(_reports()) as store:
        _look_at_few(store)
        texts = {"run": 5, "00000019": 1, "000000": 5, "00000003": 1, "RUN-00000003": 1, "x00000003": 0, "0003": 0}
        found = {text: store.page(f"/runs?q={text}").values["total"] for text in texts}
        earlier = store.page(f"/runs?q=0003&until={(NOON - timedelta(minutes=16)):%Y-%m-%dT%H:%M:%SZ}").values

    assert found == texts
    assert earlier["total"] == 1


def test_the_cause_of_runs_is_looked_for_in_the_latest_failures() -> None:
    """A run that went on after an early failure is found by a later one alone."""
    reports = [*_reports(), finished("A", run_id="run-00000001", time=NOON, attempt=2)]
    with one_store(reports) as store:
        everything = store.questions.runs(Choice(cause="signal"))
        latest = store.questions.latest_runs(Choice(cause="signal", since=NOON - timedelta(hours=1)), 4, 3)
        found = store.questions.runs(latest)

    assert len(everything) == _RUNS / 2
    assert [run.run.run_id[-2:] for run in found] == ["19", "17", "15", "13"]


@pytest.mark.parametrize(
    ("address", "remark"),
    [
        ("/runs?q=run", "The text was searched in the runs with a report since"),
        ("/runs?cause=signal", "The cause was searched in the failures since"),
        ("/failures?since=ever", "Only the latest failures are counted"),
        (f"/failures?family={_FAMILIES[0]}", "Only the latest failures are counted"),
        ("/workflow?name=W", "Only the latest failures are counted"),
    ],
)
def test_a_page_states_since_when_it_looks_at_failures_and_runs(address: str, remark: str) -> None:
    """A page that looks at all of them has no such sentence."""
    now = datetime.now(UTC)
    with one_store(_reports(now), now=now) as store:
        whole = store.html(address)
        _look_at_few(store)
        part = store.html(address)

    assert remark in part
    assert remark not in whole


def test_a_family_of_a_workflow_has_its_first_failure_in_any_workflow() -> None:
    """Its number at any time is that of all workflows, and its number in the choice that of the workflow."""
    other = failed("A", workflow_name="other", time=NOON, fingerprint=_FAMILIES[0])
    with one_store([*_reports(), other]) as store:
        (family,) = store.questions.families(Choice(workflow="other"))

    assert (family.count, family.total) == (1, _RUNS // 2 + 1)
    assert family.first_at == NOON - timedelta(minutes=_RUNS)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/failures?workflow=quiet&since=ever", "No failure of this filter among the latest ones."),
        ("/workflow?name=quiet", "No failure of this workflow among the latest ones of all workflows."),
    ],
)
def test_a_page_does_not_claim_that_a_quiet_workflow_has_no_failure(address: str, words: str) -> None:
    """The latest failures may all be of others."""
    now = datetime.now(UTC)
    quiet = failed("A", workflow_name="quiet", time=now - timedelta(hours=1), fingerprint=_FAMILIES[0])
    with one_store([quiet, *_reports(now)], now=now) as store:
        whole = store.html(address)
        _look_at_few(store)
        part = store.html(address)

    assert words in part
    assert words not in whole
