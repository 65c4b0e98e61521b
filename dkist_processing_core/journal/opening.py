"""
The opening of a journal in any state of its file.

Not here: the recovery itself (damage). It is imported only if a file is damaged, because the import takes time
in every task.
"""

import math
from pathlib import Path

from dkist_processing_core.errors import JournalDamagedError
from dkist_processing_core.journal._connections import Connections
from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal.aside import damaged_of
from dkist_processing_core.journal.faults import suspects


def open_recovered(path: Path, *, synced: bool, destination: str, patience: float) -> Journal:
    """Open a journal, created if missing; if it is damaged or its log was removed, the file is renamed first."""
    if path in suspects or Connections.without_log(path) is not None:
        recover_file(path, destination=destination, patience=patience)
    try:
        return Journal.open(path, synced=synced, destination=destination, patience=patience)
    except JournalDamagedError:
        recover_file(path, destination=destination, patience=patience)
        return Journal.open(path, synced=synced, destination=destination, patience=patience)


def recover_file(path: Path, *, destination: str | None, patience: float = BUSY_SECONDS) -> None:
    """Rename a damaged journal; see `damage.rename_if_damaged`."""
    from dkist_processing_core.journal import damage  # noqa: PLC0415 - as above

    damage.rename_if_damaged(path, destination=destination, patience=patience)


def recover_messages(journal: Journal, *, seconds: float = math.inf) -> bool:
    """Take over messages of renamed damaged files; see `damage.take_over_renamed`. Return True if there is none."""
    if not damaged_of(journal.path):
        return True
    from dkist_processing_core.journal import damage  # noqa: PLC0415 - as above

    return damage.take_over_renamed(journal, seconds=seconds)
