"""
Tests of the short ids of runs: short, unambiguous, and found again.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.errors import IdentityError
from dkist_processing_core.identity.short_ids import LEAST_TYPED, SHORT, ShortIds, named_run, names_run
from tests.strategies import texts

LOCAL = "local__3__20261129T020544Z__8bf54b12"


def run_ids() -> st.SearchStrategy[list[str]]:
    """
    Return a strategy for the ids of several runs, many of which end alike.
    """
    heads = st.sampled_from(["", "local__1__20261129T020544Z__", "manual__2026-11-29T02:05:44.123456+00:00_", "8bf5"])
    ends = st.sampled_from(["8bf54b12", "4b12", "b12", "2026-11-29T00:00:00+00:00", "+00:00", "__", "x", "X"])
    composed = st.tuples(heads, ends).map("".join)
    return st.lists(st.one_of(composed, texts(30), texts(3)), min_size=1, max_size=8, unique=True)


@pytest.mark.parametrize(
    ("run_id", "expected"),
    [
        (LOCAL, "8bf54b12"),
        ("hand__1__20261129T020544Z__12345678", "12345678"),
        ("manual__2026-11-29T02:05:44.123456+00:00_Ab12Cd34", "Ab12Cd34"),
        ("manual__2026-11-29T02:05:44.123456+00:00", "44123456"),
        ("scheduled__2026-11-29T00:00:00+00:00", "20261129T000000"),
        ("550e8400-e29b-41d4-a716-446655440000", "55440000"),
        ("nightly_2", "nightly2"),
        ("r-1", "r-1"),
    ],
)
def test_a_short_id_is_the_part_of_an_id_that_differs(run_id: str, expected: str) -> None:
    """
    It is what the engine drew at random, else the time, else the last characters; a very short id is whole.
    """
    assert ShortIds().of(run_id) == expected


@given(run_ids())
def test_a_short_id_names_its_run_among_all_that_were_read(ids: list[str]) -> None:
    """
    This holds for any ids, also where one is the end of another or differs only in punctuation.
    """
    short_ids = ShortIds(ids)

    assert [named_run(short_ids.of(run_id), ids) for run_id in ids] == ids
    assert len({short_ids.of(run_id) for run_id in ids}) == len(ids)


@given(run_ids())
def test_a_short_id_names_its_run_among_those_that_were_read_before(ids: list[str]) -> None:
    """
    An output that shows runs as they occur never changes a short id, and gives each of them another, up to whole ids.
    """
    short_ids = ShortIds()
    for number, run_id in enumerate(ids, 1):
        assert named_run(short_ids.of(run_id), ids[:number]) == run_id
    given_at_first = [short_ids.of(run_id) for run_id in ids]

    assert given_at_first == [short_ids.of(run_id) for run_id in ids]
    shortened = [short for short, run_id in zip(given_at_first, ids, strict=True) if short != run_id]
    assert len(set(shortened)) == len(shortened)


@given(run_ids())
def test_a_short_id_is_no_longer_than_needed_and_can_be_typed(ids: list[str]) -> None:
    """
    One character less would be ambiguous or unusually short; all are letters or digits, except in a whole id.
    """
    short_ids = ShortIds(ids)

    for run_id in ids:
        short = short_ids.of(run_id)
        assert short == run_id or (short.isalnum() and len(short) >= SHORT)
        if short != run_id and len(short) > 2 * SHORT:
            assert sum(names_run(short[1:], other) for other in ids) > 1


@given(
    ids=run_ids(), text=texts(12) | st.sampled_from(["8bf5", "8bf54b12", "4b12", "2026", "20261129T000000", "Z__8bf5"])
)
def test_a_text_never_names_another_run_silently(ids: list[str], text: str) -> None:
    """
    It names a run that it may name, or none; if it names several, the error lists at least two of them.
    """
    possible = [run_id for run_id in ids if names_run(text, run_id)]

    if text in ids or len(possible) <= 1:
        assert named_run(text, ids) == (text if text in ids else next(iter(possible), None))
        return
    try:
        assert named_run(text, ids) in possible
    except IdentityError as error:
        assert sum(f"({run_id})" in str(error) for run_id in possible) > 1  # noqa: PT017 - an error is one of two results


def test_a_beginning_of_a_short_id_is_tried_after_the_ends_of_ids() -> None:
    """
    A short id that was shown stays the name of its run, even if the short id of a later run begins with it.
    """
    other = "nightly_8bf54b12more"

    assert named_run("8bf5", ["hand__1", LOCAL]) == LOCAL
    assert named_run("8bf54b12", [other, LOCAL]) == LOCAL
    with pytest.raises(IdentityError, match="'8bf5' names 2 runs"):
        named_run("8bf5", [other, LOCAL])


@given(ids=run_ids(), text=st.text(max_size=LEAST_TYPED - 1))
def test_a_few_characters_are_only_a_whole_id(ids: list[str], text: str) -> None:
    """
    A recipe run id that is given by mistake names no run by accident.
    """
    assert named_run(text, ids) == (text if text in ids else None)


def test_an_id_in_capital_letters_names_its_run_unless_another_is_written_so() -> None:
    """
    People read an id aloud; of two ids that differ only in case, each names its own run.
    """
    assert named_run("8BF54B12", [LOCAL]) == LOCAL
    assert named_run("8BF5", [LOCAL]) == LOCAL
    assert named_run("NIGHT", ["run_night", "run_NIGHT"]) == "run_NIGHT"


def test_an_ambiguous_text_is_answered_with_the_runs_to_choose_from() -> None:
    """
    The message has the short and the whole id of each.
    """
    other = "local__1__20261129T020540Z__c3714b12"

    with pytest.raises(IdentityError) as caught:
        named_run("4b12", [LOCAL, other])

    assert str(caught.value) == (
        f"'4b12' names 2 runs, expected one; give more of the id: 8bf54b12 ({LOCAL}), c3714b12 ({other})"
    )
