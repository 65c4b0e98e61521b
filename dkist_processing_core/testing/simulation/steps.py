"""
The steps of a simulated process, between which it can be killed: its own lines, and its calls of bus and world.

Not here: when it is killed (history), and what survives (world).
"""

import contextlib
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

_PACKAGE = str(Path(__file__).parents[2])
_LIBRARIES = tuple({_PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})


class KilledError(BaseException):
    """
    The simulated process is killed. It is no `Exception`, so that no handler of a consumer catches it.

    Bus and world raise it at each further call, since a killed process calls nothing.
    """


class Steps:
    """The steps of one process; counted, and the place at which it was killed."""

    def __init__(self, kills: Sequence[int] = ()) -> None:
        """Start at step 0, with the kills that the process before has not reached."""
        self.count = 0
        self.places: list[str] = []
        """Where the process has been: lines of its own, and calls of bus and world."""
        self.is_dead = False
        self._killed_at: int | None = None
        self._later: list[int] = []
        for steps in kills:
            self.kill_after(steps)

    def kill_after(self, steps: int) -> None:
        """Kill the process after some further steps; if a kill is ahead already, the process after it."""
        if self._killed_at is None:
            self._killed_at = self.count + steps
        else:
            self._later.append(steps)

    @property
    def kills_ahead(self) -> list[int]:
        """The kills that the process has not reached, each with the number of steps before it."""
        return [*([] if self._killed_at is None else [self._killed_at - self.count]), *self._later]

    def take(self, place: str) -> None:
        """
        Take a step.

        Raises:
            KilledError: The process is killed before it, or was killed earlier.
        """
        if self.is_dead:
            raise KilledError
        if self._killed_at is not None and self.count >= self._killed_at:
            self.is_dead, self._killed_at = True, None
            raise KilledError
        self.count += 1
        self.places.append(place)

    @property
    def place(self) -> str:
        """Where the process is; "" at its start."""
        return self.places[-1] if self.places else ""

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
