"""
RabbitMQ as a bus: its address and its outbox, and opening links, journals and subscriptions.

Not here: requests to the broker (link), the delivery from the outbox (delivery), and subscriptions (receiver).
"""

import copy
import hashlib
import logging
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.bus.interface import MOST_AHEAD, ArchiveEnd, Batches, Offset
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, publisher_topology
from dkist_processing_core.errors import BusError, JournalError
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.opening import open_recovered
from dkist_processing_core.journal.place import open_folder, place
from dkist_processing_core.journal.spare import Spare
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink
    from dkist_processing_core.bus.amqp.receiver import AmqpReceiver

CONNECT_SECONDS = 10.0
logger = logging.getLogger(__name__)


class AmqpBus:
    """Publish through an outbox that is drained to the broker; consume from a queue per name, or from the archive."""

    is_remote = True

    def __init__(self, settings: Settings) -> None:
        """Store the names of broker and outbox. No connection and no file is opened."""
        service = settings.isb_mesh_service
        self.settings = settings
        self.where = f"RabbitMQ at {service.host}:{service.port}, virtual host {settings.isb_vhost}"
        self.event_exchange = settings.isb_event_exchange
        self.failure_exchange = settings.isb_exchange
        destination = [service.host, str(service.port), settings.isb_vhost, self.event_exchange, self.failure_exchange]
        self._destination = "\n".join(destination)
        digest = hashlib.sha256(self._destination.encode()).hexdigest()[:8]
        self.place = place(settings)
        self.journal_path = self.place.folder / f"outbox-{digest}.db"

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the outbox of this broker."""
        open_folder(self.place)
        return open_recovered(self.journal_path, synced=synced, destination=self._destination, patience=patience)

    def with_journal(self, path: Path) -> "AmqpBus":
        """Return this broker with another journal, such as a spare one, as its outbox."""
        other = copy.copy(self)
        other.journal_path = path
        return other

    def open_spare(self) -> Spare:
        """Create a spare journal in the folder of the outbox."""
        open_folder(self.place)
        return Spare.open(self.journal_path)

    def connect(self, timeout: float = CONNECT_SECONDS, *, deadline: float = math.inf) -> "AmqpLink":
        """
        Return a connected link.

        Args:
            timeout: How many seconds to wait for the connection.
            deadline: The time (`time.monotonic`) past which no call of the link waits.

        Raises:
            BusUnreachableError: The broker does not answer in time.
            BusRefusedError: The broker refuses the credentials or the virtual host.
            ConfigurationError: A file that the settings name for TLS cannot be used.
        """
        return self.import_client().open(self.settings, timeout, deadline=deadline)

    def import_client(self) -> "type[AmqpLink]":
        """Import and return the class `AmqpLink`: a process that uses the embedded journal does not need pika."""
        from dkist_processing_core.bus.amqp.link import AmqpLink  # noqa: PLC0415

        return AmqpLink

    def open_link(self, timeout: float = CONNECT_SECONDS) -> "AmqpLink":
        """
        Return a connected link, and create the missing exchanges, queues and bindings of a publisher.

        Raises:
            BusError: The broker cannot be reached, or refuses the login or the creation.
        """
        link = self.connect(timeout)
        try:
            link.declare(publisher_topology(self.settings))
        except BaseException:
            link.close()
            raise
        return link

    def restore(self, link: "AmqpLink", *, bindings: bool = True) -> BusError | None:
        """
        Create the missing exchanges, queues and bindings of a publisher.

        Args:
            link: The connection to use.
            bindings: Also create the bindings if nothing else is missing.

        Returns:
            The broker's refusal, if any.
        """
        error = link.restore(publisher_topology(self.settings), bindings=bindings)
        if (lost := self.lost_history(link)) is not None:
            logger.warning("%s", lost)
        return error

    def lost_history(self, link: "AmqpLink") -> str | None:
        """
        Return a warning of lost events if a link has created the archive but this host has delivered events before.

        The warning is returned once per link; otherwise None.
        """
        if ARCHIVE_QUEUE not in link.created or not self.journal_path.exists():
            return None
        link.created.remove(ARCHIVE_QUEUE)
        try:
            with self.open_journal(synced=False) as journal:
                has_delivered = journal.books().confirmed > 0
        except JournalError:
            has_delivered = False
        if not has_delivered:
            return None
        return (
            f"{self.where} had no {ARCHIVE_QUEUE} any more, and it was created again: "
            "no replay yields the events that were delivered before"
        )

    def ensure(self, link: "AmqpLink", kind: str, name: str) -> None:
        """
        Create a publisher's topology if one part of it is missing; no other part is checked.

        Args:
            link: The connection to use.
            kind: `exchange` or `queue`.
            name: The name of the part.

        Raises:
            BusError: The broker does not allow that.
        """
        if link.exists(kind, name) is False:
            error = self.restore(link)
            if error is not None:
                raise error

    def subscribe(
        self,
        patterns: Iterable[str],
        *,
        name: str | None = None,
        replay: bool | datetime | Offset = False,
        in_batches: bool = False,
        former: Iterable[str] = (),
        only_watches: bool = False,
    ) -> "AmqpReceiver":
        """Return a receiver: of the queue that all receivers of `name` share, or without a name of the archive."""
        # Imported here, because a task publishes only and does not need them.
        from dkist_processing_core.bus.amqp.archive import ARCHIVE_PREFETCH, Archive  # noqa: PLC0415
        from dkist_processing_core.bus.amqp.named_queue import CountedQueue, NamedQueue  # noqa: PLC0415
        from dkist_processing_core.bus.amqp.receiver import AmqpReceiver  # noqa: PLC0415

        if name is None:
            prefetch = MOST_AHEAD if in_batches else ARCHIVE_PREFETCH
            archive = Archive(self, patterns, replay=replay, prefetch=prefetch)
            return AmqpReceiver(self, archive, in_batches=in_batches, only_watches=only_watches)
        queue = NamedQueue(self, name, patterns, former=former) if in_batches else CountedQueue(self, name, patterns)
        return AmqpReceiver(self, queue, in_batches=in_batches)

    def archive_end(self, name: str, *, after: int | None = None) -> ArchiveEnd:
        """Return the end of the archive, and the number of messages that the queue of a name holds."""
        from dkist_processing_core.bus.amqp.consuming import BEGINNING_SECONDS  # noqa: PLC0415 - as above
        from dkist_processing_core.bus.amqp.session import RPC_SECONDS  # noqa: PLC0415 - as above

        with self.connect() as link:
            self.ensure(link, "queue", ARCHIVE_QUEUE)
            last = link.last_of_stream(ARCHIVE_QUEUE, BEGINNING_SECONDS)
            # In this order: each message of the archive was put into the queue before the queue is counted.
            load = link.queue_load(name)
            newest = -1 if last is None or last.offset is None else last.offset
            oldest = []
            if after is not None and after < newest:
                oldest = link.read_stream(ARCHIVE_QUEUE, "first", RPC_SECONDS, count=1)
        return ArchiveEnd(newest, 0 if load is None else load.messages, oldest[0].offset if oldest else None)

    def read_back(self, patterns: Iterable[str], *, since: datetime | None = None) -> Batches:
        """Yield the events of the archive in batches, the newest batch first."""
        from dkist_processing_core.bus.amqp.archive_backwards import read_back  # noqa: PLC0415 - as above

        with self.connect() as link:
            self.ensure(link, "queue", ARCHIVE_QUEUE)
            yield from read_back(link, tuple(patterns), since)
