"""
The shortening of one value of an event, until it fits.

Not here: the order in which the values of an event are shortened (_kinds), and its size (event).
"""

from bisect import bisect
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from dkist_processing_core.events._kinds import Cut
from dkist_processing_core.text import CUT, clip

_BETWEEN_THREADS = "\n\n"
# The end of a stack shows where the error happened, and the last line of a log is the latest. Of all other texts, the
# beginning is the most informative.
_KEEPING_THE_END = (Cut.LOG, Cut.STACK)
_encode = msgspec.json.Encoder().encode


def shortened(value: Any, cut: Cut, fits: Callable[[Any], bool]) -> Any:
    """
    Return the most informative part of a value that `fits`; None if there is none.

    Of the threads of a stack, the first is returned even if it does not fit.
    """
    match value:
        case str() if cut is Cut.THREADS:
            return _with_fewer_threads(value, fits)
        case str():
            return clip(value, fits, keep_end=cut in _KEEPING_THE_END) or None
        case dict():
            # Of the states of tasks, those other than success are the most informative.
            items = sorted(value.items(), key=lambda item: item[1] == "success")
            return dict(items[: _most_that_fit(len(items), lambda count: fits(dict(items[:count])))])
        case tuple():
            while value and not fits(value):
                value = _halved(value)
            return value or None
    return None


def limited(value: Any, limit: int, cuts: Iterable[Cut]) -> Any:
    """Return the most informative part of a value that takes at most `limit` bytes; None if there is none."""
    for cut in cuts:
        value = shortened(value, cut, lambda part: size_of(part) <= limit)
    return value


def size_of(value: Any) -> int:
    """Return the bytes of a text in UTF-8, or of any other value in JSON."""
    return len(value.encode() if isinstance(value, str) else _encode(value))


def _most_that_fit(length: int, fits: Callable[[int], bool]) -> int:
    return bisect(range(1, length + 1), 0, key=lambda count: not fits(count))


def _with_fewer_threads(stack: str, fits: Callable[[str], bool]) -> str:
    """Return the stacks of as many threads as fit, the first in any case."""
    if fits(stack):
        return stack
    threads = stack.split(_BETWEEN_THREADS)

    def of(count: int) -> str:
        return _BETWEEN_THREADS.join([*threads[:count], CUT])

    return of(max(1, _most_that_fit(len(threads) - 1, lambda count: fits(of(count))))) if threads[1:] else stack


def _halved(points: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a profile with a point for two: at the later time, with the larger memory and the mean of the rates."""
    if len(points) == 1:
        return ()
    pairs = [points[place : place + 2] for place in range(0, len(points), 2)]
    return tuple(
        (
            pair[-1][0],
            max(point[1] for point in pair),
            *(sum(rate / len(pair) for rate in each) for each in list(zip(*pair, strict=True))[2:]),
        )
        for pair in pairs
    )
