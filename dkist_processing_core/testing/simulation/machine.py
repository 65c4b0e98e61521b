"""
The programs of histories that Hypothesis draws, by its tests of state machines.

Not here: what a step of a program does (program).
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import ClassVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dkist_processing_core.testing.simulation.program import DELAYS, LIVES, RUNS, TASKS, Order

_RULES = 10
_MOST_STEPS = 40
_MOST_AT_ONCE = 8
_ENDING_RUNS = 0.6
# Most consumers have to do more when a task fails for good than otherwise.
_WEIGHTS = [3 if life.endswith("then fail") else 1 for life in LIVES]


class _FoundError(Exception):
    """A program shows a mistake: Hypothesis need not draw another."""


class History(RuleBasedStateMachine):
    """Its rules make a program, which is played at the end."""

    play: ClassVar[Callable[[Sequence[Order]], None]]
    makes_runs: ClassVar[bool]
    random: ClassVar[Random]
    faults: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        """Start with an empty program."""
        super().__init__()
        self.program: list[Order] = []

    @initialize()
    def happen(self) -> None:
        """Let some tasks have their attempts, and some runs end."""
        # Hypothesis prefers small numbers and those of earlier examples, and most tasks would have the simplest life.
        random = self.random
        if self.makes_runs:
            tasks = [(run, task) for run in range(RUNS) for task in range(len(TASKS))]
            for run, task in random.sample(tasks, random.randint(2, len(tasks))):
                self.program.append(Order("happen", (run, task, *random.choices(range(len(LIVES)), _WEIGHTS))))
            self.program += [Order("end", (run,)) for run in range(RUNS) if random.random() < _ENDING_RUNS]

    @rule(count=st.integers(0, _MOST_AT_ONCE))
    def deliver(self, count: int) -> None:
        """Deliver the oldest reports."""
        self.program.append(Order("deliver", (count,)))

    @precondition(lambda self: "reorder" in self.faults)
    @rule(at=st.integers(0, _MOST_AT_ONCE))
    def reorder(self, at: int) -> None:
        """Deliver a report before older ones."""
        self.program.append(Order("reorder", (at,)))

    @precondition(lambda self: "repeat" in self.faults)
    @rule(count=st.integers(0, _MOST_AT_ONCE))
    def repeat(self, count: int) -> None:
        """Deliver the last reports once more."""
        self.program.append(Order("repeat", (count,)))

    @precondition(lambda self: "drop" in self.faults)
    @rule(count=st.integers(0, _MOST_AT_ONCE))
    def drop(self, count: int) -> None:
        """Drop the oldest reports, which are in the archive only."""
        self.program.append(Order("drop", (count,)))

    @precondition(lambda self: "delay" in self.faults)
    @rule(which=st.integers(0, len(DELAYS) - 1))
    def delay(self, which: int) -> None:
        """Let time pass."""
        self.program.append(Order("delay", (which,)))

    @precondition(lambda self: "kill" in self.faults)
    @rule(steps=st.integers(0, _MOST_STEPS))
    def kill(self, steps: int) -> None:
        """Kill the process soon."""
        self.program.append(Order("kill", (steps,)))

    @precondition(lambda self: "refuse" in self.faults)
    @rule(skipped=st.integers(0, 2))
    def refuse(self, skipped: int) -> None:
        """Refuse an effect soon."""
        self.program.append(Order("refuse", (skipped,)))

    def teardown(self) -> None:
        """Play the program."""
        type(self).play(self.program)


def draw_programs(
    check: Callable[[Sequence[Order]], bool],
    *,
    count: int,
    makes_runs: bool,
    faults: Collection[str],
    seed: int,
    random: Random,
) -> None:
    """
    Draw programs until one shows a mistake.

    Args:
        check: Plays a program, and returns False if it shows a mistake.
        count: How many programs to draw at most.
        makes_runs: Whether programs make the reports that happen.
        faults: The names of what may go wrong.
        seed: Repeats the programs.
        random: Decides what happens in the runs.
    """

    def play(program: Sequence[Order]) -> None:
        if not check(program):
            raise _FoundError

    facts = {"play": staticmethod(play), "makes_runs": makes_runs, "faults": frozenset(faults), "random": random}
    machine = hypothesis.seed(seed)(type("History", (History,), facts))
    # Hypothesis plays a program again that shows a mistake, with another kill.
    with contextlib.suppress(_FoundError, Flaky):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=count,
                stateful_step_count=_RULES,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                verbosity=Verbosity.quiet,
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
