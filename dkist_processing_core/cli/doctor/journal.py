"""
The doctor's checks of the journal: its place, whether it can be used, and the pending messages in it.

Not here: the choice of the journals' place (bus).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dkist_processing_core.bus import Bus
from dkist_processing_core.cli.doctor.check import Check, ok, skipped, wrong
from dkist_processing_core.cli.draw.words import pasted
from dkist_processing_core.errors import JournalDamagedError, JournalEmptyError, JournalError, JournalVersionError
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal.faults import check_access
from dkist_processing_core.journal.place import Place, check_folder, file_system, place
from dkist_processing_core.outbox import OutboxState, outboxes
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text.terminal import visible_line

_IN_MEMORY = {"ramfs", "tmpfs"}
_IN_CONTAINER = {"aufs", "overlay"}
# Root has the permission to create files on them, but no file can be created.
_OF_KERNEL = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl",
    "mqueue", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}  # fmt: skip
_DELIVERY = (
    "the next publisher delivers them while the broker can be reached; `dkist-core outbox drain` does so now, "
    "`dkist-core outbox relay` continuously"
)
_SET = "set DKIST_CORE_STATE_DIR to a folder on a local disk"


def check_journal(settings: Settings, bus: Bus) -> Iterator[Check]:
    """Yield the checks, each after those on which it depends."""
    what = "outbox" if bus.is_remote else "journal"
    folder = _check_folder(settings)
    yield folder
    file = _check_file(what, bus)
    yield file
    try:
        states = outboxes(settings)
    except JournalError:
        # The cause is the folder, whose check has already failed.
        return
    yield from _check_locks(states)
    yield from _check_damaged(states)
    yield from _check_spares(bus, states)
    yield from _check_other_outboxes(bus, states)


def _check_file(what: str, bus: Bus) -> Check:
    """Check whether the journal can be written to, without creating or changing a file."""
    path = bus.journal_path
    try:
        with contextlib.suppress(JournalEmptyError):
            if os.path.lexists(path):
                check_access(path)
                return _check_books(what, bus, Journal.look(path, Journal.books))
    except JournalVersionError as error:
        return wrong(
            what, str(error), "use the newer release, or set DKIST_CORE_STATE_DIR to another folder on a local disk"
        )
    except JournalDamagedError as error:
        return wrong(
            what,
            str(error),
            "no action is needed: the next publisher sets it aside and keeps the messages that can be read",
        )
    except JournalError as error:
        return wrong(what, str(error), f"make the file usable for this user, or {_SET}")
    # The first event creates the file.
    hindrance = _hindrance(path)
    if hindrance is not None:
        return wrong(what, f"{path} does not exist and cannot be created: {hindrance}", _SET)
    return ok(what, _usable(bus, 0))


def _hindrance(path: Path) -> str | None:
    """Return why a missing file or folder cannot be created; None if nothing is known that prevents it."""
    nearest = next(each for each in path.parents if os.path.lexists(each))
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    kind = file_system(nearest)
    if kind in _OF_KERNEL:
        return f"{nearest} shows data of the kernel ({kind}) and holds no other files"
    longest = max(path.relative_to(nearest).parts, key=lambda part: len(os.fsencode(part)))
    limit = os.pathconf(nearest, "PC_NAME_MAX")
    if len(os.fsencode(longest)) > limit:
        return f"a name of more than {limit} bytes is too long there"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"this user may not write to {nearest}"
    return None


def _problem_of(where: Place) -> str | None:
    """Return why journals cannot be in a folder, without creating it; None if they can."""
    if where.problem is not None:
        return where.problem
    if not os.path.lexists(where.folder):
        hindrance = _hindrance(where.folder)
        return None if hindrance is None else f"the journals' folder {where.folder} cannot be created: {hindrance}"
    if not where.folder.is_dir():
        return f"the journals' folder {where.folder} cannot be created: it is not a folder"
    try:
        check_folder(where)
    except JournalError as error:
        return str(error)
    return None


def _check_folder(settings: Settings) -> Check:
    where = place(settings)
    problem, folder = _problem_of(where), where.folder
    if problem is not None:
        return wrong("folder", problem, _SET)
    kind = file_system(folder)
    found = f"{folder} ({kind or 'an unknown file system'})"
    if kind in _IN_MEMORY:
        return wrong("folder", f"{found} does not survive a restart of the machine", _SET)
    if where.moved_from is not None:
        return ok("folder", f"{found}, since {where.reason}")
    lasting = "lasts as long as the container" if kind in _IN_CONTAINER else "survives a restart"
    return ok("folder", f"{found}, {lasting}")


def _usable(bus: Bus, pending: int) -> str:
    counted = "pending" if bus.is_remote else "messages"
    return f"{bus.journal_path} can be read and written; {counted}: {pending}"


def _check_books(what: str, bus: Bus, books: Books) -> Check:
    if not bus.is_remote:
        return ok(what, _usable(bus, books.pending))
    found = _usable(bus, books.pending)
    if books.set_aside:
        return wrong(
            what,
            f"{found}, set aside: {books.set_aside}",
            "`dkist-core outbox list --set-aside` shows why the broker refused them; when the cause is removed, "
            "`dkist-core outbox retry --all` makes them pending again",
        )
    return ok(what, found, _DELIVERY if books.pending else None)


def _check_locks(states: list[OutboxState]) -> Iterator[Check]:
    """Yield a failed check if this user cannot deliver the outbox of the settings, independent of the broker."""
    for each in states:
        if each.is_current and each.lock_problem is not None:
            yield wrong("delivery", each.lock_problem, "remove that file while no process of this host delivers")


def _check_damaged(states: list[OutboxState]) -> Iterator[Check]:
    """Yield a failed check for each damaged file that was set aside."""
    for each in (each for state in states for each in state.damaged):
        yield wrong(
            "damaged",
            f"{visible_line(str(each.path))} was found damaged and set aside; "
            f"messages taken over from it: {each.taken_over}",
            "check the disk; remove the file when you no longer need it"
            if each.is_done
            else "the next publisher takes over more",
        )


def _check_spares(bus: Bus, states: list[OutboxState]) -> Iterator[Check]:
    """Report the spare files of ended processes, whose messages could not be moved into the journal just now."""
    for state in states:
        left = [spare for spare in state.spares if spare.owner is None] if state.is_current else []
        counts = [
            f"{visible_line(spare.path.name)}: {spare.books.pending if spare.books else spare.problem}"
            for spare in left
        ]
        if counts:
            yield skipped(
                "left behind",
                f"processes that have ended left messages outside {bus.journal_path}; pending in {', '.join(counts)}",
                "when the file can be used, the next publisher"
                f"{' or `dkist-core outbox drain`' if bus.is_remote else ''} takes them over",
            )


def _check_other_outboxes(bus: Bus, states: list[OutboxState]) -> Iterator[Check]:
    """Report messages for brokers that these settings do not name, which no process here delivers."""
    for state in states:
        if state.is_current or state.is_embedded:
            continue
        if state.waiting:
            name = pasted(state.path.stem.removeprefix("outbox-"))
            remedy = f"`dkist-core outbox retarget {name}` moves them to the outbox of these settings"
            if not bus.is_remote:
                remedy = f"name its new address in MESH_CONFIG and run `dkist-core outbox retarget {name}`"
            yield skipped(
                "other outbox",
                f"{visible_line(str(state.path))} is for another broker than these settings name; "
                f"pending: {state.waiting}",
                "a publisher with the settings of that broker delivers them; if that broker has moved, "
                f"{remedy if name else 'rename the file: its name cannot be shown'}",
            )
