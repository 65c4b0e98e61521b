"""
The doctor's questions about the journal: where it lies, whether it can be used, what waits in it.

Not here: where journals belong (bus).
"""

import shlex
from collections.abc import Iterator

from dkist_processing_core.bus import Books, Bus
from dkist_processing_core.bus._place import file_system, open_folder, place
from dkist_processing_core.cli._check import Check, ok, skipped, wrong
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import JournalError, JournalVersionError
from dkist_processing_core.outbox import OutboxState, outboxes

_IN_MEMORY = {"ramfs", "tmpfs"}
_IN_CONTAINER = {"aufs", "overlay"}
_SET = "set DKIST_CORE_STATE_DIR to a folder on a local disk"


def check_journal(settings: DKISTProcessingCoreConfiguration, bus: Bus) -> Iterator[Check]:
    """Answer the questions, in the order in which one needs the other."""
    what = "outbox" if bus.is_remote else "journal"
    folder = _check_folder(settings)
    yield folder
    file = _check_file(what, bus)
    yield file
    try:
        states = outboxes(settings)
    except JournalError:
        # The folder, which has been found wrong.
        return
    yield from _check_spares(bus, states)
    yield from _check_other_outboxes(states)


def _check_file(what: str, bus: Bus) -> Check:
    """Open the journal, and see whether it can be written to."""
    try:
        with bus.open_journal() as journal:
            # An empty transaction: what may be written to says so without being changed.
            journal.append([])
            books = journal.books()
    except JournalVersionError as error:
        return wrong(what, str(error), f"use the newer release, or {_SET} of its own")
    except JournalError as error:
        return wrong(what, str(error), f"make the file usable for this user, or {_SET}")
    return _check_books(what, bus, books)


def _check_folder(settings: DKISTProcessingCoreConfiguration) -> Check:
    where = place(settings)
    try:
        folder = open_folder(where)
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
            "`dkist-core outbox list --set-aside` tells why the broker refused those; once that is mended, "
            "`dkist-core outbox retry --all` has them tried again",
        )
    return ok(what, found)


def _check_spares(bus: Bus, states: list[OutboxState]) -> Iterator[Check]:
    """Tell of what processes that have ended kept beside the journal, and it could not take over just now."""
    for state in states:
        left = [spare for spare in state.spares if spare.owner is None] if state.is_current else []
        counts = [f"{spare.path.name}: {spare.books.pending if spare.books else spare.problem}" for spare in left]
        if counts:
            yield skipped(
                "left behind",
                f"beside {bus.journal_path}, by processes that have ended; waiting in {', '.join(counts)}",
                "once the file can be used, the next publisher"
                f"{' or `dkist-core outbox drain`' if bus.is_remote else ''} takes it over",
            )


def _check_other_outboxes(states: list[OutboxState]) -> Iterator[Check]:
    """Tell of messages for brokers that these settings do not name: nobody here delivers them."""
    for state in states:
        if state.is_current or state.is_embedded:
            continue
        if state.waiting:
            name = shlex.quote(state.path.stem.removeprefix("outbox-"))
            yield skipped(
                "other outbox",
                f"{state.path} is for another broker than these settings name; waiting: {state.waiting}",
                "a publisher with the settings of that broker delivers them; if that broker has moved, "
                f"`dkist-core outbox retarget {name}` moves them to this one's",
            )
