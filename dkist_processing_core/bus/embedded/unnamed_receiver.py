"""
The receiver of a subscription without a name to the embedded journal: it only reads the file.

Not here: subscriptions with a name (named_receiver), and the order of reading (receiver).
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from dkist_processing_core.bus.embedded.receiver import BATCH, JournalReceiver
from dkist_processing_core.errors import JournalDamagedError, JournalEmptyError
from dkist_processing_core.journal import Entry, Journal, versions
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.journal.retention import last_before

# Two changes of a file within this period may get the same modification time.
_COARSE_SECONDS = 0.1
_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)


class UnnamedReceiver(JournalReceiver):
    """A receiver without a name: it reads the file after each change, changes nothing, and keeps no file open."""

    missed = 0

    def __init__(
        self, path: Path, exchange: str, patterns: tuple[str, ...], *, replay: bool | datetime = False
    ) -> None:
        """Start now, or with `replay` at the beginning of the file or at a time."""
        super().__init__(exchange, patterns)
        self._path = path
        self._seen: object = None
        self._file: tuple[int, int] | None = None
        # A new file may have the device and inode number of a removed one, so the id of the file is compared as well.
        self._id: object = None
        self._has_warned = self._has_warned_of_rest = False

        def begin(journal: Journal) -> None:
            self._file, self._id, self._end = journal.file, self._id_of(journal), journal.last()
            self._warn_of_rest(journal)
            if isinstance(replay, datetime):
                self._position = last_before(journal, replay.timestamp())
            else:
                self._position = 0 if replay else self._end

        self._look(begin)

    def _id_of(self, journal: Journal) -> object:
        with contextlib.suppress(JournalDamagedError):
            return journal.value_of("id")
        return self._id

    def _warn_of_rest(self, journal: Journal) -> None:
        """Log one warning if messages of a damaged file are still to be taken over."""
        if self._has_warned_of_rest or not damaged_of(self._path):
            return
        from dkist_processing_core.journal.damage import damaged  # noqa: PLC0415 - rarely needed

        for each in damaged(journal):
            if not each.is_done:
                self._has_warned_of_rest = True
                logger.warning(
                    "events of the damaged journal %s are still being taken over: this subscription may not yield all "
                    "of them. subscribe(replay=True) yields them when that is done; `dkist-core doctor` reports it.",
                    each.path,
                )

    def _look(self, read: Callable[[Journal], _Result]) -> _Result | None:
        """Return the result of `read` for the file; None if the file does not exist or is empty."""
        with explained(self._path):
            if not self._path.exists():
                return None
        try:
            return Journal.look(self._path, read)
        except JournalEmptyError:
            return None

    def _more(self) -> Iterable[Entry]:
        now, found = time.time(), versions(self._path)
        if found == self._seen:
            return []

        def read(journal: Journal) -> list[Entry]:
            now_id = self._id_of(journal)
            if (journal.file, now_id) != (self._file, self._id):
                if not journal.continues(self._file):
                    # A new file numbers its rows from 1 again.
                    self._position = self._end = 0
                self._file, self._id = journal.file, now_id
                self._warn_of_rest(journal)
            try:
                return journal.read(self._position, BATCH)
            except JournalDamagedError as error:
                if not self._has_warned:
                    logger.warning("%s. Its unreadable events are skipped.", error)
                    self._has_warned = True
                from dkist_processing_core.journal.damage import read_around  # noqa: PLC0415 - rarely needed

                entries, self._position = read_around(journal, self._position)
                return entries

        entries = self._look(read) or []
        if not entries and all(each is None or each[2] / 1e9 < now - _COARSE_SECONDS for each in found):
            self._seen = found
        return entries
