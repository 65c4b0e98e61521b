"""
Moving the messages in the outbox of one broker into the outbox of another, at an operator's request.

Not here: the confirmation prompt (cli).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.bus import open_bus
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.spare import take_over_spares
from dkist_processing_core.journal.takeover import take_over
from dkist_processing_core.outbox._state import Destination
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings


@dataclass(frozen=True, slots=True)
class Retargeting:
    """The messages to move; no process delivers them while this exists."""

    books: Books
    source: Destination
    target: Destination
    _from: Journal
    _to: Journal

    def carry_out(self) -> int:
        """
        Move all messages that are pending or set aside, and return their number.

        Each message is in the new outbox, on disk, before it is removed from the old one. If the process ends in
        between, some messages are in both, and are delivered twice under one id.

        Raises:
            JournalError: One of the two cannot be read or written any more; messages moved by then stay moved.
        """
        exchanges = {
            self.source.event_exchange: self.target.event_exchange,
            self.source.failure_exchange: self.target.failure_exchange,
        }
        return take_over(self._to, self._from, exchanges)


@contextlib.contextmanager
def retargeting(settings: Settings, path: Path) -> Iterator[Retargeting]:
    """
    Lock an outbox, to move its messages into the outbox of the settings.

    Raises:
        JournalError: The outbox cannot be moved: it is the settings' outbox itself, another process delivers it, or it
            cannot be read or written.
    """
    source = _destination(path)
    bus = open_bus(settings)
    if not settings.names_broker:
        msg = f"there is no outbox to move messages to: MESH_CONFIG names no {ISB_SERVICE}"
        raise JournalError(msg)
    if bus.journal_path.exists() and path.samefile(bus.journal_path):
        msg = f"{path} is the outbox of the present settings already: they have to name the broker to move to"
        raise JournalError(msg)
    with _held(path), Journal.open(path) as old:
        take_over_spares(old)
        with bus.open_journal() as new:
            target = Destination.parse(new.destination)
            if target is None:
                msg = f"{bus.journal_path} does not name the broker that it is for"
                raise JournalError(msg)
            yield Retargeting(old.books(), source, target, old, new)


def _destination(path: Path) -> Destination:
    found = Destination.parse(Journal.look(path, lambda journal: journal.destination))
    if found is None:
        msg = f"{path} does not name the broker that it is for, so that nothing can be moved from it"
        raise JournalError(msg)
    return found


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    if not lock.acquire():
        holder = lock.holder()
        msg = f"{path} is being delivered{'' if holder is None else f' by process {holder}'}: wait for it, or end it"
        raise JournalError(msg)
    try:
        yield
    finally:
        lock.release()
