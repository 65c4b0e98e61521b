"""
The task's side of its line to the launcher: two descriptors that it has inherited.

Not here: the launcher's side (launcher), and what is told (lifecycle).
"""

import contextlib
import json
import os
import select
from typing import Any

from dkist_processing_core.descriptors import Held

STARTED, ORDERED = b"s", b"t"
"""What the launcher writes when the start is in the journal, and when it passes a termination request on."""
_MOST_NOTICES = 4096
# The launcher loads as much as the task does, and side by side with it.
_START_SECONDS = 0.3
# For how long the pipe of a launcher that was killed may still be open: its threads end one after the other.
_DYING_SECONDS = 0.5


class LauncherLine:
    """What a task says to its launcher, and hears from it; nothing of it raises, or waits for long."""

    def __init__(self, report_fd: int, started_fd: int | None) -> None:
        """Take the descriptors, and note what they are: an author may close them, and open others of their numbers."""
        self._report_fd, self._report = report_fd, Held([report_fd])
        self._started_fd, self._started = started_fd, Held([] if started_fd is None else [started_fd])
        self._notices = b""
        self._is_awaited = False

    def tell(self, facts: dict[str, Any]) -> bool:
        """Tell the launcher, and return whether there is one that could hear it: a pipe says when nobody does."""
        with contextlib.suppress(OSError):
            if self._report.are_ours:
                os.write(self._report_fd, json.dumps(facts).encode() + b"\n")
                return True
        return False

    def lives_on(self) -> bool:
        """Say whether whoever was told hears it: who has passed an order on, or is still there in a moment."""
        if self.has_passed_on_an_order:
            return True
        with contextlib.suppress(OSError):
            if not self._report.are_ours:
                return False
            dying = select.poll()
            dying.register(self._report_fd, 0)  # POLLERR, which comes unasked: no process reads any more
            return not dying.poll(_DYING_SECONDS * 1000)
        return False

    def await_start(self) -> None:
        """Let the launcher put the start into the journal before anything else is, unless that takes it too long."""
        if not self._is_awaited and self._started_fd is not None and self._started.are_ours:
            self._is_awaited = True
            if self._notices:
                return
            with contextlib.suppress(OSError):
                waiting = select.poll()
                waiting.register(self._started_fd, select.POLLIN)
                waiting.poll(_START_SECONDS * 1000)

    @property
    def has_passed_on_an_order(self) -> bool:
        """Whether the launcher has told the task to end; read once it has, it stays so."""
        with contextlib.suppress(OSError):
            if self._started_fd is not None and self._started.are_ours:
                self._notices += os.read(self._started_fd, _MOST_NOTICES)
        return ORDERED in self._notices
