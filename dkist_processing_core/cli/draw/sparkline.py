"""
A course of values over time as one line of characters.

Not here: the axis of time below it (draw.bars), and the values beside it (draw.course).
"""

import math
from collections.abc import Sequence


def sparkline(values: Sequence[tuple[float, float]], cells: int, levels: str) -> str:
    """
    Return the largest value of each cell's time as a character, in proportion to the largest of all.

    >>> sparkline([(1.0, 20.0), (2.0, 10.0), (3.0, 40.0), (4.0, 0.0)], 4, ".:-=")
    ':.=.'

    Args:
        values: Times after a start in seconds, each with the value of the time that ends then.
        cells: The number of characters, from the start until the last time.
        levels: The characters from the lowest level to the highest; the lowest is also that of zero.
    """
    if not values or cells < 1:
        return ""
    # A foreign publisher may have its points in any order.
    end, most = max(math.ulp(0.0), *(moment for moment, _ in values)), max(value for _, value in values)
    largest = [-1.0] * cells
    for moment, value in values:
        cell = min(cells - 1, max(0, math.ceil(moment / end * cells) - 1))
        largest[cell] = max(largest[cell], value)
    # A value holds since the time before it, so a cell without one has the next.
    for cell in range(cells - 2, -1, -1):
        if largest[cell] < 0:
            largest[cell] = largest[cell + 1]
    return "".join(levels[_level(value, most, len(levels))] for value in largest)


def _level(value: float, most: float, levels: int) -> int:
    return 0 if most <= 0 else min(levels - 1, max(0, math.ceil(value / most * levels) - 1))
