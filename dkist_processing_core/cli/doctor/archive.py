"""
The doctor's checks of the archive: which events a consumer can still replay.

Not here: reading its span (bus.archived), whether the archive exists (doctor.broker), and whether the journal can be
used (doctor.journal).
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from dkist_processing_core.bus import Bus
from dkist_processing_core.bus.archived import LOOKED_AT, Archived, archived_by_broker, archived_in_journal
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.cli.doctor.check import Check, ok, skipped, wrong
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.errors import BusError, BusRefusedError, JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import counted, duration

_MOMENT = "%Y-%m-%d %H:%M:%S"
_NOTHING = "it holds no event yet"


def check_archive_of_broker(settings: Settings, timeout: float) -> Check:
    """Check which events the stream of the broker holds, by the times in their messages."""
    from dkist_processing_core.bus.amqp.link import AmqpLink  # noqa: PLC0415 - the journal needs no pika

    try:
        with AmqpLink.open(settings, timeout) as link:
            found = archived_by_broker(link)
    except BusRefusedError as error:
        # This is not an error: a publisher does not need this permission.
        advice = f"to replay events, grant this user the read permission on {ARCHIVE_QUEUE}"
        return skipped("archive", str(error), advice)
    except BusError as error:
        return wrong("archive", str(error))
    return ok("archive", _NOTHING if found is None else _span(found))


def check_archive_of_journal(bus: Bus) -> Iterator[Check]:
    """Check which events the embedded journal holds, by the times at which they were stored; nothing without events."""
    found: Archived | None = None
    # Whether the file can be used is another check.
    with contextlib.suppress(JournalError):
        if os.path.lexists(bus.journal_path):
            found = Journal.look(bus.journal_path, lambda journal: archived_in_journal(journal, bus.event_exchange))
    if found is not None:
        yield ok("archive", _span(found))


def _span(found: Archived) -> str:
    count, oldest, newest = found.messages, found.oldest, found.newest
    if oldest is None or newest is None:
        unread = f" among the first and the last {LOOKED_AT} of {count:,} messages" if count > 2 * LOOKED_AT else ""
        return f"it holds no event{unread or ' yet'}"
    held = f" ({duration(newest - oldest)})" if newest - oldest >= 1 else ""
    return f"{counted(count, 'message')}; oldest event {_at(oldest)}, newest {_at(newest)}{held}"


def _at(seconds: float) -> str:
    return local_time(datetime.fromtimestamp(seconds, UTC), _MOMENT, None)
