"""
The steps of a simulated process, between which it can be killed: its own lines, and its calls of bus and world.

Not here: the kills of a history (history), and what survives (world).
"""

import contextlib
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from dkist_processing_core.testing.simulation.history import Kill

_PACKAGE = str(Path(__file__).parents[2])
_LIBRARIES = tuple({_PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})


class KilledError(BaseException):
    """
    The simulated process is killed. It is no `Exception`, so that no handler of a consumer catches it.

    Bus and world raise it at each further call, since a killed process calls nothing.
    """


class Trail:
    """Where the processes of a simulation have been, and the kills that are ahead."""

    def __init__(self) -> None:
        """Start without a step."""
        self.places: list[str] = []
        """Lines of the processes' own, and calls of bus and world."""
        self.killed: list[Kill] = []
        """The kills that were reached, each with its place."""
        self._ahead: list[Kill] = []
        # The steps after this one count for the first of them.
        self._counted_from = 0

    def kill(self, kill: Kill) -> None:
        """Kill the process when a kill is reached; if another is ahead already, the process after it."""
        if not self._ahead:
            self._counted_from = len(self.places)
        self._ahead.append(kill)

    def is_killed(self, place: str) -> bool:
        """Return True if the process, which is at a place, is killed now."""
        if not self._ahead or not self._is_reached(self._ahead[0], place):
            return False
        kill, times = self._ahead.pop(0), self._times_at(place)
        self.killed.append(Kill(times, place) if times else kill)
        self._counted_from = len(self.places)
        return True

    def _is_reached(self, kill: Kill, place: str) -> bool:
        if kill.place is None:
            return len(self.places) - self._counted_from >= kill.steps
        return place == kill.place and self._times_at(place) >= kill.steps

    def _times_at(self, place: str) -> int:
        return self.places[self._counted_from :].count(place)


class Steps:
    """The steps of one process."""

    def __init__(self, trail: Trail | None = None) -> None:
        """Start a process; its steps are added to the trail."""
        self.trail = trail or Trail()
        self.is_dead = False
        self._began_at = len(self.trail.places)

    def take(self, place: str) -> None:
        """
        Take a step.

        Raises:
            KilledError: The process is killed before it, or was killed earlier.
        """
        if self.is_dead or self.trail.is_killed(self.place):
            self.is_dead = True
            raise KilledError
        self.trail.places.append(place)

    @property
    def place(self) -> str:
        """Where the process is; "" at its start."""
        places = self.trail.places
        return places[-1] if len(places) > self._began_at else ""

    @contextlib.contextmanager
    def of_lines(self) -> Iterator[None]:
        """Make each line of the consumer's own code a step, in this thread and in those that it starts."""
        before, before_in_threads = sys.gettrace(), threading.gettrace()
        sys.settrace(self._trace)
        threading.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before_in_threads)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002 - as sys.settrace calls it
        return self._trace_line if is_own(frame.f_code.co_filename) else None

    def _trace_line(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002 - as above
        if event == "line":
            self.take(f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}")
        return self._trace_line


@lru_cache(maxsize=4096)
def is_own(filename: str) -> bool:
    """Return True for a file of the project that is tested: not of Python, of a library or of this package."""
    return not filename.startswith(("<", *_LIBRARIES))


def clear(error: BaseException) -> None:
    """Clear the variables of an ended process, which the traceback of its last exception refers to."""
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain.__traceback__ = None
        chain = chain.__context__
