"""
The coordinates of small charts: all within their box, in proportion to the counts.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.dashboard.drawing.columns import columns, shares

_counts = st.dictionaries(st.sampled_from(["failed", "finished", "running"]), st.integers(0, 10**9), max_size=3)


@given(st.lists(_counts, max_size=48))
def test_columns_are_within_their_box_and_in_their_order(counts: list[dict[str, int]]) -> None:
    """
    No column leaves the chart or another column's place, and the highest one has the whole height.
    """
    chart = columns(counts)

    assert len(chart.bars) == sum(1 for each in counts for count in each.values() if count)
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= chart.width + 0.01
        assert -0.01 <= bar.y <= bar.y + bar.height <= chart.height + 0.01
    assert [bar.x for bar in chart.bars] == sorted(bar.x for bar in chart.bars)
    assert chart.largest == max((sum(each.values()) for each in counts), default=0)
    if chart.largest:
        assert min(bar.y for bar in chart.bars) == pytest.approx(0, abs=0.01)


@given(_counts)
def test_shares_fill_the_bar_without_overlap(counts: dict[str, int]) -> None:
    """
    The parts follow each other from the left to the right end.
    """
    bar = shares(counts)
    ends = [0.0, *(part.x + part.width for part in bar.bars)]

    assert [part.x for part in bar.bars] == pytest.approx(ends[:-1], abs=0.01)
    assert ends[-1] == pytest.approx(bar.width if any(counts.values()) else 0, abs=0.01)
