"""
The listening clock: how long the store has listened since a moment.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.watch.listening import Listening

_seconds = st.integers(0, 100).map(float)
_spans = st.lists(st.tuples(_seconds, _seconds).map(sorted).map(tuple), max_size=5)


def test_only_the_time_within_spans_counts() -> None:
    """Of the time since a moment, the gaps between spans do not count."""
    listening = Listening([(10.0, 20.0), (50.0, 60.0)])

    assert listening.until == 60.0
    assert [listening.seconds_since(moment) for moment in (0.0, 10.0, 15.0, 30.0, 55.0, 60.0, 70.0)] == [
        *(20.0, 20.0, 15.0, 10.0, 5.0, 0.0, 0.0)
    ]


def test_time_that_a_clock_shows_twice_counts_once() -> None:
    """A clock that was set back shows 40 to 60 again: what the second span does not reach yet is in the future."""
    before, after = Listening([(0.0, 60.0), (40.0, 45.0)]), Listening([(0.0, 60.0), (40.0, 90.0)])

    assert [before.until, before.seconds_since(30.0), before.seconds_since(50.0)] == [45.0, 15.0, 0.0]
    assert [after.until, after.seconds_since(30.0), after.seconds_since(50.0)] == [90.0, 60.0, 40.0]


def test_a_store_that_was_never_complete_has_not_listened() -> None:
    """Without a span there is no time of a judgement."""
    listening = Listening()

    assert listening.until is None
    assert listening.seconds_since(0.0) == 0.0


@given(spans=_spans, moment=_seconds)
def test_the_sum_is_that_of_the_seconds_in_a_span(spans: list[tuple[float, float]], moment: float) -> None:
    """Counted second by second, up to the end of the last span; no time counts twice, and none before the moment."""
    listening = Listening(spans)
    until = spans[-1][1] if spans else 0.0
    # A span that begins before an earlier one has ended replaces the rest of it.
    counted: set[int] = set()
    for since, end in spans:
        counted = {second for second in counted if second < since} | set(range(int(since), int(end)))

    assert listening.seconds_since(moment) == len([each for each in counted if moment <= each < until])
    assert listening.seconds_since(moment) <= max(0.0, until - moment)


@given(spans=_spans, first=_seconds, second=_seconds)
def test_an_earlier_moment_has_not_been_listened_to_for_less(
    spans: list[tuple[float, float]], first: float, second: float
) -> None:
    """The clock never runs backwards."""
    listening = Listening(spans)
    early, late = sorted([first, second])

    difference = listening.seconds_since(early) - listening.seconds_since(late)

    assert 0.0 <= difference <= late - early


@pytest.mark.parametrize("step", [-300.0, -5.0, 5.0, 300.0])
def test_a_changed_clock_adds_no_time(step: float) -> None:
    """A sign 20 seconds before the change, and 20 seconds of listening after it, are never more than 40 seconds."""
    spans = [(0.0, 1000.0), (1000.0 + step, 1020.0 + step)]

    assert Listening(spans).seconds_since(980.0) <= 40.0
