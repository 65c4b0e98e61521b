"""
The task's end of the pipes between a launched task and its launcher: two descriptors that it has inherited.

Not here: the launcher's end (launcher), and what is reported (_reporting).
"""

import contextlib
import json
import os
import select
from typing import Any

from dkist_processing_core import budget
from dkist_processing_core.descriptors import Held

STARTED, TERMINATION = b"s", b"t"
"""What the launcher writes when the start is in the journal, and when it forwards a termination request."""
_MOST_NOTICES = 4096


class ReportPipe:
    """The pipe on which a task reports to its launcher, and the one on which it receives; no method raises."""

    def __init__(self, report_fd: int, started_fd: int | None) -> None:
        """Take the descriptors, and note what they are: an author may close them, and open others of their numbers."""
        self._report_fd, self._report = report_fd, Held([report_fd])
        self._started_fd, self._started = started_fd, Held([] if started_fd is None else [started_fd])
        self._notices = b""
        self._is_awaited = False

    def write(self, report: dict[str, Any]) -> bool:
        """Write a report, and return whether a launcher can read it: a pipe that no process reads reports that."""
        with contextlib.suppress(OSError):
            if self._report.are_ours:
                os.write(self._report_fd, json.dumps(report).encode() + b"\n")
                return True
        return False

    def is_read(self) -> bool:
        """Return whether the launcher lives: it has forwarded a request, or still reads the pipe in a moment."""
        if self.has_forwarded_termination:
            return True
        with contextlib.suppress(OSError):
            if not self._report.are_ours:
                return False
            dying = select.poll()
            # POLLERR, which comes unasked: no process reads any more. The threads of a killed one end one by one.
            dying.register(self._report_fd, 0)
            return not dying.poll(budget.DYING_SECONDS * 1000)
        return False

    def await_start(self) -> None:
        """Wait until the launcher has put the start into the journal, which comes first, unless that takes too long."""
        if not self._is_awaited and self._started_fd is not None and self._started.are_ours:
            self._is_awaited = True
            if self._notices:
                return
            with contextlib.suppress(OSError):
                waiting = select.poll()
                waiting.register(self._started_fd, select.POLLIN)
                waiting.poll(budget.START_SECONDS * 1000)

    @property
    def has_forwarded_termination(self) -> bool:
        """Whether the launcher has forwarded a termination request; once it has, this stays so."""
        with contextlib.suppress(OSError):
            if self._started_fd is not None and self._started.are_ours:
                self._notices += os.read(self._started_fd, _MOST_NOTICES)
        return TERMINATION in self._notices
