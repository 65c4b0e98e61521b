"""
The task's ends of the two pipes between a launched task and its launcher: two inherited descriptors.

Not here: the launcher's end (launcher), and the content of the reports (_mode).
"""

import contextlib
import json
import os
import select
import time
from typing import Any

from dkist_processing_core import budget
from dkist_processing_core.process.descriptors import HeldDescriptors

STARTED, TERMINATION = b"s", b"t"
"""The bytes that the launcher writes when the start is in the journal, and when it forwards a termination request."""
_MOST_NOTICES = 4096


class ReportPipe:
    """The pipe on which a task reports to its launcher, and the pipe on which it receives notices; no method raises."""

    def __init__(self, report_fd: int, started_fd: int | None) -> None:
        """Store the descriptors and identities of the files: the author's code may close them and reuse the numbers."""
        self._report_fd, self._report = report_fd, HeldDescriptors([report_fd])
        self._started_fd, self._started = started_fd, HeldDescriptors([] if started_fd is None else [started_fd])
        self._notices = b""
        self._waited = 0.0

    def write(self, report: dict[str, Any]) -> bool:
        """Write a report and return True if a launcher can read it: writing fails on a pipe that no process reads."""
        with contextlib.suppress(OSError):
            if self._report.are_ours:
                os.write(self._report_fd, json.dumps(report).encode() + b"\n")
                return True
        return False

    def note(self, report: dict[str, Any]) -> None:
        """Write a report if that needs no wait: it describes the work of the author's code, which must not wait."""
        line = json.dumps(report).encode() + b"\n"
        with contextlib.suppress(OSError):
            ready = select.poll()
            ready.register(self._report_fd, select.POLLOUT)
            # With POLLOUT the pipe has room for so much: https://man7.org/linux/man-pages/man7/pipe.7.html
            if len(line) <= select.PIPE_BUF and ready.poll(0) == [(self._report_fd, select.POLLOUT)]:
                self.write(report)

    def is_read(self) -> bool:
        """Return True if the launcher lives: it has forwarded a request, or still has the pipe open after a moment."""
        if self.has_forwarded_termination:
            return True
        with contextlib.suppress(OSError):
            if not self._report.are_ours:
                return False
            dying = select.poll()
            # POLLERR, which poll always reports, means that no process reads any more. This waits, since the threads of
            # a killed launcher end one by one.
            dying.register(self._report_fd, 0)
            return not dying.poll(budget.DYING_SECONDS * 1000)
        return False

    def await_start(self, seconds: float) -> None:
        """
        Wait until the launcher has put the start into the journal, or has ended.

        Args:
            seconds: The limit on this wait and all earlier ones together.
        """
        if self._waited < seconds and not self._notices and self._started_fd is not None and self._started.are_ours:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                waiting = select.poll()
                waiting.register(self._started_fd, select.POLLIN)
                waiting.poll((seconds - self._waited) * 1000)
            self._waited += time.monotonic() - began

    @property
    def has_forwarded_termination(self) -> bool:
        """Whether the launcher has forwarded a termination request; once True, it stays True."""
        with contextlib.suppress(OSError):
            if self._started_fd is not None and self._started.are_ours:
                self._notices += os.read(self._started_fd, _MOST_NOTICES)
        return TERMINATION in self._notices
