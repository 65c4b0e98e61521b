"""
A journal of one process's own, for while the one that all share cannot be written to.

A process that is stopped (SIGSTOP, a debugger, a frozen container) in the middle of a transaction keeps SQLite's lock
for as long as it likes, and a newer release's file is not written to at all: what is published meanwhile is on disk all
the same, beside the shared journal, which takes it over when it can. Not here: when that is (publisher, drain).
"""

import contextlib
import math
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from dkist_processing_core.bus._faults import is_busy
from dkist_processing_core.bus._journal import BUSY_SECONDS, Journal
from dkist_processing_core.bus._locks import FileLock
from dkist_processing_core.bus._mending import set_aside_if_damaged, take_over_damaged
from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.own_errors import log_own_error_once
from dkist_processing_core.signals import held_back

_YOUNG_SECONDS = 60.0


class Spare:
    """An open spare journal. While its process lives, no other process takes it over."""

    def __init__(self, journal: Journal, lock: FileLock) -> None:
        """Take an open journal and the lock that is held beside it; `Spare.open` makes both."""
        self.journal = journal
        self._lock = lock

    @classmethod
    def open(cls, shared: Path) -> Self:
        """
        Make a spare journal beside the one at `shared`.

        Raises
        ------
        JournalError
            where it cannot be made, as on a disk that is full; nothing of it is left then.

        """
        path = shared.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.db")
        lock = FileLock(path.with_suffix(".lock"))
        try:
            # The lock comes first: a file without its lock is one that was left behind.
            lock.acquire()
            return cls(_open(path), lock)
        except BaseException:
            _remove(path, lock)
            raise

    @property
    def is_lost(self) -> bool:
        """Whether other code of this process has closed it or its lock: what is in it is for others to take over."""
        return self.journal.is_lost or not self._lock.is_held

    def give_to(self, shared: Journal, *, until: float = math.inf) -> None:
        """
        Have the shared journal take over what this one holds, and be gone.

        Raises
        ------
        JournalError
            where that is not done when it is `until` by `time.monotonic`; the rest is still here.

        """
        shared.take_over(self.journal, until=until)
        if self.journal.whole_rows(1):
            msg = f"the journal {shared.path} is still taking over {self.journal.path}"
            raise JournalError(msg)
        self.journal.discard()
        _remove(self.journal.path, self._lock)

    def close(self) -> None:
        """Leave what is in it to the next process."""
        self.journal.close()
        self._lock.release()


def _open(path: Path, *, patience: float = BUSY_SECONDS) -> Journal:
    """Open a spare journal: its name is never used again, so that no other file is put in its place."""
    return Journal.open(path, patience=patience, is_replaceable=False)


def spares_of(shared: Path) -> list[Path]:
    """Return the spare journals beside the one at `shared`, whoever's they are."""
    return sorted(shared.parent.glob(f"{shared.stem}.*.db"))


def noted_on_host(shared: Path, notes: Sequence[str], *, process: int, patience: float) -> str | None:
    """
    Return the first of some notes that the spare journals of a process hold, or the shared one; None for none of them.

    Nothing is changed by that, nor adopted: it waits for no process that writes to the shared journal.
    """

    def first(journal: Journal) -> str | None:
        return next((note for note in notes if journal.remembers(note)), None)

    # The shared one last: another process may have it take over a spare one meanwhile.
    for path in (*shared.parent.glob(f"{shared.stem}.{process}-*.db"), shared):
        with contextlib.suppress(JournalError):
            if found := Journal.look(path, first, patience=patience):
                return found
    return None


def is_spare(path: Path) -> bool:
    """Say whether a journal's file is a spare one."""
    return "." in path.stem


def adopt(shared: Journal, *, seconds: float = math.inf) -> bool:
    """
    Have a journal take over the spare ones of processes that have ended, and what can be read of damaged ones.

    It takes about so many `seconds`, and raises nothing; what cannot be read now is tried by the next call, and so is
    what is left when another process writes to the journal. Returns False where the time was too short for all of it.
    """
    until = time.monotonic() + seconds
    patience, shared.patience = shared.patience, 0.0
    is_free = True
    try:
        for path in spares_of(shared.path):
            if not is_free or time.monotonic() >= until:
                # Each of a storm of processes would open all that the storm has left, to no avail.
                break
            with _optional(path), _left_behind(path) as lock:
                if lock is not None and path.exists():
                    is_free = _adopt(shared, path, lock, until)
                elif lock is not None:
                    # Another process has adopted it meanwhile, and this one has made the lock's file anew.
                    lock.remove()
        with _optional(shared.path):
            _remove_lone_locks(shared.path, until)
        with _optional(shared.path):
            take_over_damaged(shared, seconds=max(0.0, until - time.monotonic()))
    finally:
        shared.patience = patience
    return time.monotonic() < until


@contextlib.contextmanager
def _optional(path: Path) -> Iterator[None]:
    """Keep what goes wrong with the adoption from the journal itself, which can be used without it."""
    with held_back():
        try:
            yield
        except JournalError:
            pass
        except Exception as error:  # noqa: BLE001 - as the docstring says
            log_own_error_once(f"what lies beside {path} waits", error)


def _adopt(shared: Journal, path: Path, lock: FileLock, until: float) -> bool:
    """Return False where the journal was busy."""
    try:
        with _open(path, patience=0.0) as journal:
            Spare(journal, lock).give_to(shared, until=until)
    except JournalDamagedError:
        set_aside_if_damaged(path, destination=None)
        if not path.exists():
            lock.remove()
    except JournalError as error:
        if not is_busy(error.__cause__):
            raise
        return False
    return True


def _remove_lone_locks(shared: Path, until: float) -> None:
    """Remove the locks of spare journals that were removed; not young ones, which come before their journals."""
    # The folder of a storm is busy, too: listing it once more takes its time.
    for path in shared.parent.glob(f"{shared.stem}.*.lock") if time.monotonic() < until else ():
        if time.monotonic() >= until:
            break
        with contextlib.suppress(OSError, JournalError):
            if not path.with_suffix(".db").exists() and path.stat().st_mtime < time.time() - _YOUNG_SECONDS:
                lock = FileLock(path)
                if lock.acquire():
                    lock.remove()


def left_behind(shared: Path) -> list[Path]:
    """Return the spare journals beside the one at `shared` that belong to no living process."""
    return [path for path in spares_of(shared) if FileLock(path.with_suffix(".lock")).holder() is None]


def remove_if_empty(path: Path) -> None:
    """Remove a spare journal of a process that has ended, where nothing is left in it."""
    with contextlib.suppress(JournalError), _left_behind(path) as lock:
        if lock is not None:
            with _open(path, patience=0.0) as journal:
                is_empty = not journal.whole_rows(1)
            if is_empty:
                _remove(path, lock)


@contextlib.contextmanager
def _left_behind(path: Path) -> Iterator[FileLock | None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        yield lock if lock.acquire() else None
    finally:
        if lock.is_held and not path.exists():
            # Taken over by another process, which has removed the lock's file: this is a new one.
            with contextlib.suppress(OSError):
                lock.remove()
        lock.release()


def _remove(path: Path, lock: FileLock) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.remove()
