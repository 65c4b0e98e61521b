"""
Warnings about a journal that cannot be written to: one for each cause and process.

Not here: warnings about the broker (outbox_warnings), and where messages are kept meanwhile (overflow).
"""

import logging
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.errors import JournalError, JournalFolderError
from dkist_processing_core.text import counted
from dkist_processing_core.text.internal_errors import log_internal_error_once

# Journals whose last write by this process failed, with the causes that it has logged. Other publishers of this process
# do not wait for these journals, and log no cause again.
_unusable: dict[Path, set[str]] = {}
logger = logging.getLogger(__name__)


class JournalWarnings:
    """The warnings of one publisher about its journal."""

    def __init__(self, journal: Path, *, reports_folder: Callable[[], bool]) -> None:
        """
        Store the path of the journal.

        Args:
            journal: The path of the journal.
            reports_folder: Returns False as long as another process of this run uses the same folder, and reports if it
                is not usable.
        """
        self._journal = journal
        self._reports_folder = reports_folder
        # The cause that another process reports, as long as it lives.
        self._left_to_other: str | None = None
        self._prepared: str | None = None
        self.lost_by_others = 0
        """How many events were lost by processes that leave their warning to this one."""
        self.unreported_loss = 0
        """How many events are lost of which another process of the run warns."""

    @property
    def is_unusable(self) -> bool:
        """Whether the last write of this process to the journal failed."""
        return self._journal in _unusable

    def end(self) -> None:
        """Record that the journal can be written to."""
        _unusable.pop(self._journal, None)

    def begin(self, reason: Exception) -> None:
        """Record that the journal cannot be written to."""
        if not isinstance(reason, JournalError):
            log_internal_error_once(f"the journal {self._journal} is not used", reason)
        _unusable.setdefault(self._journal, set())

    def prepare(self, reason: Exception, place: str) -> None:
        """Prepare a warning with the reason, and with the place in which events are kept."""
        is_ours = not isinstance(reason, JournalError)
        cause = f"the journal {self._journal} is not used: {type(reason).__name__}" if is_ours else str(reason)
        is_left = isinstance(reason, JournalFolderError) and not self._reports_folder()
        self._left_to_other = cause if is_left else None
        causes = _unusable.setdefault(self._journal, set())
        if not is_left and cause not in causes:
            causes.add(cause)
            self._prepared = f"{cause}. Events are kept in {place} until it can be used."

    def log(self, finding: str | None) -> None:
        """Log a finding of the journal and the prepared warning; the author's log handler may publish."""
        prepared, self._prepared = self._prepared, None
        for each in filter(None, (finding, prepared)):
            logger.warning("%s", each)

    def log_lost(self, count: int) -> None:
        """Log how many events are lost: `count` of this process, and those of processes that leave it to this one."""
        count += self.lost_by_others
        if not count:
            return
        is_left = self._left_to_other is not None and not self._reports_folder()
        level = logging.DEBUG if is_left else logging.WARNING
        self.unreported_loss = count if is_left else 0
        if self._left_to_other is not None and not is_left:
            logger.warning("%s", self._left_to_other)
        what = f"{counted(count, 'event')} {'is' if count == 1 else 'are'}"
        logger.log(level, "%s lost: %s could not be written to", what, self._journal)
