"""
The doctor's checks of the archive: which events a consumer can still replay.

Not here: whether the archive exists (doctor.broker), and whether the journal can be used (doctor.journal).
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus import Bus
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.cli.doctor.check import Check, ok, skipped, wrong
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.errors import BusError, BusRefusedError, JournalError
from dkist_processing_core.events import TYPE_PREFIX
from dkist_processing_core.journal import Journal
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import counted, duration

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

_READ_SECONDS = 5.0
# The first and the last messages may be those of this command, which are no events.
_LOOKED_AT = 200
_MOMENT = "%Y-%m-%d %H:%M:%S"
_NOTHING = "it holds no event yet"


def check_archive_of_broker(settings: Settings, timeout: float) -> Check:
    """Check which events the stream of the broker holds, by the times in their messages."""
    from dkist_processing_core.bus.amqp.link import AmqpLink  # noqa: PLC0415 - the journal needs no pika

    try:
        with AmqpLink.open(settings, timeout) as link:
            return ok("archive", _held_by_broker(link))
    except BusRefusedError as error:
        # This is not an error: a publisher does not need this permission.
        advice = f"to replay events, grant this user the read permission on {ARCHIVE_QUEUE}"
        return skipped("archive", str(error), advice)
    except BusError as error:
        return wrong("archive", str(error))


def _held_by_broker(link: "AmqpLink") -> str:
    first = link.read_stream(ARCHIVE_QUEUE, "first", _READ_SECONDS, count=1)
    last = link.last_of_stream(ARCHIVE_QUEUE, _READ_SECONDS)
    if not first or last is None:
        return _NOTHING
    begin, end = first[0].offset or 0, last.offset or 0
    oldest = _time_of(_read(link, begin, min(begin + _LOOKED_AT, end)))
    newest = _time_of(_read(link, max(begin, end - _LOOKED_AT), end)[::-1])
    return _span(end - begin + 1, oldest, newest)


def _read(link: "AmqpLink", begin: int, end: int) -> "list[TaggedMessage]":
    return link.read_stream(ARCHIVE_QUEUE, begin, _READ_SECONDS, count=end - begin + 1, until=end)


def _time_of(received: "Sequence[TaggedMessage]") -> float | None:
    """Return the time of the first message that is an event; None if none of them is."""
    for each in received:
        properties = each.message.properties
        if properties.timestamp is not None and (properties.type or "").startswith(TYPE_PREFIX):
            return float(properties.timestamp)
    return None


def check_archive_of_journal(bus: Bus) -> Iterator[Check]:
    """Check which events the embedded journal holds, by the times at which they were stored; nothing without events."""
    found: tuple[int, float | None, float | None] = (0, None, None)
    # Whether the file can be used is another check.
    with contextlib.suppress(JournalError):
        if os.path.lexists(bus.journal_path):
            found = Journal.look(bus.journal_path, lambda journal: _held(journal, bus.event_exchange))
    count, oldest, newest = found
    if oldest is not None:
        yield ok("archive", _span(count, oldest, newest))


def _held(journal: Journal, exchange: str) -> tuple[int, float | None, float | None]:
    query = "SELECT appended FROM message WHERE exchange = ? ORDER BY seq"
    oldest, newest = (journal.rows(f"{query} {order} LIMIT 1", exchange) for order in ("ASC", "DESC"))
    return journal.books().pending, oldest[0][0] if oldest else None, newest[0][0] if newest else None


def _span(count: int, oldest: float | None, newest: float | None) -> str:
    if oldest is None or newest is None:
        unread = f" among the first and the last {_LOOKED_AT} of {count:,} messages" if count > 2 * _LOOKED_AT else ""
        return f"it holds no event{unread or ' yet'}"
    held = f" ({duration(newest - oldest)})" if newest - oldest >= 1 else ""
    return f"{counted(count, 'message')}; oldest event {_at(oldest)}, newest {_at(newest)}{held}"


def _at(seconds: float) -> str:
    return local_time(datetime.fromtimestamp(seconds, UTC), _MOMENT, None)
