"""
Reading the archive backwards, from its newest message on, as far as the caller needs.

A stream is read forwards only. Therefore each batch is a separate read, which begins by its number of messages before
the previous one. Not here: subscriptions (archive), and the connection (session).
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus.amqp.consuming import BEGINNING_SECONDS, CLOCK_MARGIN
from dkist_processing_core.bus.amqp.session import RPC_SECONDS
from dkist_processing_core.bus.interface import FEWEST_AT_ONCE, MOST_AT_ONCE, Batches
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.journal.message import topic_matches

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink


def read_back(link: "AmqpLink", patterns: Collection[str], since: datetime | None) -> Batches:
    """Yield the messages of the archive in batches; see `Bus.read_back`."""
    batch = link.last_chunk_of_stream(ARCHIVE_QUEUE, BEGINNING_SECONDS)
    begin = 0 if since is None or not batch else _offset_at(link, since, batch[-1])
    size = FEWEST_AT_ONCE
    while batch:
        yield [each.message for each in batch if _matches(patterns, each) and (each.offset or 0) >= begin]
        upper = batch[0].offset or 0
        if upper <= begin:
            return
        first = max(begin, upper - size)
        read = link.read_stream(ARCHIVE_QUEUE, first, RPC_SECONDS, count=size, until=upper - 1)
        # The broker completes the last chunk. If it has removed messages, the read begins later and goes beyond.
        batch = [each for each in read if (each.offset or 0) < upper]
        size = min(2 * size, MOST_AT_ONCE)


def _offset_at(link: "AmqpLink", since: datetime, last: "TaggedMessage") -> int:
    """Return the offset of the first message that reached the archive at that time or slightly earlier."""
    # If there is no message after that time, the broker delivers nothing and does not report it.
    may_hold_nothing = (last.message.properties.timestamp or 0) < since.timestamp()
    seconds = BEGINNING_SECONDS if may_hold_nothing else RPC_SECONDS
    first = link.read_stream(ARCHIVE_QUEUE, since - CLOCK_MARGIN, seconds, count=1)
    return (first[0] if first else last).offset or 0


def _matches(patterns: Iterable[str], received: "TaggedMessage") -> bool:
    return any(topic_matches(pattern, received.message.routing_key) for pattern in patterns)
