"""
A program of a history: what happens in runs and what goes wrong, as steps that can be left out and made smaller.

Not here: how a program is drawn (machine), shortened (shortening) and played (testing.simulation.process).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkist_processing_core.events import Event
from dkist_processing_core.testing.fixed import FixedClock
from dkist_processing_core.testing.sample_run import SampleRun
from dkist_processing_core.testing.simulation.history import (
    Action,
    Deliver,
    Join,
    Kill,
    Lose,
    Outage,
    Refuse,
    Repeat,
    Stop,
    Wait,
)

FAULTS = ("repeat", "reorder", "delay", "kill", "refuse")
"""What goes wrong unless a simulation names its faults."""
ALL_FAULTS = (*FAULTS, "drop", "stop", "outage", "second")
TASKS = ("ParseL0", "Calibrate")
LIVES = (
    "succeed",
    "be skipped",
    "be doubted",
    "be lost",
    "fail, then succeed",
    "be killed, then succeed",
    "fail, then be doubted",
    "fail, then fail",
    "be killed, then fail",
)
"""What may happen to a task, attempt by attempt."""
_MAX_ATTEMPTS = 2
# Two workflows that an engine started at the same time have equal run ids.
_RUN_ID = "manual__2026-11-22T09:00:00+00:00"
_WORKFLOWS = ("l0_to_l1_visp", "l0_to_l1_vbi")
RUNS = len(_WORKFLOWS)


@dataclass(frozen=True, slots=True)
class Order:
    """One step of a program: its name and its numbers, each of which has its simplest value at 0."""

    name: str
    numbers: tuple[int, ...] = ()
    place: str | None = None
    """The place of a kill, whose number then counts the times that the process has been there before."""


class Runs:
    """The runs of a history: what happens in them is plausible, in whatever order it is asked for."""

    def __init__(self) -> None:
        """Start two runs without a report."""
        clock = FixedClock()
        self.runs = [
            SampleRun(name, tasks=TASKS, run_id=_RUN_ID, clock=clock, max_attempts=_MAX_ATTEMPTS) for name in _WORKFLOWS
        ]
        self._over: set[tuple[int, int]] = set()
        self._ended: set[int] = set()

    def happen(self, number: int, task: int, life: str) -> list[Event]:
        """Let all attempts of a task happen, unless they have, and return the reports on them."""
        run = self.runs[number]
        before = len(run.events)
        if number not in self._ended and (number, task) not in self._over:
            self._over.add((number, task))
            for attempt in life.split(", then "):
                _happen(run, TASKS[task], attempt)
        return run.events[before:]

    def end(self, number: int) -> list[Event]:
        """Let a run end, unless it has, and return the reports on that."""
        run = self.runs[number]
        before = len(run.events)
        if number not in self._ended:
            self._ended.add(number)
            run.end()
        return run.events[before:]


def _happen(run: SampleRun, task: str, attempt: str) -> None:
    match attempt:
        case "succeed":
            run.succeed(task)
        case "fail":
            run.fail(task)
        case "be killed":
            run.kill(task)
        case "be doubted":
            run.begin(task)
            run.doubt(task)
            run.finish(task)
        case "be skipped":
            run.skip(task)
        case "be lost":
            run.lose(task)


DELAYS = (1.0, 61.0, 86_400.0)


def with_places(program: Sequence[Order], kills: Sequence[Kill]) -> list[Order]:
    """Return a program with its kills at the places at which they were reached: other steps can then be left out."""
    reached = iter(kills)
    return [
        order
        if order.name != "kill" or (kill := next(reached, None)) is None or kill.place is None
        else Order("kill", (kill.steps - 1,), kill.place)
        for order in program
    ]


def actions_of(  # noqa: C901, PLR0912 - one case per step
    program: Sequence[Order], given: Sequence[Event] | None
) -> list[Action]:
    """
    Return the history that a program makes; at its end all reports have reached the bus.

    Args:
        program: The program. A step that is not possible at its place does nothing.
        given: The reports that happen; None lets the program make them.
    """
    runs = Runs()
    waiting: list[Event] = list(given or ())
    delivered: list[Event] = []
    actions: list[Action] = []

    def take(at: int) -> Event:
        delivered.append(waiting.pop(at))
        return delivered[-1]

    for order in program:
        match order.name, order.numbers:
            case "happen", (run, task, life):
                waiting += runs.happen(run, task, LIVES[life])
            case "end", (run,):
                waiting += runs.end(run)
            case "deliver", (count,):
                actions += [Deliver(take(0)) for _ in range(min(count + 1, len(waiting)))]
            case "reorder", (at,) if len(waiting) > 1:
                actions.append(Deliver(take(min(at + 1, len(waiting) - 1)), is_early=True))
            case "repeat", (count,):
                actions += [Repeat(event) for event in delivered[-1 - count :]]
            case "drop", (count,):
                actions += [Lose(take(0)) for _ in range(min(count + 1, len(waiting)))]
            case "delay", (which,):
                actions.append(Wait(DELAYS[which]))
            case "kill", (steps,):
                actions.append(Kill(steps) if order.place is None else Kill(steps + 1, order.place))
            case "stop", (which,):
                missed = [Deliver(take(0)) for _ in range(len(waiting))]
                actions += [Stop(len(missed) + 1), *missed, Wait(DELAYS[which])]
            case "refuse", (skipped,):
                actions.append(Refuse(skipped))
            case "outage", (skipped, refused):
                actions.append(Outage(skipped, refused + 1))
            case "second", ():
                actions.append(Join())
    return actions + [Deliver(event) for event in waiting]
