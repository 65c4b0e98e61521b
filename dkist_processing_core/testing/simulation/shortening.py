"""
The shortest program that still shows a mistake: steps are left out and numbers made smaller, as long as it does.

Hypothesis can do the same, but needs minutes for it, since it draws each program anew. Not here: playing a program
(simulate).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dkist_processing_core.testing.simulation.program import Order

_Shows = Callable[[Sequence[Order]], bool]


def shortest(program: Sequence[Order], shows_it: _Shows, *, most_trials: int) -> list[Order]:
    """
    Return a program from which no step can be left out, and whose numbers cannot be smaller.

    Args:
        program: A program that shows the mistake.
        shows_it: Plays a program, and returns True if it shows it as well.
        most_trials: How many programs to play at most; the result may be longer then.
    """
    known: dict[tuple[Order, ...], bool] = {}

    def shows(shorter: Sequence[Order]) -> bool:
        key = tuple(shorter)
        if key not in known and len(known) < most_trials:
            known[key] = shows_it(shorter)
        return known.get(key, False)

    found, before = list(program), None
    while found != before:
        before = found
        found = _with_smaller_numbers(_with_fewer_steps(found, shows), shows)
    return found


def _with_fewer_steps(program: list[Order], shows: _Shows) -> list[Order]:
    size = len(program)
    while size:
        at = 0
        while at < len(program):
            shorter = program[:at] + program[at + size :]
            if shows(shorter):
                program = shorter
            else:
                at += size
        size //= 2
    return program


def _with_smaller_numbers(program: list[Order], shows: _Shows) -> list[Order]:
    for at, order in enumerate(program):
        for place, number in enumerate(order.numbers):
            for smaller in dict.fromkeys((0, number // 2, number - 1)):
                simpler = replace(order, numbers=(*order.numbers[:place], smaller, *order.numbers[place + 1 :]))
                if 0 <= smaller < number and shows([*program[:at], simpler, *program[at + 1 :]]):
                    return [*program[:at], simpler, *program[at + 1 :]]
    return program
