"""
The lines of the commands that read the bus about the messages of this host that wait for its broker.

Not here: reading the waiting events (consumer.backwards), and listing and delivering the messages (cli.outbox).
"""

import contextlib
from typing import TYPE_CHECKING

from dkist_processing_core.bus import open_bus
from dkist_processing_core.errors import BusUnreachableError, JournalError
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import counted

if TYPE_CHECKING:
    from dkist_processing_core.outbox import OutboxState


def waiting_remark(settings: Settings) -> str | None:
    """Return how many messages of this host wait for the broker, and what delivers them; None if there are none."""
    state = _outbox(settings)
    if state is None or not state.waiting:
        return None
    verb = "waits" if state.waiting == 1 else "wait"
    delivers = "`dkist-core outbox drain`" if state.deliverer is None else f"process {state.deliverer}"
    them = "it" if state.waiting == 1 else "them"
    return f"{counted(state.waiting, 'message')} of this host {verb} for the broker; {delivers} delivers {them}"


def only_waiting(settings: Settings, error: BusUnreachableError, count: int) -> BusUnreachableError:
    """Return the error of an unreachable broker, with the number of events that this host shows instead."""
    path, state = open_bus(settings).journal_path, _outbox(settings)
    messages = 0 if state is None else state.waiting
    place = f"of {counted(messages, 'message')} in {path}" if messages > count else str(path)
    found = f"only events that wait on this host for the broker: {count}" if count else "no event waits on this host"
    if not count and messages:
        found = "no such event waits on this host"
    return BusUnreachableError(f"{error}; {found} ({place})")


def _outbox(settings: Settings) -> "OutboxState | None":
    """Return the outbox of the settings; None for the embedded journal, and if there is none or it cannot be read."""
    if not open_bus(settings).is_remote:
        return None
    from dkist_processing_core.outbox import outboxes  # noqa: PLC0415 - not needed for the first line

    with contextlib.suppress(JournalError):
        return next((each for each in outboxes(settings) if each.is_current), None)
    return None
