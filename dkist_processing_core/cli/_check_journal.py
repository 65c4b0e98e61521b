"""
The doctor's questions about the journal: where it lies, whether it can be used, what waits in it.

Not here: where journals belong (bus).
"""

from collections.abc import Iterator
from pathlib import Path

from dkist_processing_core.bus import Books, Bus, Journal
from dkist_processing_core.bus._place import file_system, open_folder, place
from dkist_processing_core.cli._check import Check, ok, skipped, wrong
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import JournalError, JournalVersionError

_IN_MEMORY = {"ramfs", "tmpfs"}
_IN_CONTAINER = {"aufs", "overlay"}
_SET = "set DKIST_CORE_STATE_DIR to a folder on a local disk"


def check_journal(settings: DKISTProcessingCoreConfiguration, bus: Bus) -> Iterator[Check]:
    """Answer the questions, in the order in which one needs the other."""
    what = "outbox" if bus.is_remote else "journal"
    folder = _check_folder(settings)
    yield folder
    try:
        with bus.open_journal() as journal:
            # An empty transaction: what may be written to says so without being changed.
            journal.append([])
            books = journal.books()
    except JournalVersionError as error:
        yield wrong(what, str(error), f"use the newer release, or {_SET} of its own")
        return
    except JournalError as error:
        yield wrong(what, str(error), f"make the file usable for this user, or {_SET}")
        return
    yield _check_books(what, bus, books)
    yield from _check_other_outboxes(bus)


def _check_folder(settings: DKISTProcessingCoreConfiguration) -> Check:
    where = place(settings)
    try:
        folder = open_folder(settings)
    except JournalError as error:
        return wrong("folder", str(error), _SET)
    kind = file_system(folder)
    found = f"{folder} ({kind or 'an unknown file system'})"
    if kind in _IN_MEMORY:
        return wrong("folder", f"{found} does not survive a restart of the machine", _SET)
    if where.moved_from is not None:
        return ok("folder", f"{found}, since {where.reason}")
    lasting = "lasts as long as the container" if kind in _IN_CONTAINER else "survives a restart"
    return ok("folder", f"{found}, {lasting}")


def _check_books(what: str, bus: Bus, books: Books) -> Check:
    if not bus.is_remote:
        return ok(what, f"{bus.journal_path} can be read and written; messages: {books.pending}")
    found = f"{bus.journal_path} can be read and written; waiting for the broker: {books.pending}"
    if books.set_aside:
        return wrong(
            what,
            f"{found}, set aside: {books.set_aside}",
            "the broker refused those again and again, and its reasons are in the log of the process that published "
            "them: make what it lacks, as an exchange or a right",
        )
    return ok(what, found)


def _check_other_outboxes(bus: Bus) -> Iterator[Check]:
    """Tell of messages for brokers that these settings do not name: nobody here delivers them."""
    for path in sorted(bus.journal_path.parent.glob("outbox-*.db")):
        pending = 0 if path == bus.journal_path else _pending(path)
        if pending:
            yield skipped(
                "other outbox",
                f"{path} is for another broker than these settings name; waiting: {pending}",
                "a publisher with the settings of that broker delivers them",
            )


def _pending(path: Path) -> int:
    try:
        with Journal.open(path, synced=False) as journal:
            return journal.books().pending
    except JournalError:
        return 0
