"""
The record of a run on this host: a file beside the journal that exists while the run lasts, locked by its process.

Its launchers hold the same lock. The kernel releases it when all of them have ended, even by SIGKILL, and no other
process id can be mistaken for theirs: a record without a lock is that of a lost run. Not here: the report of a lost run
(delivery.lost_runs).
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from dkist_processing_core.errors import JournalError
from dkist_processing_core.identity import Run
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.process.trusted_files import open_file

RUNNING = "running"
"""The state of a task that has begun and is not over; the other states are those of the run's engine."""
logger = logging.getLogger(__name__)
_PAUSE_SECONDS, _TRIES = 0.005, 40


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The content of a record."""

    run: Run
    started_at: datetime
    pid: int
    carrier: dict[str, str]
    """The context of the run's span, as variables."""
    states: dict[str, str]
    """The last known state of each task."""
    attempts: dict[str, int]
    """The number of the last attempt of each task that was started."""
    retried: set[str]
    """The tasks that would have had another attempt if this one failed."""
    is_damaged: bool = False
    """Whether the states are older ones, because a later line cannot be read."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the content; None if the first line cannot be read, or was not written before the process ended."""
        first, *lines = text.splitlines() or [""]
        try:
            head = json.loads(first)
            run, started_at = Run(*head["run"]), datetime.fromisoformat(head["started_at"])
            recorded = cls(run, started_at, head["pid"], dict(head["carrier"]), dict(head["states"]), {}, set())
        except (ValueError, TypeError, KeyError):
            return None
        try:
            for line in lines:
                change = json.loads(line)
                name, state, attempt = change["task"], change["state"], change["attempt"]
                recorded.states[name], recorded.attempts[name] = state, attempt
                (recorded.retried.discard if change.get("final", True) else recorded.retried.add)(name)
        except (ValueError, TypeError, KeyError):
            # The process or the host may have failed while it wrote the last lines.
            return replace(recorded, is_damaged=True)
        return recorded


class RunRecord:
    """The record of one run, written by the process that runs it."""

    def __init__(self, journal: Path, run: Run) -> None:
        """Store the run, and the journal beside which its record is kept. No file is created."""
        self._run = run
        self._lock = FileLock(journal.with_name(f"{journal.stem}.{run.run_id}.run"))

    def begin(self, started_at: datetime, states: Mapping[str, str], carrier: Mapping[str, str]) -> None:
        """
        Create and lock the file, and write the facts by which another process can report the end of the run.

        Args:
            started_at: The start of the run.
            states: The state of each task before the start.
            carrier: The context of the run's span, as variables.

        Raises:
            JournalError: The file cannot be created, or another process keeps it locked.
        """
        # A process that looks for lost runs may hold the lock of the new file for an instant.
        for _ in range(_TRIES):
            if self._lock.acquire():
                break
            time.sleep(_PAUSE_SECONDS)
        else:
            # Without the lock, other processes would report this run as lost while it lasts.
            msg = f"{self._lock.path} is locked by another process"
            raise JournalError(msg)
        run = self._run
        self._append(
            {
                "run": [run.workflow_name, run.workflow_version, run.run_id, run.recipe_run_id],
                "started_at": started_at.isoformat(),
                "pid": os.getpid(),
                "carrier": dict(carrier),
                "states": dict(states),
            },
            synced=True,
        )

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the lock: while a process has a copy of it, the run is not lost. None if it is not held."""
        return self._lock.descriptor

    def note(self, tasks: Sequence[str], state: str, attempt: int = 0, *, is_final: bool = True) -> None:
        """
        Append a new state of some tasks.

        Args:
            tasks: The names of the tasks.
            state: Their state from now on.
            attempt: The number of the attempt that was started last.
            is_final: Whether no other attempt follows if this one fails.
        """
        # Code of this process may have closed the descriptor.
        if tasks and self._lock.acquire():
            facts = {"state": state, "attempt": attempt, "final": is_final}
            self._append(*({"task": name, **facts} for name in tasks))

    def _append(self, *lines: dict[str, Any], synced: bool = False) -> None:
        descriptor = open_file(self._lock.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, "".join(json.dumps(line) + "\n" for line in lines).encode())
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def end(self) -> None:
        """Remove the file: the end of the run is on disk."""
        self._lock.remove()


def records_beside(journal: Path) -> list[Path]:
    """Return the records of all runs whose events go into this journal."""
    return sorted(journal.parent.glob(f"{journal.stem}.*.run"))


def read_lost(journal: Path) -> Iterator[RecordedRun]:
    """Yield the runs whose process has ended without a report of their end. Nothing is changed."""
    for path in records_beside(journal):
        with contextlib.suppress(JournalError, OSError):
            if FileLock(path).is_free and (recorded := RecordedRun.parse(path.read_text(errors="replace"))) is not None:
                yield recorded


@contextlib.contextmanager
def take_lost(path: Path) -> Iterator[RecordedRun | None]:
    """
    Hold the record of a lost run, so that no other process reports it, and remove it if the context ends normally.

    Yields None if its process still runs, or another process reports the run.
    """
    lock = FileLock(path)
    if not path.exists() or not lock.acquire():
        yield None
        return
    try:
        text = path.read_text(errors="replace")
        recorded = RecordedRun.parse(text)
        # Without the end of the first line, the process had ended before the run began.
        if recorded is None and "\n" in text:
            logger.warning("the record %s of a run is damaged and removed: the end of this run is not reported", path)
        elif recorded is not None and recorded.is_damaged:
            logger.warning(
                "the record %s of run %s is damaged: the reported states of its tasks may be older than its end",
                path,
                recorded.run.run_id,
            )
        yield recorded
        lock.remove()
    finally:
        lock.release()
