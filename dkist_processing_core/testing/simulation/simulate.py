"""
A consumer is simulated: run through many histories, and compared with what it should have done.

Not here: the histories (testing.simulation.machine) and the processes (testing.simulation.process).
"""

import gc
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from dkist_processing_core.errors import ExtraMissingError
from dkist_processing_core.events import Event
from dkist_processing_core.testing.fixed import FixedClock
from dkist_processing_core.testing.simulation.history import Action, Deliver
from dkist_processing_core.testing.simulation.process import Start, StuckError, live_through
from dkist_processing_core.testing.simulation.program import ALL_FAULTS, DELAYS, FAULTS, Order, actions_of, with_places
from dkist_processing_core.testing.simulation.shortening import shortest
from dkist_processing_core.testing.simulation.world import World

# Each drawn history is played as it is, and then with one more fault: at random, few would meet the step that matters.
_KILLS = 3
_STOPS = 3
_REFUSED = 8
_STOPPED_AFTER = 20
_PLAYS = 1 + _KILLS + 2
_TRIALS, _TRIALS_WITH_INBOX = 400, 100
_A_DAY = Order("delay", (len(DELAYS) - 1,))
_THE_REST, _ALL_AGAIN = Order("deliver", (1000,)), Order("repeat", (1000,))
_SEEDS = 2**32


class SimulationFailedError(AssertionError):
    """A history after which a consumer has not done what it should; the message shows the shortest one."""


def effects_of(world: World) -> list[Any]:
    """Return the effects in the outside world, in an order of their own: most consumers promise none."""
    return sorted(world.effects, key=repr)


def simulate(
    start: Start,
    *,
    expected: Callable[[Sequence[Event]], Any] | None = None,
    observed: Callable[[World], Any] = effects_of,
    events: Sequence[Event] | None = None,
    faults: Collection[str] = FAULTS,
    histories: int = 200,
    seed: int | None = None,
) -> None:
    """
    Run a consumer through many histories of reports and faults, and compare its effects with the expected ones.

    Args:
        start: The program, called with a `World` at each start of its process: the loop of a consumer itself, or a
            function that returns a `Consumer`. Variables outside of it are the outside world's, and survive a kill.
        expected: Gives what must be observed after the reports that have happened, each once and in order. By
            default it is what the same program leads to if nothing goes wrong.
        observed: Gives what is compared, such as the rows of a database in `world.folder`.
        events: The reports that happen; by default those of any runs.
        faults: What may go wrong: of `repeat`, `reorder`, `delay`, `kill` and `refuse`, which are the default, `drop`,
            by which a report is in the archive only, `stop`, by which the process is stopped for a day, in which the
            other reports reach the bus, and for a `Consumer` also `outage`, by which the database of its inbox refuses
            statements for a while, and `second`, by which two processes of it run, and one is killed.
        histories: How many histories are tried.
        seed: Repeats the histories of an earlier simulation, which has printed it.

    Raises:
        SimulationFailedError: A history leads to something else. It is the shortest one that was found.
        ValueError: A fault has another name.
        ExtraMissingError: A module that the extra `testing` installs is missing.
    """
    __tracebackhide__ = True
    try:
        from dkist_processing_core.testing.simulation.machine import draw_programs  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("testing", "a consumer is simulated", str(error.name)) from None
    if unknown := sorted(set(faults) - set(ALL_FAULTS)):
        raise ValueError(f"found the fault {unknown[0]!r}, expected some of {', '.join(ALL_FAULTS)}")
    number = secrets.randbelow(_SEEDS) if seed is None else seed
    # In memory, where there is such a file system: what a simulation writes need not survive the machine.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a private folder in it
    # Failures are part of the histories, and thousands of lines would hide the one that matters.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="dkist-core-simulation-", dir=memory) as folder:
            random = Random(number)  # noqa: S311 - it is to be repeated
            simulation = _Simulation(start, expected, observed, events, Path(folder), faults=faults, random=random)
            draw_programs(
                simulation.check,
                count=max(1, histories // _PLAYS),
                makes_runs=events is None,
                faults=faults,
                seed=number,
                random=random,
            )
            if simulation.failing is not None:
                found = simulation.shortened(simulation.failing)
                raise SimulationFailedError(f"{found}\nsimulate(…, seed={number}) repeats this") from None
    finally:
        logging.disable(before)
        gc.unfreeze()


class _Simulation:
    """One program under test, and the comparison of what its histories lead to."""

    def __init__(
        self,
        start: Start,
        expected: Callable[[Sequence[Event]], Any] | None,
        observed: Callable[[World], Any],
        events: Sequence[Event] | None,
        folder: Path,
        *,
        faults: Collection[str],
        random: Random,
    ) -> None:
        self._faults = faults
        self._random = random
        self._start = start
        self._expected = expected
        self._observed = observed
        self._events = events
        self._folder = folder
        self.failing: list[Order] | None = None
        """The first program that has shown a mistake."""

    def check(self, program: Sequence[Order]) -> bool:
        """Return False if a program shows a mistake, as it is or with one more fault."""
        return all(map(self._check_one, self._variants(program)))

    def _variants(self, program: Sequence[Order]) -> Iterator[Sequence[Order]]:
        """Yield a program, and then with one more fault each."""
        yield program
        effects, places = len(self._world.effects), self._world.bus.steps.trail.places
        steps = list(range(len(places)))
        if self._world.has_inbox:
            # Most steps are those of the inbox; those that matter come before a line of the program, or after its last.
            steps = [at for at, place in enumerate(places) if ", line " in place or place == "called"]
        if "kill" in self._faults:
            for at in self._random.sample(steps, min(_KILLS, len(steps))):
                yield [Order("kill", (at,)), *program]
        if "stop" in self._faults:
            begin = sum(order.name in ("happen", "end") for order in program)
            for _ in range(_STOPS):
                at = self._random.randint(begin, len(program))
                some = Order("deliver", (self._random.randrange(_STOPPED_AFTER),))
                yield [*program[:at], some, Order("stop", (len(DELAYS) - 1,)), *program[at:]]
        statements = self._world.statements
        if "second" in self._faults and statements:
            kills = [Order("kill", (at,)) for at in self._random.sample(range(len(places)), min(2, len(places)))]
            yield [Order("second"), *kills, *program]
        if "outage" in self._faults and statements:
            yield [Order("outage", (self._random.randrange(statements), self._random.randrange(_REFUSED))), *program]
        if "refuse" in self._faults and effects:
            yield [Order("refuse", (self._random.randrange(effects),)), *program]
        if "repeat" in self._faults:
            pause = [_A_DAY] if "delay" in self._faults else []
            yield [*program, _THE_REST, *pause, _ALL_AGAIN]

    def _check_one(self, program: Sequence[Order]) -> bool:
        if self._difference(program) is None:
            return True
        self.failing = self.failing or list(program)
        return False

    def shortened(self, failing: list[Order]) -> str:
        """Return the shortest history that shows a mistake, in lines for a person."""
        trials = _TRIALS_WITH_INBOX if self._world.has_inbox else _TRIALS
        found = self._difference(shortest(self._with_places(failing), self._shows, most_trials=trials))
        if found is not None:
            return found
        return (
            "the program did not do the same when a history was repeated: it depends on something outside of its "
            "world, such as a clock, a random number or a variable that survives its end"
        )

    def _with_places(self, failing: list[Order]) -> list[Order]:
        """Return a program whose kills are at places, if it shows a mistake as well: best the first time at each."""
        self._result_of(actions_of(failing, self._events))
        placed = with_places(failing, self._world.bus.steps.trail.killed)
        first = [order if order.place is None else replace(order, numbers=(0,)) for order in placed]
        return next(filter(self._shows, (first, placed)), failing)

    def _shows(self, program: Sequence[Order]) -> bool:
        return self._difference(program) is not None

    def _difference(self, program: Sequence[Order]) -> str | None:
        """Return what a program shows, in lines for a person; None if it shows no mistake."""
        history = actions_of(program, self._events)
        found = self._result_of(history)
        world = self._world
        if self._expected is not None:
            expected = self._expected(world.facts)
        else:
            expected = self._result_of([Deliver(event) for event in world.facts])
        if found == expected:
            return None
        lines = ["after this history the program has not done what it should:", *world.happened]
        return "\n".join([*lines, f"expected: {expected!r}", f"found:    {found!r}"])

    def _result_of(self, history: Sequence[Action]) -> Any:
        world = self._world = World(self._folder, history, FixedClock())
        try:
            live_through(self._start, world)
            return self._observed(world)
        except StuckError as stuck:
            return stuck
        finally:
            for path in self._folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
