"""
The opening of a journal in any state of its file, and the check whether damaged files exist.

The recovery code (_damage) is imported only when there is damage: a task hardly ever needs it, and every task would
wait for the import.
"""

import contextlib
import math
import os
import re
from pathlib import Path

from dkist_processing_core.errors import JournalDamagedError
from dkist_processing_core.journal._connections import Connections
from dkist_processing_core.journal._journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.faults import suspects


def open_mended(path: Path, *, synced: bool, destination: str, patience: float) -> Journal:
    """Open a journal, created if missing; if it is damaged or its log was removed, the file is renamed first."""
    if path in suspects or Connections.without_log(path) is not None:
        set_aside_if_damaged(path, destination=destination, patience=patience)
    try:
        return Journal.open(path, synced=synced, destination=destination, patience=patience)
    except JournalDamagedError:
        set_aside_if_damaged(path, destination=destination, patience=patience)
        return Journal.open(path, synced=synced, destination=destination, patience=patience)


def set_aside_if_damaged(path: Path, *, destination: str | None, patience: float = BUSY_SECONDS) -> None:
    """Rename a damaged journal; see `damage.set_aside_if_damaged`."""
    from dkist_processing_core.journal import damage  # noqa: PLC0415 - as above

    damage.set_aside_if_damaged(path, destination=destination, patience=patience)


def take_over_damaged(journal: Journal, *, seconds: float = math.inf) -> bool:
    """Take over the readable messages of renamed damaged files, as in _damage; return True if there is no such file."""
    if not damaged_of(journal.path):
        return True
    from dkist_processing_core.journal import damage  # noqa: PLC0415 - as above

    return damage.take_over_damaged(journal, seconds=seconds)


def damaged_of(shared: Path) -> list[Path]:
    """Return the damaged files that were renamed from the name of a journal, or of a spare journal beside it."""
    pattern = rf"{re.escape(shared.stem)}(\.[\w-]+)?\.db\.damaged-\d{{8}}T\d{{6}}Z(-\d+)?"
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(shared.parent) if ".damaged-" in name and re.fullmatch(pattern, name)]  # noqa: PTH208 - pathlib is slower
        return [shared.with_name(name) for name in sorted(names)]
    return []
