"""
The places of this host and of its bus that keep dead letters, opened together.

Not here: what can be done with the letters (place).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dkist_processing_core.bus import open_bus
from dkist_processing_core.dead_letters.in_journal import JournalLetters
from dkist_processing_core.dead_letters.in_queue import QueueLetters
from dkist_processing_core.dead_letters.place import Place
from dkist_processing_core.errors import ExtraMissingError, InboxMissingError
from dkist_processing_core.journal.place import INBOX_FILE, place
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import show


@dataclass(frozen=True, slots=True)
class Places:
    """The open places, and remarks about those that were not looked at."""

    places: Sequence[Place]
    remarks: Sequence[str]


@contextmanager
def open_places(
    settings: Settings, consumers: Sequence[str], inbox: str | None, *, most: int | None = None
) -> Iterator[Places]:
    """
    Open the inbox, if there is one, and the places of the bus.

    Args:
        settings: The settings of this process.
        consumers: The names of the consumers to be looked at; without names, all that are known.
        inbox: The address of the database, if it is not the one of the settings.
        most: The largest number of letters to read of a queue of a broker; None for all.

    Raises:
        DKISTProcessingCoreError: A place exists and cannot be used.
    """
    if not (inbox or settings.dkist_core_inbox or (place(settings).folder / INBOX_FILE).exists()):
        # The library of databases may not be installed.
        yield _all_of(_of_bus(settings, consumers, (), most), settings, consumers)
        return
    try:
        from dkist_processing_core.dead_letters.in_inbox import InboxLetters  # noqa: PLC0415 - an extra
        from dkist_processing_core.inbox import Database  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "an inbox is read", str(error.name)) from None
    try:
        database = Database.open_existing(inbox, settings)
    except InboxMissingError:
        if inbox is not None:
            raise
        yield _all_of(_of_bus(settings, consumers, (), most), settings, consumers)
        return
    try:
        rows = InboxLetters(database, consumers)
        yield _all_of([rows, *_of_bus(settings, consumers, rows.consumers(), most)], settings, consumers)
    finally:
        database.close()


def _of_bus(settings: Settings, consumers: Sequence[str], known: Sequence[str], most: int | None) -> list[Place]:
    """Return the places of the bus. A consumer with an inbox may have been a subscription without one before."""
    if not settings.names_broker:
        return [JournalLetters(open_bus(settings), consumers)]
    return [QueueLetters(settings, name, most=most) for name in consumers or known]


def _all_of(places: Sequence[Place], settings: Settings, consumers: Sequence[str]) -> Places:
    """Return the places, with a remark if names are missing on the command line or unknown to all places."""
    if not consumers:
        remark = "a broker does not list its queues: name the subscriptions on RabbitMQ by --consumer"
        return Places(places, [remark] if settings.names_broker else [])
    known = sorted({name for place in places for name in place.consumers()})
    unknown = [name for name in dict.fromkeys(consumers) if name not in known]
    expected = f"one of {', '.join(known)}" if known else "the name of a consumer that was started before"
    return Places(places, [f"no consumer is known by the name {show(name)}, expected {expected}" for name in unknown])
