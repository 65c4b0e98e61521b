"""
A clock that a test sets, and ids in a known sequence.

Not here: the places that read them (process.sources).
"""

import contextlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Self

from dkist_processing_core.process.sources import sources_in_use

START = datetime(2026, 11, 22, 9, tzinfo=UTC)
"""The time that a fixed clock shows first."""


class FixedClock:
    """
    A clock that stands still until it is advanced.

    Called, it gives seconds since 1970, as `time.time` does: pass it where a `clock` is asked for. In a `with` block,
    the events of tasks that are called in this process have its time.
    """

    def __init__(self, at: datetime = START) -> None:
        """Start at a time."""
        self.now = at.astimezone(UTC)
        """The time that the clock shows, in UTC."""
        self._stack = contextlib.ExitStack()

    def __call__(self) -> float:
        """Return the time in seconds since 1970."""
        return self.now.timestamp()

    def advance(self, seconds: float) -> datetime:
        """Advance the clock, and return the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now

    def __enter__(self) -> Self:
        """Give events the time of this clock."""
        self._stack.enter_context(sources_in_use(now=lambda: self.now))
        return self

    def __exit__(self, *_: object) -> None:
        """Give events the time of the clock that was in use before."""
        self._stack.close()

    def __repr__(self) -> str:
        """Return the time that it shows."""
        return f"<{type(self).__name__}: {self.now.isoformat()}>"


class FixedIds:
    """
    Ids in a known sequence: `00000001`, `00000002` and so on.

    In a `with` block, they are the random parts of the ids of new runs.
    """

    def __init__(self) -> None:
        """Start at 1."""
        self._numbers = itertools.count(1)
        self._stack = contextlib.ExitStack()

    def __call__(self) -> str:
        """Return the next id."""
        return f"{next(self._numbers):08x}"

    def __enter__(self) -> Self:
        """Give new runs these ids."""
        self._stack.enter_context(sources_in_use(random_hex=self))
        return self

    def __exit__(self, *_: object) -> None:
        """Give new runs ids from the source that was in use before."""
        self._stack.close()
