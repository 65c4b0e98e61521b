"""
Querying, comparing and declaring exchanges, queues and bindings on the broker.

Not here: the required ones (bus.topology).
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from dkist_processing_core.bus.amqp.errors import (
    INTERNAL_ERROR,
    NOT_FOUND,
    PRECONDITION_FAILED,
    code_of,
    is_about_permissions,
)
from dkist_processing_core.bus.amqp.session import RPC_SECONDS, Session
from dkist_processing_core.bus.topology import Binding, Exchange, Queue, Topology
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError


class QueueLoad(NamedTuple):
    """The load of a queue: its messages that are ready for delivery, and its consumers."""

    messages: int
    consumers: int


class Declaring(Session):
    """A session that queries and declares the broker's topology."""

    def __init__(self, *values: Any, **named: Any) -> None:
        """Store the arguments of a session. No connection is opened."""
        super().__init__(*values, **named)
        self.created: set[str] = set()
        """The missing exchanges and queues that this link has declared."""
        self.unknown: list[str] = []
        """Names from the last `declare` or `restore` whose existence this account has no permission to query."""

    def exists(self, kind: str, name: str) -> bool | None:
        """
        Return whether an `exchange` or a `queue` exists; None if that is unknown. This needs no configure permission.

        Some versions of RabbitMQ answer only an account that has a permission on the item. An account that only writes
        or reads elsewhere has none.

        Raises:
            BusError: The broker answers neither yes nor no, or has not started the item yet.
        """
        return self._look(kind, name)[0]

    def queue_load(self, queue: str) -> QueueLoad | None:
        """Return the load of a queue; None if the queue does not exist, or if that is unknown."""
        return self._look("queue", queue)[1]

    def _look(self, kind: str, name: str) -> tuple[bool | None, QueueLoad | None]:
        channel = self._live_channel
        try:
            if kind == "exchange":
                (found,) = self._call(lambda done: channel.exchange_declare(name, passive=True, callback=done))
            else:
                (found,) = self._call(lambda done: channel.queue_declare(name, passive=True, callback=done))
        except BusError as error:
            self._recover(error, name)
            is_missing = isinstance(error, BusRefusedError) and code_of(error) == NOT_FOUND
            # A cut answer is a refusal. If a missing permission was the reason, the next request is refused as well.
            if is_missing or self._is_cut_answer(error, name):
                return False, None
            if is_about_permissions(error):
                return None, None
            raise
        answer = found.method
        return True, QueueLoad(answer.message_count, answer.consumer_count) if kind == "queue" else None

    def compare(self, item: Exchange | Queue) -> str | None:
        """
        Return the broker's message on how the existing exchange or queue differs from `item`; None if it is equal.

        This declares the item again, which does not change an existing one. Call `exists` first: a missing item would
        be created.

        Raises:
            BusRefusedError: The two cannot be compared, for example without the configure permission.
        """
        try:
            self._declare(item)
        except BusError as error:
            self._recover(error, item.name)
            if self._is_cut_answer(error, item.name):
                msg = f"{error}: it differs, or this account may not compare it; the answer was too long to be sent"
                raise BusUnreachableError(msg) from error
            if code_of(error) == PRECONDITION_FAILED:
                return str(error)
            raise
        return None

    def declare(self, topology: Topology) -> bool:
        """Create the missing parts of `topology`; return True if any part was missing."""
        items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
        found = [(item, self._exists(item)) for item in items]
        # An item that this account cannot query is not declared: if it is missing, consuming or publishing fails later.
        missing = [item for item, exists in found if exists is False]
        self.unknown = [item.name for item, exists in found if exists is None]
        for item in missing:
            self._declare(item)
            self.created.add(item.name)
        if missing:
            self.bind(topology)
        return bool(missing)

    def restore(self, topology: Topology, *, bindings: bool = True) -> BusError | None:
        """
        Create the missing parts of `topology`.

        Args:
            topology: The required exchanges, queues and bindings.
            bindings: Also create the bindings if nothing else is missing: AMQP has no query for bindings.

        Returns:
            The broker's refusal if it does not allow that, or if a queue is about to start; otherwise None.
        """
        try:
            self.unknown = []
            if not self.declare(topology) and bindings:
                self.bind(topology)
        except BusError as error:
            # A queue that is about to start counts as an answer as well, although it is not a refusal.
            is_answer = isinstance(error, BusRefusedError) or code_of(error) == NOT_FOUND
            if not (is_answer and self.is_connected):
                raise
            if self._failure is not None:
                self._reopen_channel()
            return error
        return None

    def bind(self, topology: Topology) -> None:
        """Create the bindings of `topology`; existing ones stay unchanged."""
        for binding in topology.bindings:
            self._bind(binding)

    def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove bindings; missing ones are not an error."""
        channel = self._live_channel
        for each in bindings:
            self._call(functools.partial(channel.queue_unbind, each.queue, each.exchange, each.routing_key, None))

    def _is_cut_answer(self, error: BusError, name: str) -> bool:
        """
        Return True if RabbitMQ 4 has closed the connection because it could not send its own refusal.

        AMQP limits the text of a refusal to 255 bytes. RabbitMQ cuts a longer text at any byte, and then fails on the
        half of a character. The text contains the names of the user and the virtual host as well.
        """
        named = f"{name}{self._settings.isb_vhost}{self._settings.isb_username}"
        return code_of(error) == INTERNAL_ERROR and not named.isascii()

    def _recover(self, error: BusError, name: str) -> None:
        """Open a new channel or connection after the broker refused a query about `name`, which closes the channel."""
        if self._is_cut_answer(error, name):
            self.close()
            self._connect(RPC_SECONDS)
        else:
            self._reopen_channel()

    def _bind(self, binding: Binding) -> None:
        channel = self._live_channel
        self._call(lambda done: channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, callback=done))

    def _declare(self, item: Exchange | Queue) -> None:
        channel = self._live_channel
        if isinstance(item, Exchange):
            self._call(lambda done: channel.exchange_declare(item.name, item.type, durable=True, callback=done))
            return
        self._call(
            lambda done: channel.queue_declare(
                item.name,
                durable=not item.exclusive,
                exclusive=item.exclusive,
                arguments=dict(item.arguments),
                callback=done,
            )
        )

    def _exists(self, item: Exchange | Queue) -> bool | None:
        if isinstance(item, Exchange):
            return self.exists("exchange", item.name)
        # No other connection can have created an exclusive queue of this connection.
        return False if item.exclusive else self.exists("queue", item.name)
