"""
The task's side of its line to the launcher: two descriptors that it has inherited.

Not here: the launcher's side (launcher), and what is told (lifecycle).
"""

import contextlib
import json
import os
import select
from typing import Any

ORDERED = 1 << 32
"""What the launcher adds to the counter of an eventfd(2) when it passes an order to end on; the start adds 1."""
# The launcher loads as much as the task does, and side by side with it.
_START_SECONDS = 0.3
# For how long the pipe of a launcher that was killed may still be open: its threads end one after the other.
_DYING_SECONDS = 0.5


class LauncherLine:
    """What a task says to its launcher, and hears from it; nothing of it raises, or waits for long."""

    def __init__(self, report_fd: int, started_fd: int | None) -> None:
        """Take the descriptors, and note what they are: an author may close them, and open others of their numbers."""
        self._report = _Descriptor(report_fd)
        self._started = None if started_fd is None else _Descriptor(started_fd)
        self._is_awaited = False

    def tell(self, facts: dict[str, Any]) -> bool:
        """Tell the launcher, and return whether there is one that could hear it: a pipe says when nobody does."""
        with contextlib.suppress(OSError):
            if self._report.is_same:
                os.write(self._report.number, json.dumps(facts).encode() + b"\n")
                return True
        return False

    def lives_on(self) -> bool:
        """Say whether whoever was told hears it: who has passed an order on, or is still there in a moment."""
        if self.has_passed_on_an_order:
            return True
        with contextlib.suppress(OSError):
            dying = select.poll()
            dying.register(self._report.number, 0)  # POLLERR, which comes unasked: nobody reads any more
            return not dying.poll(_DYING_SECONDS * 1000)
        return False

    def await_start(self) -> None:
        """Let the launcher put the start into the journal before anything else is, unless that takes it too long."""
        if not self._is_awaited and self._started is not None:
            self._is_awaited = True
            with contextlib.suppress(OSError):
                waiting = select.poll()
                waiting.register(self._started.number, select.POLLIN)
                waiting.poll(_START_SECONDS * 1000)

    @property
    def has_passed_on_an_order(self) -> bool:
        """Whether the launcher has told the task to end; read once it has, it stays so."""
        with contextlib.suppress(OSError):
            if self._started is not None and self._started.is_same:
                count = os.eventfd_read(self._started.number)
                # It is a counter, which reading has set to 0.
                os.eventfd_write(self._started.number, count)
                return count >= ORDERED
        return False


class _Descriptor:
    """A descriptor, and what tells it from a later one of the same number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self.number)
        except (OSError, OverflowError):
            return None
        return found.st_dev, found.st_ino

    @property
    def is_same(self) -> bool:
        return self._identity is not None and self._look() == self._identity
