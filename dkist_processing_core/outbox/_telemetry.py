"""
The journals of telemetry of this host: what they hold, and delivering that of the settings until none is pending.

Reading them changes no file. Not here: the threads that deliver (otlp.drainer), and the output (cli).
"""

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.otlp import OtlpBooks, OtlpJournal
from dkist_processing_core.journal.place import check_place
from dkist_processing_core.otlp import SIGNALS, destination_of, journal_path, lock_path
from dkist_processing_core.outbox._delivery import POLL_SECONDS, STOP_SECONDS
from dkist_processing_core.settings.interface import Settings

_GRACE_SECONDS = 1.0
_STUCK_SECONDS = 30.0
_NAME = re.compile(r"otlp-[0-9a-f]{8}\.db")


@dataclass(frozen=True, slots=True)
class TelemetryState:
    """A journal of telemetry; if it cannot be read, `problem` gives the reason and the rest is unknown."""

    path: Path
    is_current: bool
    """Whether it is for the collectors of the present settings."""
    collectors: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Protocol and address of each signal's collector, without credentials."""
    books: Mapping[str, OtlpBooks] | None = None
    deliverers: Mapping[str, int] = field(default_factory=dict)
    """The ids of the processes that deliver a signal at present."""
    size: int | None = None
    """How many bytes the content has."""
    oldest: float | None = None
    """The time, in seconds since 1970, since which the oldest content has been pending."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TelemetryProgress:
    """The progress of a delivery of telemetry, in items; the counts cover everything since it began."""

    pending: int = 0
    delivered: int = 0
    refused: int = 0
    deliverer: int | None = None
    """The id of another process that is delivering at present; None if there is none."""
    reason: str | None = None
    """Why delivery has stopped while items are still pending, in words for an operator."""


def telemetry_journals(settings: Settings) -> list[TelemetryState]:
    """
    Return the state of every journal of telemetry in the folder of the settings, that of the settings first.

    Raises:
        JournalError: The folder cannot be read; a missing folder counts as empty.
    """
    check_place(settings)
    current = journal_path(settings)
    try:
        with explained(current.parent):
            found = [path for path in current.parent.iterdir() if _NAME.fullmatch(path.name)]
    except JournalError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    return [_state(path, current) for path in sorted(found, key=lambda path: (path != current, path))]


def _state(path: Path, current: Path) -> TelemetryState:
    holders = {signal: FileLock(lock_path(path, signal)).holder() for signal in SIGNALS}
    deliverers: dict[str, int] = {signal: holder for signal, holder in holders.items() if holder is not None}
    state = TelemetryState(path, is_current=path == current, deliverers=deliverers)

    def filled(journal: OtlpJournal) -> TelemetryState:
        return replace(
            state,
            collectors=_collectors_in(journal.destination),
            books=journal.books(),
            size=journal.size,
            oldest=journal.oldest,
        )

    try:
        return OtlpJournal.look(path, filled)
    except JournalError as error:
        return replace(state, problem=str(error))


def _collectors_in(destination: str) -> dict[str, tuple[str, str]]:
    lines = [line.split(" ", maxsplit=2) for line in destination.splitlines()]
    return {line[0]: (line[1], line[2]) for line in lines if len(line) == 3 and line[0] in SIGNALS}  # noqa: PLR2004


class TelemetryDrain:
    """Delivers the telemetry of the settings from its threads, while `progress` watches it."""

    def __init__(self, settings: Settings) -> None:
        """
        Start the delivery, if there is anything to deliver.

        Raises:
            JournalError: The journal cannot be used.
        """
        from dkist_processing_core.otlp.drainer import TelemetryDrainer  # noqa: PLC0415 - listing does not need it

        check_place(settings)
        self.path = journal_path(settings)
        self._journal: OtlpJournal | None = None
        self._drainer: TelemetryDrainer | None = None
        if self.path.exists():
            self._journal = OtlpJournal.open(self.path, destination=destination_of(settings))
        self._before = self._books()
        if any(books.pending for books in self._before.values()):
            self._drainer = TelemetryDrainer(settings, poll_seconds=POLL_SECONDS)
            self._drainer.start()

    def progress(self, timeout: float | None = None) -> Iterator[TelemetryProgress]:
        """
        Yield the progress from time to time, and finally at the end; then nothing is pending, or there is a reason.

        The reason is the problem of a collector, the end of `timeout` seconds, or a long time without progress.
        """
        began = moved_at = time.monotonic()
        until = math.inf if timeout is None else began + timeout
        books = self._before
        try:
            while self._drainer is not None:
                found = self._books()
                now = time.monotonic()
                moved_at, books = (now if found != books else moved_at), found
                pending = {signal for signal, counts in books.items() if counts.pending}
                if not pending:
                    break
                yield self._progress(books)
                problems = [self._drainer.problems.get(signal) for signal in pending]
                if all(problems) and now - moved_at >= _GRACE_SECONDS:
                    yield self._progress(books, problems[0])
                    return
                if now >= until or now - moved_at > _STUCK_SECONDS:
                    why = "the time is over" if now >= until else f"nothing was delivered for {_STUCK_SECONDS:.0f} s"
                    yield self._progress(books, why)
                    return
                time.sleep(POLL_SECONDS)
            yield self._progress(books)
        finally:
            self.close()

    def close(self) -> None:
        """End the delivery; what is not delivered stays in the journal."""
        if self._drainer is not None:
            self._drainer.stop(STOP_SECONDS)
        if self._journal is not None:
            self._journal.close()

    def _books(self) -> Mapping[str, OtlpBooks]:
        return {} if self._journal is None else self._journal.books()

    def _progress(self, books: Mapping[str, OtlpBooks], reason: str | None = None) -> TelemetryProgress:
        holders = [FileLock(lock_path(self.path, signal)).holder() for signal in SIGNALS]
        return TelemetryProgress(
            pending=sum(counts.pending for counts in books.values()),
            delivered=sum(books[name].delivered - counts.delivered for name, counts in self._before.items()),
            refused=sum(books[name].refused - counts.refused for name, counts in self._before.items()),
            deliverer=next((holder for holder in holders if holder not in (None, os.getpid())), None),
            reason=reason,
        )
