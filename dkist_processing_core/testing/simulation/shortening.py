"""
The shortest program that still shows a mistake: steps are left out and numbers made smaller, as long as it does.

Hypothesis can do the same, but needs minutes for it, since it draws each program anew. Not here: playing a program
(simulate).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dkist_processing_core.testing.simulation.program import Order

_MOST_TRIALS = 1500


def shortest(program: Sequence[Order], shows_it: Callable[[Sequence[Order]], bool]) -> list[Order]:
    """
    Return a program from which no step can be left out, and whose numbers cannot be smaller.

    Args:
        program: A program that shows the mistake.
        shows_it: Plays a program, and returns True if it shows it as well.
    """
    found, trials = list(program), 0
    tried: set[tuple[Order, ...]] = set()
    while trials < _MOST_TRIALS:
        for shorter in _shorter(found):
            if tuple(shorter) in tried or trials == _MOST_TRIALS:
                continue
            tried.add(tuple(shorter))
            trials += 1
            if shows_it(shorter):
                found = shorter
                break
        else:
            break
    return found


def _shorter(program: list[Order]) -> Iterator[list[Order]]:
    """Yield programs with fewer steps, those with the fewest first, and then some with smaller numbers."""
    size = len(program)
    while size:
        for start in range(0, len(program) - size + 1, size):
            yield program[:start] + program[start + size :]
        size //= 2
    for at, order in enumerate(program):
        for place, number in enumerate(order.numbers):
            for smaller in dict.fromkeys((0, number // 2, number - 1)):
                if 0 <= smaller < number:
                    numbers = (*order.numbers[:place], smaller, *order.numbers[place + 1 :])
                    yield [*program[:at], replace(order, numbers=numbers), *program[at + 1 :]]
