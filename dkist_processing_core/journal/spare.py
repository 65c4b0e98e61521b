"""
The spare journal: a journal of one process, for the time in which the shared journal cannot be written to.

A process that is stopped (SIGSTOP, a debugger, a frozen container) in the middle of a transaction keeps SQLite's lock
without a time limit, and this release never writes to the file of a newer release. During that time messages are stored
in a file in the same folder. The shared journal takes them over later. Not here: the choice of the journal
(delivery.shared_journal), and the time of the take-over (delivery.shelf).
"""

import contextlib
import math
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from dkist_processing_core.errors import JournalDamagedError, JournalError
from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal.faults import is_busy
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.opening import recover_file, recover_messages
from dkist_processing_core.journal.takeover import take_over
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text.internal_errors import log_internal_error_once

_YOUNG_SECONDS = 60.0


class Spare:
    """An open spare journal. No other process takes it over while its process lives."""

    def __init__(self, journal: Journal, lock: FileLock) -> None:
        """Store an open journal and its held lock; `Spare.open` creates both."""
        self.journal = journal
        self._lock = lock

    @classmethod
    def open(cls, shared: Path) -> Self:
        """
        Create a spare journal in the folder of the shared journal at `shared`.

        Raises:
            JournalError: It cannot be created, as on a full disk; no part of it remains then.
        """
        path = shared.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.db")
        lock = FileLock(path.with_suffix(".lock"))
        try:
            # The lock is taken first: a spare journal whose lock is free counts as left behind by an ended process.
            lock.acquire()
            return cls(_open(path), lock)
        except BaseException:
            _remove(path, lock)
            raise

    @property
    def is_lost(self) -> bool:
        """Whether other code of this process has closed it or its lock: then other processes take over its messages."""
        return self.journal.is_lost or not self._lock.is_held

    def remove(self) -> None:
        """Remove its files, after all of its messages were taken over."""
        self.journal.discard()
        _remove(self.journal.path, self._lock)

    def close(self) -> None:
        """Close it and release its lock; the next process takes over its messages."""
        self.journal.close()
        self._lock.release()


def take_over_spare(shared: Journal, spare: Spare, *, until: float = math.inf) -> None:
    """
    Take over all messages of a spare journal into the shared journal, and remove the spare journal.

    Raises:
        JournalError: Messages remain at the time `until` (`time.monotonic`); they are still in the spare journal.
    """
    take_over(shared, spare.journal, until=until)
    if spare.journal.first() is not None:
        msg = f"the journal {shared.path} is still taking over {spare.journal.path}"
        raise JournalError(msg)
    spare.remove()


def _open(path: Path, *, patience: float = BUSY_SECONDS) -> Journal:
    """Open a spare journal; its name is never reused, so no other file replaces it."""
    return Journal.open(path, patience=patience, is_replaceable=False)


def spares_of(shared: Path) -> list[Path]:
    """Return the spare journals of all processes in the folder of the shared journal at `shared`."""
    return sorted(shared.parent.glob(f"{shared.stem}.*.db"))


def noted_on_host(shared: Path, notes: Sequence[str], *, process: int, patience: float) -> str | None:
    """
    Return the first of `notes` that a spare journal of `process` or the shared journal holds; None if none does.

    This changes no journal and takes none over, and does not wait for a process that writes to the shared journal.
    """

    def first(journal: Journal) -> str | None:
        return next((note for note in notes if journal.remembers(note)), None)

    # The shared journal is read last: another process may take over a spare journal's messages in between.
    for path in (*shared.parent.glob(f"{shared.stem}.{process}-*.db"), shared):
        with contextlib.suppress(JournalError):
            if found := Journal.look(path, first, patience=patience):
                return found
    return None


def is_spare(path: Path) -> bool:
    """Return True if a path is that of a spare journal."""
    return "." in path.stem


def take_over_spares(shared: Journal, *, seconds: float = math.inf) -> bool:
    """
    Take over the messages of spare journals of ended processes, and the readable ones of damaged files, into `shared`.

    This takes about `seconds` seconds, and raises no error. The next call retries files that cannot be read now, and
    continues where another process was writing to the journal. Return False if the time was too short.
    """
    until = time.monotonic() + seconds
    patience, shared.patience = shared.patience, 0.0
    is_free = True
    try:
        for path in spares_of(shared.path):
            if not is_free or time.monotonic() >= until:
                # When many processes start at once, each would open all remaining spare journals without effect.
                break
            with _optional(path), _left_behind(path) as lock:
                if lock is not None and path.exists():
                    is_free = _take_over_unused(shared, path, lock, until)
                elif lock is not None:
                    # Another process has taken it over in between, and this process has created the lock's file again.
                    lock.remove()
        with _optional(shared.path):
            _remove_lone_locks(shared.path, until)
        with _optional(shared.path):
            recover_messages(shared, seconds=max(0.0, until - time.monotonic()))
    finally:
        shared.patience = patience
    return time.monotonic() < until


@contextlib.contextmanager
def _optional(path: Path) -> Iterator[None]:
    """Suppress errors of the take-over, and log unexpected ones: the journal itself can be used without it."""
    with signals_deferred():
        try:
            yield
        except JournalError:
            pass
        except Exception as error:  # noqa: BLE001 - see the docstring
            log_internal_error_once(f"the spare journals and damaged files of {path} are not taken over", error)


def _take_over_unused(shared: Journal, path: Path, lock: FileLock, until: float) -> bool:
    """Take over the messages of one unused spare journal; return False if the shared journal was busy."""
    try:
        with _open(path, patience=0.0) as journal:
            take_over_spare(shared, Spare(journal, lock), until=until)
    except JournalDamagedError:
        recover_file(path, destination=None)
        if not path.exists():
            lock.remove()
    except JournalError as error:
        if not is_busy(error.__cause__):
            raise
        return False
    return True


def _remove_lone_locks(shared: Path, until: float) -> None:
    """Remove the locks of removed spare journals; keep young locks, which are created before their journals."""
    # When many processes use the folder at once, listing it again takes time.
    for path in shared.parent.glob(f"{shared.stem}.*.lock") if time.monotonic() < until else ():
        if time.monotonic() >= until:
            break
        with contextlib.suppress(OSError, JournalError):
            if not path.with_suffix(".db").exists() and path.stat().st_mtime < time.time() - _YOUNG_SECONDS:
                lock = FileLock(path)
                if lock.acquire():
                    lock.remove()


def left_behind(shared: Path) -> list[Path]:
    """Return the spare journals of the shared journal at `shared` that belong to no living process."""
    return [path for path in spares_of(shared) if FileLock(path.with_suffix(".lock")).holder() is None]


def remove_if_empty(path: Path) -> None:
    """Remove a spare journal of an ended process, if it holds no message any more."""
    with contextlib.suppress(JournalError), _left_behind(path) as lock:
        if lock is not None:
            with _open(path, patience=0.0) as journal:
                is_empty = journal.first() is None
            if is_empty:
                _remove(path, lock)


@contextlib.contextmanager
def _left_behind(path: Path) -> Iterator[FileLock | None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        yield lock if lock.acquire() else None
    finally:
        if lock.is_held and not path.exists():
            # Another process has taken over the journal and removed the lock's file: this lock's file is a new one.
            with contextlib.suppress(OSError):
                lock.remove()
        lock.release()


def _remove(path: Path, lock: FileLock) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.remove()
