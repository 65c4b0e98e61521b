"""
The warnings of a drainer about its outbox; each process logs each reason once.

Not here: the reasons themselves (bus, refusals).
"""

import logging
from collections.abc import Sized
from pathlib import Path

from dkist_processing_core.text import counted

_MAX_REASONS = 3
_DRAIN = "`dkist-core outbox drain`"
# For each outbox, the reasons that this process has logged, so that several publishers in turn log each only once.
_logged: dict[Path, set[str]] = {}
logger = logging.getLogger(__name__)


class OutboxWarnings:
    """The log lines of one drainer about the outbox at `path` and about the messages in memory."""

    def __init__(self, path: Path, in_memory: Sized) -> None:
        """Start with no message set aside."""
        self._path = path
        self._in_memory = in_memory
        self._set_aside = 0
        self._reasons: set[str] = set()

    def report_failure(self, reason: str) -> None:
        """Log why events are not delivered: once until the next recovery."""
        logged = _logged.setdefault(self._path, set())
        if reason not in logged:
            logged.add(reason)
            place = "memory" if len(self._in_memory) else self._path
            later = "" if len(self._in_memory) else f"; if no process publishes then, run {_DRAIN}"
            logger.warning("%s. Events are kept in %s until they can be delivered%s.", reason, place, later)

    def report_recovery(self, where: str) -> None:
        """Log that the bus can be reached again, if a failure was logged before."""
        if _logged.pop(self._path, None) is not None:
            logger.info("%s can be reached again", where)

    def report_waiting(self, count: int, reason: str) -> None:
        """Log how many messages are left in the outbox, unless this process has logged a reason before."""
        if self._path not in _logged:
            _logged[self._path] = {reason}
            verb = "waits" if count == 1 else "wait"
            logger.warning(
                "%s %s in %s: %s. The next publisher or %s delivers %s",
                counted(count, "event"),
                verb,
                self._path,
                reason,
                _DRAIN,
                "it" if count == 1 else "them",
            )

    def report_set_aside(self, seq: int, reason: str) -> None:
        """Log that a message was set aside; later messages with the same reason are only counted."""
        self._set_aside += 1
        if reason not in self._reasons and len(self._reasons) < _MAX_REASONS:
            self._reasons.add(reason)
            logger.warning("message %s of %s is set aside: %s", seq, self._path, reason)

    def report_total(self) -> None:
        """Log how many messages were set aside, if not each of them was logged."""
        if self._set_aside > len(self._reasons):
            logger.warning(
                "%s messages are set aside in %s; `dkist-core outbox list --set-aside` lists the reasons",
                self._set_aside,
                self._path,
            )
