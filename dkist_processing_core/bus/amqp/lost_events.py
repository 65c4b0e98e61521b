"""
Counting lost events of a named subscription on RabbitMQ: its read position on this host is compared with the archive.

Not here: the connection of the subscription (consumer_thread).
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, Self

from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.errors import BusError, BusUnreachableError, JournalError
from dkist_processing_core.journal.message import topic_matches
from dkist_processing_core.journal.place import open_folder
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.trusted_files import open_file
from dkist_processing_core.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.declaring import QueueLoad
    from dkist_processing_core.bus.amqp.link import AmqpLink

LOOK_SECONDS = 10.0
"""How often the length of a queue is queried while its messages are read."""
KEEP_SECONDS = 0.1
# A queue that drops its oldest messages is full, except for messages just read and messages about to arrive.
_FULL_SHARE = 0.99
# The subscription's connection is idle during both, so their sum is shorter than the broker waits for a heartbeat.
_COUNT_SECONDS, _END_SECONDS = 8.0, 4.0
# The pause between comparisons: so many seconds after the archive could not be read, otherwise this multiple of the
# time that the comparison took. Messages have priority, and wait during a comparison.
_UNKNOWN_SECONDS = 60.0
_COST_RATIO = 20
_PREFETCH = 500
_NEW_STREAM_SECONDS = 0.1
_BEGINNING_SECONDS = 1.0
# By how much the clocks of publishers and broker may differ.
_CLOCK_MARGIN = 60
_MAX_OFFSET = 2**63
# A message's id has up to 255 bytes, and JSON may encode each of them as six bytes.
_FILE_BYTES = 2048
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in the archive: after a message, or at an offset if that is known."""

    message_id: str = ""
    timestamp: int = 0
    offset: int | None = None

    @classmethod
    def behind(cls, received: "TaggedMessage") -> Self:
        """Return the mark after a message, whose publisher may have set any timestamp or none."""
        properties = received.message.properties
        return cls(properties.message_id, _not_after_now(properties.timestamp or _MAX_OFFSET))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """
        Return the mark that the text of a file contains.

        Raises:
            ValueError, TypeError: The text contains no mark.
        """
        mark = cls(**json.loads(text))
        is_one = type(mark.message_id) is str and type(mark.timestamp) is int and type(mark.offset) in (int, NoneType)
        if not is_one or not 0 <= (mark.offset or 0) < _MAX_OFFSET:
            msg = f"found {mark}, expected a text, whole seconds, and an offset or null"
            raise ValueError(msg)
        return replace(mark, timestamp=_not_after_now(mark.timestamp))


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of the archive between a mark and a message."""

    count: int
    is_all: bool
    """Whether it was read from the mark to its end."""
    end: int | None
    """The offset after it; None if it was not read to its end."""


class LostEvents:
    """Counts the events that one subscription has lost, and logs warnings about them."""

    def __init__(self, bus: "AmqpBus", name: str, patterns: Iterable[str], *, limit: int, prefetch: int) -> None:
        """Store the name of the subscription's queue, which keeps `limit` messages. No query is sent."""
        self.missed = 0
        self._bus = bus
        self._name = name
        self._patterns = tuple(patterns)
        self._limit = limit
        self._prefetch = prefetch
        self._digest = hashlib.sha256(f"{bus.journal_path.name}\n{name}".encode()).hexdigest()[:8]
        self._path: Path | None = None
        self._settled: Mark | None = None
        self._kept_at = -math.inf
        # The mark to compare from, the number of messages received since, and for how many more the queue counts as
        # full.
        self._since: Mark | None = None
        self._received = 0
        self._full_for = -1
        self._looks_next_at = math.inf
        self._rests_until = -math.inf

    def attach(self, link: "AmqpLink", *, is_there: bool | None) -> None:
        """Compare the archive with this host's read position, before the queue is created or read."""
        self.flush()
        self._since = self._kept()
        if is_there is False:
            found = None
            if self._since is not None:
                found = self._count(self._since)
                self._report(found, 0, "its queue was deleted, or has expired without use")
            end = None if found is None else found.end
            self._since = self._end_of_archive() if end is None else Mark(offset=end)
            self._keep(self._since)
        load = link.queue_load(self._name) if is_there else None
        self._received, self._full_for = 0, -1
        if self._is_full(load):
            self._full_for, self._looks_next_at = self._prefetch, self._rests_until
        else:
            # Never look if this account may not query the queue.
            is_known = is_there is False or load is not None
            next_look = max(self._rests_until, time.monotonic() + LOOK_SECONDS)
            self._looks_next_at = next_look if is_known else math.inf

    def receive(self, link: "AmqpLink", received: "TaggedMessage") -> None:
        """Compare the received messages with the archive, from time to time while the queue is full."""
        began = time.monotonic()
        if began > self._looks_next_at:
            load = link.queue_load(self._name)
            if load is None:
                # The query has closed the channel on which the messages arrive.
                msg = f"{link.where}: the queue {self._name} is gone, or this account may not query it any more"
                raise BusUnreachableError(msg)
            if self._is_full(load):
                # Messages that were already prefetched come before the gap.
                self._full_for = self._received + self._prefetch
            rest = LOOK_SECONDS
            offset = None
            if self._full_for >= 0:
                found = (
                    None if self._since is None else self._count(self._since, received.message.properties.message_id)
                )
                reason = f"its queue keeps {self._limit} and drops the oldest"
                self._report(found, self._received, reason, is_shared=load.consumers > 1)
                offset = None if found is None else found.end
                rest = max(rest, _UNKNOWN_SECONDS if found is None else _COST_RATIO * (time.monotonic() - began))
            self._since = replace(Mark.behind(received), offset=offset)
            self._full_for -= self._received + 1
            self._received = 0
            self._looks_next_at = self._rests_until = time.monotonic() + rest
        else:
            self._received += 1

    def _is_full(self, load: "QueueLoad | None") -> bool:
        return load is not None and load.messages >= self._limit * _FULL_SHARE

    def settle(self, received: "TaggedMessage") -> None:
        """Record that a message was settled; write this to the disk at most ten times a second."""
        self._settled = Mark.behind(received)
        if time.monotonic() > self._kept_at + KEEP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the mark after the last settled message to the disk."""
        self._keep(self._settled)
        self._settled, self._kept_at = None, time.monotonic()

    def _report(self, found: Stretch | None, received: int, reason: str, *, is_shared: bool = False) -> None:
        count = 0 if found is None else max(0, found.count - received)
        if found is None or not (found.is_all or (count and not is_shared)):
            logger.warning("the subscription %r may have lost events: %s; how many is not known", self._name, reason)
        elif count:
            # Messages that other consumers of the queue have received are not lost, but are not known here.
            self.missed += 0 if is_shared else count
            bound = "at most " if is_shared else "" if found.is_all else "at least "
            logger.warning(
                "the subscription %r has lost %s: %s; subscribe(replay=…) yields those still in the archive",
                self._name,
                f"{bound}{counted(count, 'event')}",
                reason,
            )

    def _count(self, mark: Mark, until: str | None = None) -> Stretch | None:
        """Read the archive from a mark to a message, or to the archive's end; return None if that is impossible."""
        if until == "" or (mark.message_id == "" and mark.offset is None):
            # The publisher has set no id by which the message could be found.
            return None
        if until == mark.message_id:
            return Stretch(0, is_all=True, end=None)
        deadline = time.monotonic() + _COUNT_SECONDS
        # No fault of a mark or of the archive may end a subscription.
        with signals_deferred(), contextlib.suppress(Exception):
            began = datetime.fromtimestamp(max(0, mark.timestamp - _CLOCK_MARGIN), UTC)
            # The publisher's clock may be wrong by any amount: then the archive is read from its beginning.
            for start in (began, "first") if mark.offset is None else (mark.offset,):
                with self._bus.connect(_COUNT_SECONDS, deadline=deadline) as link:
                    found = self._read(link, mark, start, until, deadline)
                if found is not None:
                    return found
        return None

    def _read(
        self, link: "AmqpLink", mark: Mark, start: datetime | str | int, until: str | None, deadline: float
    ) -> Stretch | None:
        """Read the archive from `start`; return None if the mark or the end message is not found."""
        last = _last_offset(link)
        if mark.offset is not None and mark.offset > last:
            return Stretch(0, is_all=True, end=mark.offset)
        if last < 0 and until is None:
            return None
        link.consume(ARCHIVE_QUEUE, prefetch=_PREFETCH, arguments={"x-stream-offset": start})
        count, is_met, is_cut = 0, False, None
        # If the start time is after all messages, the broker delivers nothing and does not report it.
        timeout = _BEGINNING_SECONDS if isinstance(start, datetime) else math.inf
        while (received := link.receive(max(0.0, min(timeout, deadline - time.monotonic())))) is not None:
            link.acknowledge(received.tag)
            timeout = math.inf
            properties, offset = received.message.properties, received.offset or 0
            if is_cut is None:
                # True if the archive has already dropped the mark: all its messages came later.
                is_later = start == "first" and (properties.timestamp or 0) > mark.timestamp
                is_cut = is_later if mark.offset is None else offset > mark.offset
                is_met = mark.offset is not None and not is_cut
            is_end = properties.message_id == until
            if mark.offset is None and properties.message_id == mark.message_id:
                count, is_met = 0, True
            elif not is_end and any(topic_matches(each, received.message.routing_key) for each in self._patterns):
                count += 1
            if is_end or offset >= last:
                is_found = (is_end or until is None) and (is_met or is_cut)
                return Stretch(count, is_all=is_met, end=offset + 1) if is_found else None
        return Stretch(count, is_all=False, end=None) if is_met or is_cut else None

    def _end_of_archive(self) -> Mark | None:
        deadline = time.monotonic() + _END_SECONDS
        with contextlib.suppress(BusError), self._bus.connect(_END_SECONDS, deadline=deadline) as link:
            return Mark(offset=_last_offset(link) + 1)
        return None

    def _kept(self) -> Mark | None:
        with contextlib.suppress(OSError, JournalError, ValueError, TypeError):
            self._path = open_folder(self._bus.place) / f"read-{self._digest}.json"
            with os.fdopen(open_file(self._path, os.O_RDONLY), "rb") as file:
                return Mark.from_json(file.read(_FILE_BYTES))
        return None

    def _keep(self, mark: Mark | None) -> None:
        """Write a mark in one write of fixed length, so that a kill leaves either this mark or the previous one."""
        if self._path is None or mark is None:
            return
        content = json.dumps(asdict(mark)).encode().ljust(_FILE_BYTES)
        # The mark is only a convenience: a full disk must not end a subscription.
        with contextlib.suppress(OSError), os.fdopen(open_file(self._path, os.O_WRONLY | os.O_CREAT), "wb", 0) as file:
            file.write(content)


def _not_after_now(timestamp: int) -> int:
    return max(0, min(timestamp, int(time.time())))


def _last_offset(link: "AmqpLink") -> int:
    """Return the offset of the archive's last message; -1 if it has none."""
    last = link.last_of_stream(ARCHIVE_QUEUE, _NEW_STREAM_SECONDS)
    return -1 if last is None or last.offset is None else last.offset
