"""
What the archive of a bus holds: how many messages, and the times of the oldest and the newest event.

Not here: reading its events (interface), and what follows from its span (cli.doctor, dashboard).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.events import TYPE_PREFIX
from dkist_processing_core.journal import Journal

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

_READ_SECONDS = 5.0
LOOKED_AT = 200
"""
The number of first, and of last, messages of a stream among which an event is looked for.

The first and the last messages may be those of `dkist-core doctor`, which are no events.
"""


@dataclass(frozen=True, slots=True)
class Archived:
    """What an archive holds; times are in seconds since 1970."""

    messages: int
    newest_number: int
    """The number of the newest message among all that there ever were; it grows with each message."""
    oldest: float | None
    newest: float | None
    """The times of the oldest and the newest event; None if none was found."""


def archived_by_broker(link: "AmqpLink") -> Archived | None:
    """
    Return what the stream of a broker holds, by the times in its messages; None if it is empty.

    Raises:
        BusError: The broker cannot be used, or refuses to let this user read the stream.
    """
    first = link.read_stream(ARCHIVE_QUEUE, "first", _READ_SECONDS, count=1)
    last = link.last_of_stream(ARCHIVE_QUEUE, _READ_SECONDS)
    if not first or last is None:
        return None
    begin, end = first[0].offset or 0, last.offset or 0
    oldest = _time_of(_read(link, begin, min(begin + LOOKED_AT, end)))
    newest = _time_of(_read(link, max(begin, end - LOOKED_AT), end)[::-1])
    return Archived(end - begin + 1, end, oldest, newest)


def _read(link: "AmqpLink", begin: int, end: int) -> "list[TaggedMessage]":
    return link.read_stream(ARCHIVE_QUEUE, begin, _READ_SECONDS, count=end - begin + 1, until=end)


def _time_of(received: "list[TaggedMessage]") -> float | None:
    """Return the time of the first message that is an event; None if none of them is."""
    for each in received:
        properties = each.message.properties
        if properties.timestamp is not None and (properties.type or "").startswith(TYPE_PREFIX):
            return float(properties.timestamp)
    return None


def archived_in_journal(journal: Journal, exchange: str) -> Archived | None:
    """Return what an embedded journal holds, by the times at which it stored the events; None if it has none."""
    query = "SELECT appended FROM message WHERE exchange = ? ORDER BY seq"
    oldest, newest = (journal.rows(f"{query} {order} LIMIT 1", exchange) for order in ("ASC", "DESC"))
    if not oldest or not newest:
        return None
    return Archived(journal.books().pending, journal.last(), oldest[0][0], newest[0][0])
