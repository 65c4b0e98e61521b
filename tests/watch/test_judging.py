"""
The judge: which alarms it raises, withdraws and leaves, for single facts and for any.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.collect.questions.watched import WatchedAttempt, WatchedRun
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import latest_alarms
from dkist_processing_core.watch.facts import Decision, Facts
from dkist_processing_core.watch.judging import about_attempts, about_runs
from dkist_processing_core.watch.listening import Listening
from tests.facts import NOON, make

RUN = Run("W", "1", "r", 1)
START = NOON.timestamp()
SIGN = START + 600.0
NUMBER_OF_SIGN, NUMBER_OF_START = 2000 * int(SIGN), 2000 * int(START)
IDLE = 3600.0


def attempt(**facts: Any) -> WatchedAttempt:
    """
    Return what the store knows of an attempt that runs, with a sample each 30 s; the clocks agree.
    """
    known: dict[str, Any] = {
        "max_attempts": 1,
        "is_open": True,
        "started_at": START,
        "last_sign_at": SIGN,
        "last_received_at": SIGN,
        "clock_difference": 0.0,
        "sample_interval": 30.0,
        "overdue_after_seconds": None,
        "duration_seconds": None,
        "alarms": (),
    }
    return WatchedAttempt(run=RUN, task_name="T", number=1, **known | facts)


def judged(watched: WatchedAttempt, seconds: float, learnt: float | None = None, since: float = 0.0) -> list[Decision]:
    """
    Return what is decided if the store has listened until `seconds` after the last sign, from `since` seconds after it.
    """
    listening = Listening([(SIGN + since if since else 0.0, SIGN + seconds)])
    return decided(watched, listening, {} if learnt is None else {("W", "T"): learnt})


def decided(watched: WatchedAttempt, listening: Listening, learnt: dict[tuple[str, str], float]) -> list[Decision]:
    """
    Return what is decided about one attempt.
    """
    return list(about_attempts(Facts([watched], [], listening, learnt)))


def alarm(sequence: int, exceeded: str = "silence", *, limit: float = 90.0) -> TaskOverdue:
    """
    Return an alarm about the attempt that the store knows; an odd number withdraws it.
    """
    facts = {"reported_by": "watcher", "limit_seconds": limit, "last_sign_at": NOON, "withdrawn": bool(sequence % 2)}
    return make(TaskOverdue, "T", sequence=sequence, exceeded=exceeded, **facts)


def numbers(decisions: list[Decision]) -> list[tuple[str | None, int, bool]]:
    """
    Return what distinguishes decisions.
    """
    return [(each.facts.get("exceeded"), each.sequence, "withdrawn" in each.facts) for each in decisions]


# Silence


@pytest.mark.parametrize(("seconds", "is_overdue"), [(89.0, False), (90.0, True), (900.0, True)])
def test_an_attempt_is_overdue_after_three_intervals_without_a_report(seconds: float, *, is_overdue: bool) -> None:
    """The number counts from the last sign, and the limit and the sign are stated."""
    found = judged(attempt(), seconds)

    last = NOON + timedelta(seconds=600)
    expected = {
        "task_name": "T",
        "attempt": 1,
        "max_attempts": 1,
        "exceeded": "silence",
        "sequence": NUMBER_OF_SIGN,
        "limit_seconds": 90.0,
        "last_sign_at": last,
    }
    assert found == ([Decision(RUN, TaskOverdue, expected)] if is_overdue else [])


def test_the_clock_of_a_host_has_no_influence_on_its_silence() -> None:
    """A host whose clock is five minutes ahead, or behind, is silent when no report was received."""
    skewed = [attempt(last_sign_at=SIGN + skew, started_at=START + skew) for skew in (-300.0, 300.0)]

    assert [len(judged(each, 89.0)) for each in skewed] == [0, 0]
    assert [len(judged(each, 91.0)) for each in skewed] == [1, 1]


def test_time_in_which_the_store_did_not_listen_does_not_count() -> None:
    """The watcher was stopped at the deadline: it waits for three intervals after it went on."""
    assert judged(attempt(), 170.0, since=100.0) == []
    assert len(judged(attempt(), 190.0, since=100.0)) == 1


@pytest.mark.parametrize("interval", [None, 0.0])
def test_an_attempt_that_announces_no_sample_has_no_limit_of_silence(interval: float | None) -> None:
    """An older launcher, or samples that are off."""
    assert judged(attempt(sample_interval=interval), 1e6) == []


@pytest.mark.parametrize("facts", [{"is_open": False}, {"last_sign_at": None, "last_received_at": None}])
def test_what_has_ended_or_gave_no_sign_yet_is_not_overdue(facts: dict[str, Any]) -> None:
    """A run closed otherwise closes its attempts; an attempt known by its engine alone is not judged."""
    assert judged(attempt(**facts), 1e6, learnt=1.0) == []


def test_a_store_that_does_not_listen_raises_no_alarm_and_withdraws() -> None:
    """A withdrawal needs no listening: the sign is there."""
    silent = attempt(alarms=(alarm(NUMBER_OF_SIGN - 2),), overdue_after_seconds=1.0)

    assert numbers(decided(silent, Listening(), {})) == [("silence", NUMBER_OF_SIGN - 1, True)]


# Alarms that are known


def test_an_alarm_is_raised_once_withdrawn_by_a_later_sign_and_raised_again() -> None:
    """A later silence is another alarm, with another number, after the withdrawal of the first."""
    earlier = NUMBER_OF_SIGN - 2000 * 30

    assert judged(attempt(alarms=(alarm(NUMBER_OF_SIGN),)), 95.0) == []
    assert numbers(judged(attempt(alarms=(alarm(earlier),)), 5.0)) == [("silence", earlier + 1, True)]
    assert judged(attempt(alarms=(alarm(earlier + 1),)), 5.0) == []
    assert numbers(judged(attempt(alarms=(alarm(earlier + 1),)), 95.0)) == [("silence", NUMBER_OF_SIGN, False)]
    assert numbers(judged(attempt(alarms=(alarm(earlier),)), 95.0)) == [
        ("silence", earlier + 1, True),
        ("silence", NUMBER_OF_SIGN, False),
    ]


def test_an_alarm_about_a_sign_that_this_store_has_not_received_stays() -> None:
    """Another watcher knew a later sign, when it raised the alarm or when it withdrew it."""
    for known in (alarm(NUMBER_OF_SIGN + 2000), alarm(NUMBER_OF_SIGN + 1)):
        assert judged(attempt(alarms=(known,), overdue_after_seconds=1.0), 95.0) == []


def test_an_end_of_the_launcher_withdraws_and_that_of_an_engine_does_not() -> None:
    """The end of an engine is no sign of life: the time of the last sign stays as it was."""
    closed = attempt(is_open=False, alarms=(alarm(NUMBER_OF_SIGN),))

    assert judged(closed, 95.0) == []
    assert numbers(judged(replace(closed, last_sign_at=SIGN + 91.0), 95.0)) == [("silence", NUMBER_OF_SIGN + 1, True)]


# Duration


def test_an_attempt_is_overdue_when_it_lasts_longer_than_the_limit_of_its_author() -> None:
    """Its samples show it: both times are by the clock of its host."""
    found = judged(attempt(overdue_after_seconds=599.0), 10.0)

    assert numbers(found) == [("duration", NUMBER_OF_START, False)]
    assert (found[0].facts["limit_seconds"], found[0].facts["last_sign_at"]) == (599.0, NOON + timedelta(seconds=600))
    assert judged(attempt(overdue_after_seconds=601.0), 10.0) == []


def test_an_attempt_without_samples_is_overdue_by_the_listening_clock() -> None:
    """After the limit, and the time that the report of an end takes to arrive."""
    quiet = attempt(last_sign_at=START, last_received_at=START, sample_interval=None, overdue_after_seconds=600.0)

    assert judged(quiet, 29.0) == []
    assert numbers(judged(quiet, 31.0)) == [("duration", NUMBER_OF_START, False)]
    # The clock of its host is 100 s behind.
    assert judged(replace(quiet, clock_difference=100.0), 31.0) == []


def test_the_limit_of_the_author_precedes_the_learnt_one() -> None:
    """The learnt one holds where the author gives none."""
    assert judged(attempt(overdue_after_seconds=1000.0), 10.0, learnt=10.0) == []
    assert [each.facts["limit_seconds"] for each in judged(attempt(), 10.0, learnt=10.0)] == [10.0]


def test_a_report_that_is_newer_than_the_judgement_proves_no_duration() -> None:
    """Its end may be in the part of the reports that follows it."""
    assert judged(attempt(overdue_after_seconds=599.0, last_received_at=SIGN + 20.0), 10.0, since=5.0) == []


def test_a_duration_is_reported_once_and_withdrawn_by_an_end_within_the_limit() -> None:
    """The end of a launcher or a task states the duration; one above the limit confirms the alarm."""
    known = attempt(overdue_after_seconds=100.0, alarms=(alarm(NUMBER_OF_START, "duration", limit=100.0),))
    ended = replace(known, is_open=False)

    assert judged(known, 10.0) == []
    assert judged(replace(ended, duration_seconds=101.0), 10.0) == []
    assert numbers(judged(replace(ended, duration_seconds=99.0), 10.0)) == [("duration", NUMBER_OF_START + 1, True)]


# Both


def test_an_attempt_that_is_silent_is_not_reported_for_its_duration_as_well() -> None:
    """When it gives a sign again, it is."""
    silent = attempt(overdue_after_seconds=100.0, alarms=(alarm(NUMBER_OF_SIGN),))

    assert numbers(judged(attempt(overdue_after_seconds=100.0), 95.0)) == [("silence", NUMBER_OF_SIGN, False)]
    assert judged(silent, 95.0) == []
    assert numbers(judged(replace(silent, alarms=(alarm(NUMBER_OF_SIGN - 2),)), 10.0)) == [
        ("silence", NUMBER_OF_SIGN - 1, True),
        ("duration", NUMBER_OF_START, False),
    ]


def test_an_attempt_that_is_late_is_reported_when_it_falls_silent_as_well() -> None:
    """The alarm of its duration does not hide that it died."""
    late = attempt(overdue_after_seconds=100.0, alarms=(alarm(NUMBER_OF_START, "duration", limit=100.0),))

    assert numbers(judged(late, 95.0)) == [("silence", NUMBER_OF_SIGN, False)]


def test_two_alarms_that_count_from_the_start_have_two_numbers() -> None:
    """It was silent from its start on and then lived: the alarm of its duration would have the id of that silence."""
    known = attempt(overdue_after_seconds=100.0, alarms=(alarm(NUMBER_OF_START + 1),))

    assert numbers(judged(known, 10.0)) == [("duration", NUMBER_OF_START + 2, False)]


# Runs


def idle(**facts: Any) -> WatchedRun:
    """
    Return what the store knows of a run in which no attempt runs.
    """
    known: dict[str, Any] = {"is_idle": True, "last_sign_at": SIGN, "last_received_at": SIGN, "alarm": None}
    return WatchedRun(run=RUN, **known | facts)


def alarm_of_run(sequence: int) -> WorkflowOverdue:
    """
    Return an alarm about the run that the store knows; an odd number withdraws it.
    """
    facts: dict[str, Any] = {"limit_seconds": IDLE, "last_sign_at": NOON, "withdrawn": bool(sequence % 2)}
    return make(WorkflowOverdue, reported_by="watcher", sequence=sequence, **facts)


def judged_run(watched: WatchedRun, seconds: float) -> list[Decision]:
    """
    Return what is decided about a run if the store has listened for `seconds` since its last report.
    """
    return list(about_runs(Facts(runs=[watched], listening=Listening([(0.0, SIGN + seconds)])), IDLE))


def test_a_run_that_runs_nothing_and_does_not_end_is_overdue() -> None:
    """After its limit, once."""
    last = NOON + timedelta(seconds=600)

    assert judged_run(idle(), IDLE - 1) == []
    expected = {"sequence": NUMBER_OF_SIGN, "limit_seconds": IDLE, "last_sign_at": last}
    assert judged_run(idle(), IDLE) == [Decision(RUN, WorkflowOverdue, expected)]
    assert judged_run(idle(alarm=alarm_of_run(NUMBER_OF_SIGN)), IDLE) == []
    assert judged_run(idle(is_idle=False), IDLE) == []


def test_the_alarm_about_a_run_is_withdrawn_by_a_later_report() -> None:
    """The run goes on, or it has ended."""
    known = alarm_of_run(NUMBER_OF_SIGN - 2)

    for is_idle in (True, False):
        assert numbers(judged_run(idle(alarm=known, is_idle=is_idle), 1.0)) == [(None, NUMBER_OF_SIGN - 1, True)]
    assert judged_run(idle(alarm=alarm_of_run(NUMBER_OF_SIGN - 1)), 1.0) == []


# Any facts

_times = st.integers(0, 40).map(lambda each: START + 15.0 * each)


@st.composite
def attempts(draw: st.DrawFn) -> WatchedAttempt:
    """
    Draw what a store may know of one attempt, with alarms that a watcher may have raised.
    """
    started_at, is_open = draw(st.none() | _times), draw(st.booleans())
    alarms = []
    if draw(st.booleans()):
        alarms.append(alarm(2000 * int(draw(_times)) + draw(st.booleans())))
    if started_at is not None and draw(st.booleans()):
        limit = draw(st.sampled_from([45.0, 300.0]))
        alarms.append(alarm(2000 * int(started_at) + draw(st.booleans()), "duration", limit=limit))
    return attempt(
        is_open=is_open,
        started_at=started_at,
        last_sign_at=draw(_times),
        last_received_at=draw(_times),
        clock_difference=draw(st.sampled_from([-300.0, 0.0, 300.0])),
        sample_interval=draw(st.sampled_from([None, 15.0, 30.0])),
        overdue_after_seconds=draw(st.sampled_from([None, 60.0, 300.0])),
        duration_seconds=None if is_open else draw(st.sampled_from([None, 50.0, 500.0])),
        alarms=tuple(alarms),
    )


def with_reports(watched: WatchedAttempt, decisions: list[Decision]) -> WatchedAttempt:
    """
    Return what the store knows when it has the reports about these decisions.
    """
    published = [make(each.event_class, reported_by="watcher", **each.facts) for each in decisions]
    events = [*watched.alarms, *(each for each in published if isinstance(each, TaskOverdue))]
    return replace(watched, alarms=tuple(latest_alarms(events)))


@given(watched=attempts(), seconds=st.integers(0, 40).map(lambda each: 15.0 * each))
def test_what_is_published_is_decided_once(watched: WatchedAttempt, seconds: float) -> None:
    """With its reports in the store, the same facts give no further decision; and no two decisions have one id."""
    listening = Listening([(START - 600.0, START + seconds)])
    found = decided(watched, listening, {})

    assert decided(with_reports(watched, found), listening, {}) == []
    assert len({each.sequence for each in found}) == len(found)
    assert all(("withdrawn" in each.facts) == bool(each.sequence % 2) for each in found)


@given(watched=attempts(), further=st.lists(_times, max_size=4), seconds=st.integers(0, 40))
def test_each_alarm_is_withdrawn_at_most_once_and_only_after_it_was_raised(
    watched: WatchedAttempt, further: list[float], seconds: int
) -> None:
    """Whatever signs follow: numbers of alarms do not repeat, and each withdrawal follows its alarm."""
    watched = replace(watched, alarms=())
    raised: set[tuple[str | None, int]] = set()
    withdrawn: set[tuple[str | None, int]] = set()
    until = START + 15.0 * seconds
    for sign in [None, *further]:
        if sign is not None:
            watched = replace(watched, last_sign_at=max(watched.last_sign_at or 0.0, sign), last_received_at=until)
        until += 60.0
        found = decided(watched, Listening([(0.0, until)]), {})
        for each in found:
            is_withdrawal = bool(each.sequence % 2)
            key = (each.facts["exceeded"], each.sequence - is_withdrawal)
            assert (key in raised) is is_withdrawal
            assert key not in withdrawn
            (withdrawn if is_withdrawal else raised).add(key)
        watched = with_reports(watched, found)

    assert len({number for _, number in raised}) == len(raised)


@given(watched=attempts(), seconds=st.integers(0, 40), lag=st.floats(0.0, 60.0))
def test_two_watchers_that_know_the_same_reports_agree(watched: WatchedAttempt, seconds: int, lag: float) -> None:
    """One has received them later and has listened for less: what both decide has equal numbers."""
    later = replace(watched, last_received_at=(watched.last_received_at or 0.0) + lag)
    listening = Listening([(START - 600.0, START + 15.0 * seconds)])
    found = [numbers(decided(each, listening, {})) for each in (watched, later)]
    one, other = ({(kind, withdrawn): number for kind, number, withdrawn in each} for each in found)

    assert other.keys() <= one.keys() | {("duration", False)}
    assert all(one[key] == other[key] for key in one.keys() & other.keys())
