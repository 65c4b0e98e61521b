"""
The world of a simulated consumer: what survives the end of its process.

Not here: the process (testing.simulation.process), and the bus (simulated_bus).
"""

import importlib.util
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.testing.fixed import FixedClock
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
    line_of,
)
from dkist_processing_core.testing.simulation.simulated_bus import SimulatedBus


class RefusedError(ConnectionError):
    """The outside world has refused an effect, and it did not happen."""


class World:
    """
    What a consumer uses, and what is there when it starts again.

    Attributes:
        folder: A folder for files, such as a database.
        inbox: The address of an inbox in this folder, for `Consumer(…, inbox=world.inbox)`.
        clock: The clock of the simulation: a function that gives seconds since 1970, with its time as `clock.now`.
        bus: The bus.
        effects: What the outside world has received, by `effect`.
        starts: How often the process was started.
    """

    def __init__(self, folder: Path, history: Sequence[Action], begin: FixedClock) -> None:
        """Begin at a time, without any effect."""
        self.folder = folder
        self.inbox = f"sqlite:///{folder / 'inbox.db'}"
        self.clock = begin
        self.random = random.Random(0)  # noqa: S311 - a repeated simulation has the same numbers
        self.bus = SimulatedBus(begin, self.advance, self.random)
        self.effects: list[Any] = []
        self.starts = 0
        self.has_inbox = False
        """Whether the program is a `Consumer`, of which a history takes more time."""
        self.happened: list[str] = []
        """What has happened, in lines for a person."""
        self._history = list(history)
        self.bus.may_drop = any(isinstance(action, Lose) for action in history)
        self._position = 0
        self._refused_after: int | None = None
        self.has_second = False
        """Whether a second process of the consumer runs beside the first one."""
        self.statements = 0
        """How many statements and commits the processes have sent to the inbox's database."""
        self._outage: range | None = None

    @property
    def position(self) -> int:
        """The number of actions that have happened."""
        return self._position

    @property
    def has_ended(self) -> bool:
        """Whether all of the history has happened."""
        return self._position == len(self._history)

    def effect(self, *what: Any) -> None:
        """
        Have an effect outside: a mail, a request, a line on a screen. It cannot be taken back.

        Raises:
            RefusedError: The outside world is not available now; the effect did not happen.
        """
        shown = ", ".join(map(str, what))
        self.bus.steps.take(f"effect {shown}")
        if self._refused_after is not None:
            self._refused_after -= 1
            if self._refused_after < 0:
                self._refused_after = None
                self.happened.append(f"    refused: {shown}")
                raise RefusedError("the outside world is not available")
        self.effects.append(what[0] if len(what) == 1 else what)
        self.happened.append(f"    effect: {shown}")

    def use_database(self) -> None:
        """
        Count a statement or a commit of a process in the inbox's database.

        Raises:
            InboxUnavailableError: The database refuses it, as a full or a locked one does.
        """
        self.statements += 1
        if self._outage is not None and self.statements in self._outage:
            raise InboxUnavailableError("the inbox of the simulation cannot be used now")

    def load(self, module: str) -> ModuleType:
        """
        Return a module as a new process has it: executed again, with new global variables.

        Raises:
            ModuleNotFoundError: There is no such module.
        """
        spec = importlib.util.find_spec(module)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"no module named {module!r}", name=module)
        made = importlib.util.module_from_spec(spec)
        before = sys.modules.get(module)
        sys.modules[module] = made
        try:
            spec.loader.exec_module(made)
        finally:
            if before is None:
                del sys.modules[module]
            else:
                sys.modules[module] = before
        return made

    def advance(self) -> bool:  # noqa: C901 - one case per action
        """Let the next action happen that the consumer may notice, and return True; False at the end of the history."""
        while not self.has_ended:
            action = self._history[self._position]
            self._position += 1
            self.happened.append(f"  {line_of(action)}")
            match action:
                case Deliver(event) | Repeat(event):
                    self.bus.deliver(event)
                    return True
                case Lose(event):
                    self.bus.deliver(event, is_dropped=True)
                    return True
                case Wait(seconds):
                    self.clock.advance(seconds)
                    return True
                case Kill():
                    self.bus.steps.trail.kill(action)
                case Stop(count):
                    # It takes no further step; what it is about to receive now goes back to the queue.
                    self.bus.steps.is_dead = True
                    for _ in range(count):
                        self.advance()
                    return True
                case Refuse(skipped):
                    self._refused_after = skipped
                case Outage(skipped, refused):
                    begin = self.statements + skipped + 1
                    self._outage = range(begin, begin + refused)
                case Join():
                    self.has_second = True
        return False

    @property
    def facts(self) -> list[Event]:
        """All reports of the history, each once, in the order in which they were made."""
        events = {id(action.report): action.report for action in self._history if isinstance(action, Deliver | Lose)}
        return sorted(events.values(), key=lambda event: event.time)
