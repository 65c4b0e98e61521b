"""
A journal that is opened in whatever state its file is, and whether there is anything to mend.

What mends it (_damage) is loaded when damage is met: a task hardly ever meets it, and each would wait for that.
"""

import contextlib
import math
import os
import re
from pathlib import Path

from dkist_processing_core.bus._connections import Connections
from dkist_processing_core.bus._faults import suspects
from dkist_processing_core.bus._journal import BUSY_SECONDS, Journal
from dkist_processing_core.errors import JournalDamagedError


def open_mended(path: Path, *, synced: bool, destination: str, patience: float) -> Journal:
    """Open a journal, made if it is missing; one that is damaged, or whose log was removed, is set aside first."""
    if path in suspects or Connections.without_log(path) is not None:
        set_aside_if_damaged(path, destination=destination, patience=patience)
    try:
        return Journal.open(path, synced=synced, destination=destination, patience=patience)
    except JournalDamagedError:
        set_aside_if_damaged(path, destination=destination, patience=patience)
        return Journal.open(path, synced=synced, destination=destination, patience=patience)


def set_aside_if_damaged(path: Path, *, destination: str | None, patience: float = BUSY_SECONDS) -> None:
    """Give a damaged journal another name, as in _damage."""
    from dkist_processing_core.bus import _damage  # noqa: PLC0415 - as above

    _damage.set_aside_if_damaged(path, destination=destination, patience=patience)


def take_over_damaged(journal: Journal, *, seconds: float = math.inf) -> bool:
    """Take over what can be read of the files that were set aside, as in _damage; True where there is none."""
    if not damaged_of(journal.path):
        return True
    from dkist_processing_core.bus import _damage  # noqa: PLC0415 - as above

    return _damage.take_over_damaged(journal, seconds=seconds)


def damaged_of(shared: Path) -> list[Path]:
    """Return the damaged files that were set aside from the name of a journal, or of a spare one beside it."""
    pattern = rf"{re.escape(shared.stem)}(\.[\w-]+)?\.db\.damaged-\d{{8}}T\d{{6}}Z(-\d+)?"
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(shared.parent) if ".damaged-" in name and re.fullmatch(pattern, name)]  # noqa: PTH208 - pathlib is slower
        return [shared.with_name(name) for name in sorted(names)]
    return []
