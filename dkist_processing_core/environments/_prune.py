"""
Remove environments that are old, too many or left over, and never one in use.

Not here: listing them (entries).
"""

# ruff: noqa: PTH104, PTH108, PTH110, PTH113, PTH114, PTH116, PTH119 - paths are texts: importing pathlib takes longer than finding
import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from secrets import token_hex

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import GONE, LOCK, key_and_number
from dkist_processing_core.environments.entries import Entry, State, entries, linked, names_in
from dkist_processing_core.text import counted

_DAY = 86400.0


def prune(folder: str, *, max_age_days: float, max_bytes: int, dry_run: bool) -> list[Entry]:
    """Remove unneeded environments, and return them with the reasons; see `Environments.prune`."""
    due = list(_due(entries(folder), max_age_days, max_bytes))
    if dry_run:
        return due
    removed = [entry for entry in due if _remove(folder, entry)]
    _remove_names(folder)
    return removed


def _due(found: list[Entry], max_age_days: float, max_bytes: int) -> Iterator[Entry]:
    """Yield the environments to remove, with the reason; of complete ones, the last used stay while they fit."""
    total = sum(entry.bytes or 0 for entry in found if entry.state is State.IN_USE)
    for entry in found:
        if entry.state in {State.BUILDING, State.IN_USE}:
            continue
        if entry.state is State.LEFT_OVER:
            yield replace(entry, reason="left over from a process that was killed")
        elif entry.state is State.SUPERSEDED:
            yield replace(entry, reason="replaced by a newer one")
        elif (age := time.time() - (entry.last_used or 0)) > max_age_days * _DAY:
            yield replace(entry, reason=f"not used for {counted(round(age / _DAY), 'day')}")
        elif total + (entry.bytes or 0) > max_bytes:
            yield replace(entry, reason=f"does not fit into {max_bytes} bytes")
        else:
            total += entry.bytes or 0


def _remove(folder: str, entry: Entry) -> bool:
    """Remove one environment unless it has come into use, and return True if it was removed."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as held:
        if GONE in entry.path:
            shutil.rmtree(entry.path)
            return True
        # Lock out builders, which might be about to link it, or a new one in its place.
        if not _take(held, f"{folder}/{entry.key}{LOCK}", create=True):
            return False
        if entry.state is State.LEFT_OVER:
            # It was completed in the meantime, or is locked although its marker is damaged.
            if _record.read(entry.marker) or (os.path.isfile(entry.marker) and not _take(held, entry.marker)):
                return False
        elif not _take(held, entry.marker) or os.stat(entry.marker).st_mtime != entry.last_used:
            return False
        name = os.path.basename(entry.path)
        if linked(folder, entry.key) == name:
            os.unlink(f"{folder}/{entry.key}")
        aside = f"{entry.path}{GONE}{token_hex(4)}"
        os.rename(entry.path, aside)
        # From now on no process can start to use it, and deleting takes long.
        held.close()
        shutil.rmtree(aside, ignore_errors=True)
        return True
    return False


def _remove_names(folder: str) -> None:
    """Remove the links that lead nowhere, and the locks without an environment."""
    names = set(names_in(folder))
    keys = {found[0] for name in names if (found := key_and_number(name)) and found[1] is not None}
    for name in names:
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            if GONE in name:
                # A temporary link of a builder that was killed; a folder is not removed.
                if key_and_number(name.partition(GONE)[0]) and os.path.islink(path):
                    os.unlink(path)
            elif name.endswith(LOCK) and key_and_number(name.removesuffix(LOCK)):
                if name.removesuffix(LOCK) not in keys and _take(held, path):
                    os.unlink(path)
            elif key_and_number(name) and _leads_nowhere(path) and _take(held, f"{path}{LOCK}", create=True):
                # This is checked again under the lock: a builder that held it might have repaired the link.
                if _leads_nowhere(path):
                    os.unlink(path)
                os.unlink(f"{path}{LOCK}")


def _leads_nowhere(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def _take(held: contextlib.ExitStack, path: str, *, create: bool = False) -> bool:
    """Lock a file until the end of a block, and return True unless another lock prevents it."""
    descriptor = lock(path, exclusive=True, create=create)
    if descriptor is not None:
        held.callback(os.close, descriptor)
    return descriptor is not None
