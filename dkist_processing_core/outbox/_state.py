"""
The contents of every journal of this host; reading them changes no file.

Not here: the output (cli).
"""

import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.embedded import FILE as EMBEDDED_FILE
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Books, Journal, SetAside
from dkist_processing_core.journal.damage import Damaged, damaged
from dkist_processing_core.journal.faults import explained
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.place import check_place
from dkist_processing_core.journal.spare import is_spare, spares_of
from dkist_processing_core.settings.declarations import DECLARATIONS
from dkist_processing_core.settings.interface import Settings

_PARTS = 5


@dataclass(frozen=True, slots=True)
class Destination:
    """The broker that an outbox is for, as recorded in the file itself."""

    host: str
    port: int
    vhost: str
    event_exchange: str
    failure_exchange: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the destination in `Journal.destination`; None for one without a broker, as the embedded journal's."""
        parts = text.split("\n")
        if len(parts) != _PARTS or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), *parts[2:])

    def __str__(self) -> str:
        """Return a description for an operator."""
        usual = (DECLARATIONS["isb_event_exchange"].default, DECLARATIONS["isb_exchange"].default)
        exchanges = (self.event_exchange, self.failure_exchange)
        where = f"RabbitMQ at {self.host}:{self.port}, virtual host {self.vhost}"
        return where if exchanges == usual else f"{where}, exchanges {' and '.join(exchanges)}"


@dataclass(frozen=True, slots=True)
class SpareState:
    """A spare journal: one process uses it while it cannot use the shared journal."""

    path: Path
    owner: int | None
    """The id of the living process that it belongs to; None where it was left behind."""
    books: Books | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxState:
    """A journal of this host; if it cannot be read, `problem` gives the reason and the rest is unknown."""

    path: Path
    is_current: bool
    """Whether it is the outbox of the present settings."""
    is_embedded: bool
    """Whether it is the embedded journal, which is itself the bus and not an outbox."""
    deliverer: int | None
    """The id of the process that delivers from it at present; None if there is none."""
    spares: tuple[SpareState, ...]
    destination: Destination | None = None
    books: Books | None = None
    oldest: float | None = None
    """The time, in seconds since 1970, since which the oldest message has been pending."""
    unreachable_until: float | None = None
    """The time, in seconds since 1970, until which no process tries to reach the broker; None if it has passed."""
    problem: str | None = None
    lock_problem: str | None = None
    """Why this user cannot deliver from it, whether or not another process delivers."""
    damaged: tuple[Damaged, ...] = ()
    """The damaged files that were set aside from it."""

    @property
    def waiting(self) -> int:
        """How many messages are pending, including those in spare journals, if they can be read."""
        books = [self.books, *[spare.books for spare in self.spares]]
        return sum(each.pending for each in books if each is not None)


def outboxes(settings: Settings) -> list[OutboxState]:
    """
    Return the state of every journal in the folder of the settings, the settings' own outbox first.

    Raises:
        JournalError: The folder cannot be read; a missing folder counts as empty.
    """
    check_place(settings)
    current = open_bus(settings).journal_path
    return [_state(path, current) for path in sorted(_shared(current.parent), key=lambda path: (path != current, path))]


def _shared(folder: Path) -> set[Path]:
    """Return the paths of the shared journals, including those of which only spare journals exist."""
    try:
        with explained(folder):
            names = [path.name for path in folder.iterdir()]
    except JournalError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return set()
        raise
    stems = [name.split(".")[0] for name in names if name.endswith(".db")]
    return {folder / f"{stem}.db" for stem in stems if stem.startswith("outbox-") or f"{stem}.db" == EMBEDDED_FILE}


def _state(path: Path, current: Path) -> OutboxState:
    lock = FileLock(path.with_suffix(".lock"))
    state = OutboxState(
        path,
        is_current=path == current,
        is_embedded=path.name == EMBEDDED_FILE,
        deliverer=lock.holder(),
        lock_problem=None if path.name == EMBEDDED_FILE else lock.problem,
        spares=tuple(_spare(each) for each in spares_of(path)),
    )
    if not path.exists():
        return replace(state, problem=f"{path} is not there yet")

    def filled(journal: Journal) -> OutboxState:
        until = journal.unreachable_until
        return replace(
            state,
            damaged=tuple(damaged(journal)),
            destination=Destination.parse(journal.destination),
            books=journal.books(),
            oldest=journal.oldest,
            unreachable_until=until if until > time.time() else None,
        )

    try:
        return Journal.look(path, filled)
    except JournalError as error:
        return replace(state, problem=str(error))


def _spare(path: Path) -> SpareState:
    owner = FileLock(path.with_suffix(".lock")).holder()
    try:
        return SpareState(path, owner, Journal.look(path, Journal.books))
    except JournalError as error:
        return SpareState(path, owner, problem=str(error))


def set_aside(path: Path) -> list[SetAside]:
    """
    Return the messages that are set aside in a journal.

    Raises:
        JournalError: There is no such journal, or it cannot be read.
    """
    return Journal.look(path, Journal.set_aside)


def find(settings: Settings, name: str | None) -> Path:
    """
    Return the path of the outbox with that name, its eight hex digits or path; without a name, the settings' outbox.

    Raises:
        JournalError: There is no such file, or it is not an outbox.
    """
    check_place(settings)
    current = open_bus(settings).journal_path
    path = current if name is None else Path(os.path.expanduser(name)).absolute()  # noqa: PTH111 - as it is where there is no such home
    if name is not None and (digits := re.fullmatch(r"(?:outbox-)?([0-9a-f]{8})(?:\.db)?", name)):
        path = current.parent / f"outbox-{digits[1]}.db"
    if is_spare(path):
        msg = f"{path} is a spare journal of one process: the outbox takes over its messages later"
        raise JournalError(msg)
    if path.name == EMBEDDED_FILE:
        msg = f"{path} is no outbox but the embedded journal, whose events wait for no broker"
        raise JournalError(msg)
    if not path.is_file():
        msg = f"there is no outbox {path}; dkist-core outbox list shows those that there are"
        raise JournalError(msg)
    return path
