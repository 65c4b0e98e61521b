"""
What a named subscription on RabbitMQ has lost: how far it has read, kept on this host, compared with the archive.

Not here: the subscription's connection (_amqp_bus).
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from dkist_processing_core.bus._bus import topic_matches
from dkist_processing_core.bus._place import open_folder
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.errors import BusError, BusUnreachableError, JournalError
from dkist_processing_core.trusted import open_file

if TYPE_CHECKING:
    from pathlib import Path

    from dkist_processing_core.bus._amqp import AmqpLink, Received
    from dkist_processing_core.bus._amqp_bus import AmqpBus

LOOK_SECONDS = 10.0
"""How often the depth of a queue is asked for while its messages are read."""
KEEP_SECONDS = 0.1
# A queue that drops its oldest messages is full, but for what was read or has yet to come just now.
_FULL_SHARE = 0.99
# Shorter than the broker waits for a heartbeat on the subscription's connection, which rests meanwhile.
_COUNT_SECONDS = 8.0
_PREFETCH = 500
_NEW_STREAM_SECONDS = 0.1
# By how much the clocks of publishers and broker may differ.
_CLOCK_MARGIN = 60
_FILE_BYTES = 1024
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """The last message that was dealt with, or the first offset of the archive that a new queue holds."""

    message_id: str = ""
    timestamp: int = 0
    offset: int | None = None

    @classmethod
    def of(cls, received: "Received") -> Self:
        """Return the mark behind a message."""
        properties = received.message.properties
        return cls(properties.message_id, properties.timestamp or 0)


class Losses:
    """Counts what one subscription did not get, and warns of it."""

    def __init__(self, bus: "AmqpBus", name: str, patterns: Iterable[str], *, limit: int, prefetch: int) -> None:
        """Name the subscription's queue, which keeps `limit` messages; nothing is asked or opened yet."""
        self.missed = 0
        self._bus = bus
        self._name = name
        self._patterns = tuple(patterns)
        self._limit = limit
        self._prefetch = prefetch
        self._digest = hashlib.sha256(f"{bus.journal_path.name}\n{name}".encode()).hexdigest()[:8]
        self._path: Path | None = None
        self._last: Mark | None = None
        self._looks_next_at = math.inf
        self._settled: Mark | None = None
        self._kept_at = -math.inf
        # Where a full queue is compared from, how many messages came since, and how many more come before it is.
        self._since: Mark | None = None
        self._between = self._ahead = 0
        self._is_comparing = False

    def attach(self, link: "AmqpLink", *, is_there: bool | None) -> None:
        """Compare with what this host has read, before the queue is made or read."""
        self.flush()
        self._last = self._kept()
        depth = link.depth(self._name) if is_there else None
        self._looks_next_at = math.inf if depth is None else time.monotonic() + LOOK_SECONDS
        self._is_comparing = self._is_full(depth)
        self._since, self._between, self._ahead = self._last, 0, 0
        if is_there is False:
            if self._last is not None:
                self._report(self._count(self._last), "its queue was deleted, or has expired without use")
            end = self._end_of_archive()
            self._last = None if end is None else Mark(offset=end + 1)
            self._keep(self._last)
            self._looks_next_at = time.monotonic() + LOOK_SECONDS

    def receive(self, link: "AmqpLink", received: "Received") -> None:
        """Compare what was received with the archive, from time to time where the queue is full."""
        if self._is_comparing and self._ahead == 0:
            found = None if self._since is None else self._count(self._since, received.message.properties.message_id)
            if found is not None:
                found = max(0, found[0] - self._between), found[1]
            self._report(found, f"its queue keeps {self._limit} and drops the oldest")
            self._is_comparing, self._looks_next_at = False, 0.0
        before, self._last = self._last, Mark.of(received)
        if self._is_comparing:
            self._between, self._ahead = self._between + 1, self._ahead - 1
        elif time.monotonic() > self._looks_next_at:
            self._looks_next_at = time.monotonic() + LOOK_SECONDS
            depth = link.depth(self._name)
            if depth is None:
                # The look has closed the channel that the messages come by.
                msg = f"{link.where}: the queue {self._name} is gone"
                raise BusUnreachableError(msg)
            # What was delivered ahead of its acknowledgement came before the gap.
            self._is_comparing = self._is_full(depth)
            self._since, self._between, self._ahead = before, 1, self._prefetch

    def _is_full(self, depth: int | None) -> bool:
        return depth is not None and depth >= self._limit * _FULL_SHARE

    def settle(self, received: "Received") -> None:
        """Note that a message was dealt with, on the disk ten times a second at most."""
        self._settled = Mark.of(received)
        if time.monotonic() > self._kept_at + KEEP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write down what was dealt with last."""
        self._keep(self._settled)
        self._settled, self._kept_at = None, time.monotonic()

    def _report(self, found: tuple[int, bool] | None, reason: str) -> None:
        count, is_all = found or (0, False)
        self.missed += count
        if found is None:
            logger.warning("the subscription %r may have lost events: %s; how many is not known", self._name, reason)
        elif count:
            how_many = f"{count}" if is_all else f"at least {count}"
            logger.warning(
                "the subscription %r has lost %s events: %s; subscribe(replay=…) yields what the archive still has",
                self._name,
                how_many,
                reason,
            )

    def _count(self, mark: Mark, until: str | None = None) -> tuple[int, bool] | None:
        """Count what lies in the archive between a mark and a message; return it, and whether that was all of it."""
        deadline = time.monotonic() + _COUNT_SECONDS
        began = datetime.fromtimestamp(max(0, mark.timestamp - _CLOCK_MARGIN), UTC)
        counted = 0
        with contextlib.suppress(BusError), self._bus.connect(_COUNT_SECONDS) as link:
            last = link.last_of_stream(ARCHIVE_QUEUE, _NEW_STREAM_SECONDS)
            end = -1 if last is None or last.offset is None else last.offset
            if mark.offset is not None and mark.offset > end:
                return 0, True
            start = began if mark.offset is None else mark.offset
            link.consume(ARCHIVE_QUEUE, prefetch=_PREFETCH, arguments={"x-stream-offset": start})
            while (received := link.receive(max(0.0, deadline - time.monotonic()))) is not None:
                link.acknowledge(received.tag)
                found = received.message.properties.message_id
                if found == until:
                    return counted, True
                if found == mark.message_id:
                    counted = 0
                elif any(topic_matches(pattern, received.message.routing_key) for pattern in self._patterns):
                    counted += 1
                if received.offset is None or received.offset >= end:
                    return (counted, True) if until is None else None
            return counted, False
        return None

    def _end_of_archive(self) -> int | None:
        with contextlib.suppress(BusError), self._bus.connect(_COUNT_SECONDS) as link:
            last = link.last_of_stream(ARCHIVE_QUEUE, _NEW_STREAM_SECONDS)
            return -1 if last is None or last.offset is None else last.offset
        return None

    def _kept(self) -> Mark | None:
        with contextlib.suppress(OSError, JournalError, ValueError, TypeError):
            self._path = open_folder(self._bus.place) / f"read-{self._digest}.json"
            with os.fdopen(open_file(self._path, os.O_RDONLY), "rb") as file:
                return Mark(**json.loads(file.read(_FILE_BYTES)))
        return None

    def _keep(self, mark: Mark | None) -> None:
        """Write a mark in one piece, of one length, so that a kill leaves this one or the one before."""
        if self._path is None or mark is None:
            return
        content = json.dumps(asdict(mark)).encode().ljust(_FILE_BYTES)
        # It is a convenience: a full disk must end no subscription.
        with contextlib.suppress(OSError), os.fdopen(open_file(self._path, os.O_WRONLY | os.O_CREAT), "wb", 0) as file:
            file.write(content)
