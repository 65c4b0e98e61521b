"""
RabbitMQ over AMQP 0.9.1: the only module that imports pika, and that converts pika's errors.

An `AmqpLink` is one connection with one channel. One thread uses it, one call at a time; callers see no callbacks. Only
`wake` may be called from other threads. Not here: what to send and when (drain), what a delivery means (consumer).
"""

import contextlib
import errno
import itertools
import logging
import math
import os
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar, cast

import pika
import pika.adapters.select_connection
import pika.adapters.utils.selector_ioloop_adapter
import pika.channel
import pika.frame
import pika.spec
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ChannelClosedByClient,
    ChannelError,
    ConnectionClosed,
    ConnectionOpenAborted,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    ReentrancyError,
    StreamLostError,
)

from dkist_processing_core.bus.amqp import tls
from dkist_processing_core.bus.topology import Binding, Exchange, Queue, Topology
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, ConnectionFailedHereError
from dkist_processing_core.journal.message import APP_ID, Message, Properties
from dkist_processing_core.process.descriptors import Held, move_up
from dkist_processing_core.process.signals import held_back
from dkist_processing_core.text import redact

WINDOW, WINDOW_BYTES = 1000, 4 * 1024 * 1024
"""How many messages, and bytes of their bodies, may be sent to the broker and still unconfirmed."""
HEARTBEAT_SECONDS = 10
CLOSE_SECONDS = 1.0
RPC_SECONDS = 10.0
_GIVE_UP_SECONDS = 0.25
# The largest prefetch count of AMQP: more than RabbitMQ puts into one chunk of a stream.
_CHUNK_MESSAGES = 65535
_NOT_FOUND, _ACCESS_REFUSED, _RESOURCE_LOCKED, _PRECONDITION_FAILED, _NOT_ALLOWED = 404, 403, 405, 406, 530
_INTERNAL_ERROR = 541
_REMEDIES = {
    403: "; grant the user that right (`rabbitmqctl set_permissions`)",
    404: "; make what is missing (`dkist-core topology apply`)",
}
_REFUSALS = (_NOT_FOUND, _ACCESS_REFUSED, _RESOURCE_LOCKED, _PRECONDITION_FAILED, _NOT_ALLOWED)
# AMQP 0.9.1: frame error, syntax error, command invalid, unexpected frame, resource error, not implemented, internal.
_NO_ROUTE = 312
_FAULTS_OF_A_SENDER = {501, 502, 503, 505, 506, 540, _INTERNAL_ERROR}
_PIKA_ERRORS = (AMQPError, ChannelError, ReentrancyError)
# RabbitMQ's texts for reasons that pass, which it sends with a code for a missing or forbidden resource: a consumer
# that acknowledged too late (`consumer_timeout`), and a queue that is about to start or to move (rabbit_amqqueue.erl,
# `priv_absent`, `with`).
_SIGNS_OF_A_PASSING_REASON = (
    "delivery acknowledgement",
    "is down or inaccessible",
    "is stopped by supervisor",
    "due to timeout",
    "has crashed",
    "may be stopping or being demoted",
)
# RabbitMQ's text about a routing key that a topic permission refuses. For an exchange it has "exchange" there.
_SIGN_OF_A_KEY = "access to topic "
_MAX_SHORT_BYTES = 255
_MAX_GATHERED_BYTES = 256 * 1024
# AMQP 0.9.1: a frame begins with type, channel and size; a content header begins with class, weight and body size.
_FRAME_START, _HEADER_START = struct.Struct(">BHL"), struct.Struct(">HHQ")
_ErrorT = TypeVar("_ErrorT", bound=BaseException)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """The broker's answers to sent messages, by the keys that the messages were sent with."""

    confirmed: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Key and reason of each refusal."""
    returned: dict[int, str] = field(default_factory=dict)
    """The exchange of each refused message that no queue bound to that exchange accepts, by key."""
    exchanges: set[str] = field(default_factory=set)
    """The exchanges of the confirmed messages."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the broker delivered, and the tag by which this link acknowledges it."""

    tag: int
    message: Message

    @property
    def offset(self) -> int | None:
        """The offset of the message in its stream; None if it does not come from a stream."""
        offset = self.message.properties.headers.get("x-stream-offset")
        return offset if isinstance(offset, int) else None


class Load(NamedTuple):
    """The load of a queue: its messages that are ready for delivery, and its consumers."""

    messages: int
    consumers: int


class _Waking(threading.local):
    """Whether a thread is waking the owner of a link, and whether it must do so once more."""

    def __init__(self) -> None:
        self.is_busy = False
        self.is_wanted = False


class AmqpLink:
    """One connection to the broker of the settings. Every failure is a `BusError` with a message for operators."""

    def __init__(self, settings: DKISTProcessingCoreConfiguration, *, deadline: float = math.inf) -> None:
        """Store the settings and the deadline (`time.monotonic`) of all waits; nothing is connected yet."""
        service = settings.isb_mesh_service
        self.where = f"RabbitMQ at {service.host}:{service.port}"
        self._pid = os.getpid()
        self._waking = _Waking()
        self._settings = settings
        self._deadline = deadline
        self._failure: BusError | None = None
        self._connection: _Connection | None = None
        self._channel: pika.channel.Channel | None = None
        self._is_open = False
        self.blocked_reason: str | None = None
        self.made: set[str] = set()
        """The missing exchanges and queues that this link has declared."""
        self.unseen: list[str] = []
        """Names from the last `declare` or `restore` whose existence this account has no right to query."""
        self._unsettled: dict[int, tuple[int, Message]] = {}
        self._unsettled_bytes = 0
        self._returned: dict[tuple[str, str], deque[str]] = {}
        self._settled = Settled()
        self._next_tag = 1
        self._deliveries: deque[Received] = deque()
        self._woken = False

    @classmethod
    def open(cls, settings: DKISTProcessingCoreConfiguration, timeout: float, *, deadline: float = math.inf) -> Self:
        """
        Return a connected link whose channel is in confirm mode; none of its calls waits past `deadline`.

        Raises:
            BusUnreachableError: The broker does not answer within `timeout` seconds.
            BusRefusedError: The broker refuses the credentials or the virtual host.
        """
        link = cls(settings, deadline=deadline)
        link._connect(timeout)
        return link

    def _connect(self, timeout: float) -> None:
        self._failure, self._is_open = None, False
        with self._explained():
            self._connection = _Connection(
                _parameters(self._settings, timeout),
                on_open_callback=self._on_connection_open,
                on_open_error_callback=lambda _, error: self._fail(error),
                on_close_callback=lambda _, error: self._fail(error),
                custom_ioloop=_Services(),
            )
        try:
            # pika gives up by itself at the timeout, and closes the socket only then.
            self._run(lambda: self._is_open, timeout + _GIVE_UP_SECONDS, "does not answer")
            self._open_channel(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection within a second, or drop it; a fork only drops it, because its parent still uses it."""
        connection, self._connection = self._connection, None
        if connection is None or self._pid != os.getpid():
            return
        if not connection.is_ours:
            _let_be(connection)
            return
        # A broker that blocks publishers reads nothing from the connection, and so does not receive the close either.
        patience = 0.0 if self.blocked_reason else CLOSE_SECONDS
        with contextlib.suppress(*_PIKA_ERRORS, OSError), _pika_silenced():
            if connection.is_open:
                connection.add_on_close_callback(lambda *_: connection.ioloop.stop())
                connection.close()
                connection.ioloop.call_later(patience, connection.ioloop.stop)
                connection.ioloop.start()
                transport = connection._transport  # noqa: SLF001 - pika has no public way to hang up on a silent peer
                if transport is not None:
                    transport.abort()
                    connection.ioloop.call_later(patience, connection.ioloop.stop)
                    connection.ioloop.start()
            elif not (connection.is_closed or connection.is_closing):
                # Closed while it connects: pika closes the socket in a turn of the loop, and then raises an
                # AssertionError about its own state.
                connection.close()
                connection.ioloop.call_later(_GIVE_UP_SECONDS, connection.ioloop.stop)
                with contextlib.suppress(AssertionError):
                    connection.ioloop.start()
            connection.ioloop.close()

    def __enter__(self) -> Self:
        """Return the link itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    # Sending

    def send(self, key: int, message: Message) -> None:
        """Send a message to the broker, persistent and mandatory; `settle` returns the broker's answer."""
        channel = self._live_channel
        connection = cast("_Connection", self._connection)
        where = message.exchange, message.routing_key
        with held_back():
            try:
                with _pika_silenced(), connection.gathering():
                    channel.basic_publish(*where, message.body, _to_pika(message.properties), mandatory=True)
            except Exception as error:
                if not channel.is_open:
                    raise explain(error, self._settings) from error
                # AMQP cannot encode the message, as with a name of more than 255 bytes. pika encodes a message as a
                # whole before it sends any of it.
                self._settled.refused.append((key, f"it cannot be sent: {type(error).__name__}: {error}"))
                return
            self._unsettled[self._next_tag] = (key, message)
            self._unsettled_bytes += len(message.body)
            self._next_tag += 1

    def settle(self, timeout: float) -> Settled:
        """Return the answers since the last call; wait up to `timeout` seconds for an answer or for `wake`."""
        self._run(lambda: self.has_news or self._woken, timeout)
        self._woken = False
        settled, self._settled = self._settled, Settled()
        return settled

    def publish(self, message: Message, timeout: float) -> None:
        """Send one message and wait until the broker confirms or refuses it."""
        self.send(-1, message)
        settled = self._settled
        self._run(lambda: bool(settled.confirmed or settled.refused), timeout, "does not confirm a message")
        self._settled = Settled()
        if settled.refused:
            msg = f"{self.where}: {settled.refused[0][1]}"
            raise BusRefusedError(msg)

    @property
    def unsettled(self) -> int:
        """Number of sent messages that the broker has neither confirmed nor refused yet."""
        return len(self._unsettled)

    @property
    def has_room(self) -> bool:
        """Whether more messages may be sent before others are settled: the memory of both sides is limited."""
        return not self.blocked_reason and len(self._unsettled) < WINDOW and self._unsettled_bytes < WINDOW_BYTES

    @property
    def has_news(self) -> bool:
        """Whether `settle` has an answer to return at once."""
        return bool(self._settled.confirmed or self._settled.refused)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open; the broker may have closed its channel all the same."""
        return self._connection is not None and bool(self._connection.is_open)

    @property
    def casualties(self) -> dict[int, Message]:
        """The unsettled messages by key: if the broker closed the channel, one of them was the reason."""
        return dict(self._unsettled.values())

    @property
    def was_closed_for_a_message(self) -> bool:
        """Whether the broker closed the connection because of a message, not for its shutdown or by an operator."""
        return self._failure is not None and _code_of(self._failure) in _FAULTS_OF_A_SENDER

    @staticmethod
    def is_about_rights(error: BusError) -> bool:
        """Return True if the broker refused a request because the user lacks a right."""
        return _code_of(error) == _ACCESS_REFUSED

    @staticmethod
    def is_about_destination(error: BusError) -> bool:
        """Return True if a message was refused because of its exchange, not because of itself or its routing key."""
        is_refusal = isinstance(error, BusRefusedError) and _code_of(error) in (_ACCESS_REFUSED, _NOT_FOUND)
        return is_refusal and _SIGN_OF_A_KEY not in str(error)

    def reopen(self) -> dict[int, Message]:
        """
        Open another channel after the broker has closed this one, and return the unsettled messages (`casualties`).

        Raises:
            BusUnreachableError: The connection is lost, too.
        """
        if not self.is_connected:
            raise self._loss
        casualties, self._failure = self.casualties, None
        self._open_channel(RPC_SECONDS)
        return casualties

    @property
    def _loss(self) -> BusUnreachableError:
        """The reason why there is no connection; a previous failure of the channel alone is not that reason."""
        if isinstance(self._failure, BusUnreachableError):
            return self._failure
        return BusUnreachableError(f"{self.where} was lost: the broker was stopped, or the network broke")

    def _is_cut_answer(self, error: BusError, name: str) -> bool:
        """
        Return True if RabbitMQ 4 has closed the connection because it could not send its own refusal.

        AMQP limits the text of a refusal to 255 bytes. RabbitMQ cuts a longer text at any byte, and then fails on the
        half of a character. The text contains the names of the user and the virtual host as well.
        """
        named = f"{name}{self._settings.isb_vhost}{self._settings.isb_username}"
        return _code_of(error) == _INTERNAL_ERROR and not named.isascii()

    def _recover(self, error: BusError, name: str) -> None:
        """Open a new channel or connection after the broker refused a query about `name`, which closes the channel."""
        if self._is_cut_answer(error, name):
            self.close()
            self._connect(RPC_SECONDS)
        else:
            self.reopen()

    def wake(self) -> None:
        """End a waiting call of the owning thread. Any thread and any signal handler may call this."""
        waking = self._waking
        waking.is_wanted = True
        if waking.is_busy:
            # This thread already holds pika's lock, which is not reentrant: the interrupted call wakes once more.
            return
        while waking.is_wanted:
            waking.is_wanted, waking.is_busy = False, True
            try:
                self._wake()
            finally:
                waking.is_busy = False

    def _wake(self) -> None:
        connection = self._connection
        # In a fork pika's lock may be held for ever, and the loop belongs to the parent.
        if connection is not None and self._pid == os.getpid() and connection.is_ours:
            with contextlib.suppress(*_PIKA_ERRORS, AttributeError, OSError):
                connection.ioloop.add_callback_threadsafe(self._on_wake)

    # Receiving

    def last_of_stream(self, queue: str, patience: float) -> Received | None:
        """
        Return the last message of a stream; None if it has none. The caller must not acknowledge the message.

        A new stream does not count its messages yet, so this waits up to `patience` seconds for one.
        """
        load = self.load(queue)
        patience = patience if load is not None and load.messages == 0 else RPC_SECONDS
        # A separate channel: pika rejects messages that still arrive for a cancelled consumer, which a stream forbids.
        channel = self._new_channel(RPC_SECONDS)
        self._consume(channel, queue, prefetch=_CHUNK_MESSAGES, arguments={"x-stream-offset": "last"})
        self._run(lambda: bool(self._deliveries), patience)
        # The broker sends all messages of the last chunk before it answers another request.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))
        channel.close()
        delivered, self._deliveries = self._deliveries, deque()
        return delivered[-1] if delivered else None

    def consume(self, queue: str, *, prefetch: int, arguments: Mapping[str, Any] | None = None) -> None:
        """Subscribe to a queue; the broker delivers up to `prefetch` unacknowledged messages."""
        # The broker gives no reason: the queue was deleted, has moved, or has waited too long for an acknowledgement.
        complaint = f"the broker ended the delivery from {queue} (basic.cancel, which names no reason)"
        self._live_channel.add_on_cancel_callback(lambda _: self._fail_with(complaint))
        self._consume(self._live_channel, queue, prefetch=prefetch, arguments=arguments or {})

    def _consume(
        self, channel: pika.channel.Channel, queue: str, *, prefetch: int, arguments: Mapping[str, Any]
    ) -> None:
        self._call(lambda done: channel.basic_qos(prefetch_count=prefetch, callback=done))
        self._call(
            lambda done: channel.basic_consume(queue, self._on_delivery, arguments=dict(arguments), callback=done)
        )

    def receive(self, timeout: float) -> Received | None:
        """Return the next message; None if none arrives within `timeout` seconds or before a `wake`."""
        self._run(lambda: bool(self._deliveries) or self._woken, timeout)
        self._woken = False
        return self._deliveries.popleft() if self._deliveries else None

    def acknowledge(self, tag: int) -> None:
        """Acknowledge one message."""
        with self._explained():
            self._live_channel.basic_ack(tag)

    def synchronize(self) -> None:
        """Wait until the broker has processed all previous requests: a channel answers requests in order."""
        channel = self._live_channel
        # A request without effect: an existing consumer keeps the prefetch that it started with.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))

    # Topology

    def exists(self, kind: str, name: str) -> bool | None:
        """
        Return whether an `exchange` or a `queue` exists; None if that is unknown. This needs no configure right.

        Some versions of RabbitMQ answer only an account that has a right on the item. An account that only writes or
        reads elsewhere has none.

        Raises:
            BusError: The broker answers neither yes nor no, or has not started the item yet.
        """
        return self._look(kind, name)[0]

    def load(self, queue: str) -> Load | None:
        """Return the load of a queue; None if the queue does not exist, or if that is unknown."""
        return self._look("queue", queue)[1]

    def _look(self, kind: str, name: str) -> tuple[bool | None, Load | None]:
        channel = self._live_channel
        try:
            if kind == "exchange":
                (found,) = self._call(lambda done: channel.exchange_declare(name, passive=True, callback=done))
            else:
                (found,) = self._call(lambda done: channel.queue_declare(name, passive=True, callback=done))
        except BusError as error:
            self._recover(error, name)
            # A cut answer is a refusal. If a missing right was the reason, the next request is refused, too.
            if (isinstance(error, BusRefusedError) and _code_of(error) == _NOT_FOUND) or self._is_cut_answer(
                error, name
            ):
                return False, None
            if self.is_about_rights(error):
                return None, None
            raise
        answer = found.method
        return True, Load(answer.message_count, answer.consumer_count) if kind == "queue" else None

    def compare(self, item: Exchange | Queue) -> str | None:
        """
        Return the broker's message on how the existing exchange or queue differs from `item`; None if it is equal.

        This declares the item again, which does not change an existing one. Call `exists` first: a missing item would
        be created.

        Raises:
            BusRefusedError: The two cannot be compared, as without the configure right.
        """
        try:
            if isinstance(item, Exchange):
                self._declare_exchange(item)
            else:
                self._declare_queue(item)
        except BusError as error:
            self._recover(error, item.name)
            if self._is_cut_answer(error, item.name):
                msg = f"{error}: it differs, or this account may not compare it; the answer was too long to be sent"
                raise BusUnreachableError(msg) from error
            if _code_of(error) == _PRECONDITION_FAILED:
                return str(error)
            raise
        return None

    def declare(self, topology: Topology) -> bool:
        """Create the missing parts of `topology`; return True if any part was missing."""
        items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
        found = [(item, self._is_there(item)) for item in items]
        # An item that this account cannot query is not declared: if it is missing, consuming or publishing fails later.
        missing = [item for item, is_there in found if is_there is False]
        self.unseen = [item.name for item, is_there in found if is_there is None]
        if not missing:
            return False
        for exchange in topology.exchanges:
            if exchange in missing:
                self._declare_exchange(exchange)
                self.made.add(exchange.name)
        for queue in topology.queues:
            if queue in missing:
                self._declare_queue(queue)
                self.made.add(queue.name)
        self.bind(topology)
        return True

    def restore(self, topology: Topology, *, bindings: bool = True) -> BusError | None:
        """
        Create the missing parts of `topology`; return the refusal if the broker does not allow that, otherwise None.

        With `bindings` this also creates the bindings if nothing else is missing: AMQP has no query for bindings.
        """
        try:
            self.unseen = []
            if not self.declare(topology) and bindings:
                self.bind(topology)
        except BusError as error:
            # A queue that is about to start counts as an answer as well, although it is not a refusal.
            is_answer = isinstance(error, BusRefusedError) or _code_of(error) == _NOT_FOUND
            if not (is_answer and self.is_connected):
                raise
            if self._failure is not None:
                self.reopen()
            return error
        return None

    def _declare_exchange(self, exchange: Exchange) -> None:
        channel = self._live_channel
        self._call(lambda done: channel.exchange_declare(exchange.name, exchange.type, durable=True, callback=done))

    def _declare_queue(self, queue: Queue) -> None:
        channel = self._live_channel
        self._call(
            lambda done: channel.queue_declare(
                queue.name,
                durable=not queue.exclusive,
                exclusive=queue.exclusive,
                arguments=dict(queue.arguments),
                callback=done,
            )
        )

    def _is_there(self, item: Exchange | Queue) -> bool | None:
        if isinstance(item, Exchange):
            return self.exists("exchange", item.name)
        # No other connection can have created an exclusive queue of this connection.
        return False if item.exclusive else self.exists("queue", item.name)

    def bind(self, topology: Topology) -> None:
        """Create the bindings of `topology`; existing ones stay unchanged."""
        for binding in topology.bindings:
            self._bind(binding)

    def _bind(self, binding: Binding) -> None:
        channel = self._live_channel
        self._call(lambda done: channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, callback=done))

    # The owning thread's loop

    @property
    def _live_channel(self) -> pika.channel.Channel:
        if self._failure is not None:
            raise self._failure
        if self._channel is None:
            msg = f"{self.where}: the connection is closed"
            raise BusUnreachableError(msg)
        return self._channel

    def _open_channel(self, timeout: float) -> None:
        channel = self._channel = self._new_channel(timeout)
        self._unsettled.clear()
        self._unsettled_bytes = 0
        self._returned.clear()
        self._next_tag = 1
        channel.add_on_return_callback(self._on_return)
        self._call(lambda done: channel.confirm_delivery(self._on_confirm, callback=done))

    def _new_channel(self, timeout: float) -> pika.channel.Channel:
        opened: list[pika.channel.Channel] = []

        def on_open(channel: pika.channel.Channel) -> None:
            opened.append(channel)
            self._stir()

        connection = self._connection
        if connection is None:
            msg = f"{self.where}: the connection is closed"
            raise BusUnreachableError(msg)
        with self._explained():
            connection.channel(on_open_callback=on_open)
        self._run(lambda: bool(opened), timeout, "does not open a channel")
        opened[0].add_on_close_callback(lambda _, error: self._on_channel_close(error))
        return opened[0]

    def _call(self, request: Callable[[Callable[..., None]], object]) -> tuple[Any, ...]:
        """Make one synchronous request: call `request` with a callback, wait, and return the callback's arguments."""
        answers: list[tuple[Any, ...]] = []

        def done(*answer: Any) -> None:
            answers.append(answer)
            self._stir()

        with self._explained():
            request(done)
        self._run(lambda: bool(answers), RPC_SECONDS, "does not answer a request")
        return answers[0]

    def _run(self, until: Callable[[], bool], timeout: float, complaint: str | None = None) -> None:
        """Run the loop until `until()` is True or `timeout` seconds have passed; then raise `complaint`, if given."""
        connection = self._connection
        if connection is None:
            raise self._failure or BusUnreachableError(f"{self.where}: the connection is closed")
        self._refuse_what_is_not_ours(connection)
        connection.emit_gathered()
        began = time.monotonic()
        deadline = min(began + timeout, self._deadline)
        timer = connection.ioloop.call_later(max(0.0, deadline - began), connection.ioloop.stop)
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                if until():
                    return
                with self._explained():
                    connection.ioloop.start()
                self._refuse_what_is_not_ours(connection)
                if time.monotonic() >= deadline and not until() and self._failure is None:
                    break
        finally:
            connection.ioloop.remove_timeout(timer)
        if complaint is not None:
            msg = f"{self.where} {complaint} within {max(0.0, deadline - began):.3g} s"
            raise BusUnreachableError(msg)

    def _refuse_what_is_not_ours(self, connection: "_Connection") -> None:
        """Raise a `BusError` if other code of this process has closed the connection's descriptors."""
        if not connection.is_ours:
            self._fail(OSError(errno.EBADF, _CLOSED_HERE))
            raise cast("BusError", self._failure)

    def _stir(self) -> None:
        if self._connection is not None:
            self._connection.ioloop.stop()

    # Callbacks: they record the event, and stop the loop so that `_run` checks its condition

    def _on_connection_open(self, connection: pika.SelectConnection) -> None:
        self._is_open = True
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._stir()

    # The annotation is quoted here and below: before pika 1.4 this class is not subscriptable at run time.
    def _on_blocked(self, _: object, frame: "pika.frame.Method[pika.spec.Connection.Blocked]") -> None:
        self.blocked_reason = str(frame.method.reason or "no reason given")
        self._on_wake()

    def _on_unblocked(self, *_: object) -> None:
        self.blocked_reason = None
        self._on_wake()

    def _on_wake(self) -> None:
        self._woken = True
        self._stir()

    def _on_confirm(self, frame: "pika.frame.Method[Any]") -> None:
        accepted = isinstance(frame.method, pika.spec.Basic.Ack)
        last = frame.method.delivery_tag
        # The tags were assigned in ascending order, and a dict keeps the order.
        older = itertools.takewhile(lambda tag: tag <= last, self._unsettled)
        for tag in list(older) if frame.method.multiple else [last]:
            sent = self._unsettled.pop(tag, None)
            if sent is None:
                continue
            key, message = sent
            self._unsettled_bytes -= len(message.body)
            reason = self._returned_reason(message) if accepted else "the broker refused it (nack)"
            if reason is None:
                self._settled.confirmed.append(key)
                self._settled.exchanges.add(message.exchange)
            else:
                self._settled.refused.append((key, reason))
                if accepted:
                    self._settled.returned[key] = message.exchange
        self._stir()

    def _on_return(
        self, _: object, method: pika.spec.Basic.Return, properties: pika.BasicProperties, __: bytes
    ) -> None:
        # The broker sends the return before the confirm of the same message, so the reason is kept until the confirm.
        reason = f"the broker returned it: {method.reply_text} ({method.reply_code})"
        if method.reply_code == _NO_ROUTE:
            reason += ", no queue is bound for it; `dkist-core topology apply` makes the archive"
        self._returned.setdefault((str(properties.message_id), method.routing_key), deque()).append(reason)

    def _returned_reason(self, message: Message) -> str | None:
        if not self._returned:
            return None
        key = (message.properties.message_id, message.routing_key)
        reasons = self._returned.get(key)
        if not reasons:
            return None
        reason = reasons.popleft()
        if not reasons:
            del self._returned[key]
        return reason

    def _on_delivery(
        self, _: object, method: pika.spec.Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        message = Message.received(_text(method.exchange), _text(method.routing_key), body, _from_pika(properties))
        self._deliveries.append(Received(method.delivery_tag, message))
        self._stir()

    def _on_channel_close(self, error: BaseException) -> None:
        is_ours = isinstance(error, ChannelClosedByClient)
        if self._connection is not None and self._connection.is_open and not is_ours:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        # The first failure names the cause; later failures are consequences of it.
        if self._failure is None:
            self._failure = explain(error, self._settings)
        self._stir()

    def _fail_with(self, complaint: str) -> None:
        self._failure = self._failure or BusUnreachableError(f"{self.where}: {complaint}")
        self._stir()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with _pika_silenced():
                yield
        except (*_PIKA_ERRORS, OSError) as error:
            raise explain(error, self._settings) from error


def _let_be(connection: "_Connection") -> None:
    """Prevent any code, also the interpreter's exit, from closing a connection's files: keep a reference for ever."""
    import ctypes  # noqa: PLC0415 - for this alone, which is rare

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_inside_link = threading.local()


@contextlib.contextmanager
def _pika_silenced() -> Iterator[None]:
    """
    Suppress pika's own log lines while a link of this library runs pika in this thread.

    A refused connection causes five log lines with tracebacks; a link raises one error that names the cause instead.
    The lines appear if a level is set on the logger `pika`. Lines of pika connections of other code are not affected.
    """
    _inside_link.depth = getattr(_inside_link, "depth", 0) + 1
    try:
        yield
    finally:
        _inside_link.depth -= 1


def _is_wanted(record: logging.LogRecord) -> bool:
    # pika resolves host names in a separate thread, which cannot be attributed to one connection or another.
    is_ours = getattr(_inside_link, "depth", 0) or record.funcName == "_resolve"
    return not is_ours or logging.getLogger("pika").level != logging.NOTSET


for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("pika.") and isinstance(_logger, logging.Logger):
        _logger.addFilter(_is_wanted)


def explain(error: BaseException, settings: DKISTProcessingCoreConfiguration) -> BusError:
    """Return pika's error as a `BusError` whose message names the remedy for an operator."""
    service = settings.isb_mesh_service
    chain = list(_nested(error))
    silence = _first(chain, IncompatibleProtocolError)
    fault = (
        _fault_here(chain) or tls.fault_of(_first(chain, ssl.SSLError), silence, settings) or _refusal(chain, settings)
    )
    kind, text = fault or (BusUnreachableError, _breakage(chain))
    explained = kind(f"RabbitMQ at {service.host}:{service.port} {redact(text)}")
    explained.__cause__ = error
    return explained


def _fault_here(chain: Sequence[BaseException]) -> tuple[type[BusError], str] | None:
    """Return the error type and text of a failure inside this process, unknown to the broker; None if there is none."""
    for item in chain:
        if isinstance(item, OSError) and item.errno in _OF_DESCRIPTORS:
            return ConnectionFailedHereError, f"was lost: {_CLOSED_HERE}"
        if isinstance(item, OSError) and item.errno in _OF_RESOURCES:
            return ConnectionFailedHereError, f"cannot be connected to from this process: {item.strerror}"
    return None


def _refusal(
    chain: Sequence[BaseException], settings: DKISTProcessingCoreConfiguration
) -> tuple[type[BusError], str] | None:
    """Return the error type and text of a refusal, which only an operator can change; None if there is none."""
    closed = _first(chain, ConnectionClosed, ChannelClosed)
    code = getattr(closed, "reply_code", 0)
    if _is_interrupted_login(chain):
        return None
    if _first(chain, AuthenticationError, ProbableAuthenticationError):
        return BusRefusedError, "refuses the credentials (ISB_USERNAME, ISB_PASSWORD)"
    if _first(chain, ProbableAccessDeniedError) or (code == _NOT_ALLOWED and isinstance(closed, ConnectionClosed)):
        return BusRefusedError, (
            f"refuses virtual host {settings.isb_vhost!r} (ISB_VHOST): it does not exist, or {settings.isb_username!r} "
            "has no rights on it"
        )
    if code in _REFUSALS and not _mends_by_itself(closed):
        said = f"refuses a request: {getattr(closed, 'reply_text', '')} ({code})"
        return BusRefusedError, f"{said}{_REMEDIES.get(code, '')}"
    return None


def _breakage(chain: Sequence[BaseException]) -> str:
    """Return the text for a broken connection to the broker, which may recover by itself."""
    closed = _first(chain, ConnectionClosed, ChannelClosed)
    if isinstance(closed, ChannelClosed) and _mends_by_itself(closed):
        text = f"is not ready: {closed.reply_text} ({closed.reply_code})"
    elif closed:
        text = f"closed the connection: {getattr(closed, 'reply_text', '')} ({getattr(closed, 'reply_code', 0)})"
    elif _first(chain, IncompatibleProtocolError):
        text = "broke the connection without a word of AMQP; if it wants TLS, set ISB_TLS_CA"
    elif _is_interrupted_login(chain):
        text = "broke the connection at the login"
    elif _first(chain, StreamLostError):
        text = "was lost: the broker was stopped, or the network broke"
    elif _first(chain, socket.gaierror):
        text = "has a name that does not resolve; check mesh_address in MESH_CONFIG"
    elif _first(chain, ConnectionRefusedError):
        text = "refuses the connection: nothing listens there; check that the broker runs, and MESH_CONFIG"
    elif _first(chain, TimeoutError, ConnectionOpenAborted) or "timeout" in type(chain[-1]).__name__.lower():
        text = "does not answer in time"
    else:
        text = f"broke the connection: {type(chain[-1]).__name__} {chain[-1]}"
    return text


def _first(chain: Sequence[BaseException], *kinds: type[_ErrorT]) -> _ErrorT | None:
    return next((item for item in chain if isinstance(item, kinds)), None)


def _is_interrupted_login(chain: Sequence[BaseException]) -> bool:
    """Return True if pika only guesses a refusal: a broker that refuses reports it before it closes the connection."""
    guess = _first(chain, ProbableAuthenticationError, ProbableAccessDeniedError)
    return guess is not None and "StreamLostError" in str(guess)


def _mends_by_itself(closed: BaseException | None) -> bool:
    """Return True if the reason of a refusal is temporary: the next attempt, or one soon after, succeeds again."""
    return any(sign in getattr(closed, "reply_text", "") for sign in _SIGNS_OF_A_PASSING_REASON)


def _code_of(error: BusError) -> int:
    return next((int(code) for item in _nested(error) if (code := getattr(item, "reply_code", None))), 0)


def _nested(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those inside it: pika's connection workflow keeps the reason in attributes."""
    queue, seen = deque([error]), set[int]()
    while queue:
        item = queue.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        inside = [*item.args, getattr(item, "exception", None), *getattr(item, "exceptions", ()), item.__cause__]
        queue.extend(each for each in inside if isinstance(each, BaseException))


def _parameters(settings: DKISTProcessingCoreConfiguration, timeout: float) -> pika.ConnectionParameters:
    service = settings.isb_mesh_service
    return pika.ConnectionParameters(
        host=service.host,
        port=service.port,
        virtual_host=settings.isb_vhost,
        credentials=pika.PlainCredentials(settings.isb_username, settings.isb_password, erase_on_connect=True),
        heartbeat=HEARTBEAT_SECONDS,
        socket_timeout=timeout,
        stack_timeout=timeout,
        connection_attempts=1,
        ssl_options=pika.SSLOptions(tls.make_context(settings), tls.server_name(settings))
        if tls.is_wanted(settings)
        else None,
        client_properties={"connection_name": APP_ID},
    )


def _to_pika(properties: Properties) -> pika.BasicProperties:
    return pika.BasicProperties(
        app_id=APP_ID,
        content_type=properties.content_type,
        correlation_id=properties.correlation_id,
        delivery_mode=pika.DeliveryMode.Persistent.value,
        headers=dict(properties.headers) or None,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
    )


def _from_pika(properties: pika.BasicProperties) -> Properties:
    return Properties(
        message_id=_text(properties.message_id or ""),
        content_type=_text(properties.content_type or ""),
        type=None if properties.type is None else _text(properties.type),
        timestamp=properties.timestamp,
        correlation_id=None if properties.correlation_id is None else _text(properties.correlation_id),
        headers={_text(name): value for name, value in (properties.headers or {}).items()},
    )


def _text(short: str | bytes) -> str:
    """Return an AMQP short string as `str`: pika returns `bytes` if it is not valid UTF-8."""
    if isinstance(short, str):
        return short
    # The replacement of a byte takes three bytes, and the result may be sent again as a short string.
    return short.decode("utf-8", "replace").encode()[:_MAX_SHORT_BYTES].decode("utf-8", "ignore")


def _move_up(sock: socket.socket) -> None:
    family, kind, protocol = sock.family, sock.type, sock.proto
    sock.__init__(family, kind, protocol, fileno=move_up(sock.detach()))  # type: ignore[misc]
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature


_CLOSED_HERE = "other code of this process has closed the connection's descriptors"
_OF_DESCRIPTORS = (errno.EBADF, errno.ENOTSOCK)
_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
# The arguments of `socket.getaddrinfo` after host and port, by pika's names.
_LOOKED_UP_BY = ("family", "socktype", "proto", "flags")


class _Poller(pika.adapters.select_connection.PollPoller):  # type: ignore[misc]
    """Waits with poll(2), which needs no extra descriptor, while the descriptors still belong to the connection."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.is_ours: Callable[[], bool] = lambda: True
        super().__init__(*values, **named)
        self.held = Held(each.fileno() for each in (self._r_interrupt, self._w_interrupt))

    @staticmethod
    def _get_interrupt_pair() -> tuple[socket.socket, socket.socket]:
        reading, writing = socket.socketpair()
        _move_up(reading)
        _move_up(writing)
        return reading, writing

    def poll(self) -> None:
        self._check()
        super().poll()
        # Check before pika mistakes a closed descriptor for a silent broker.
        self._check()

    def _check(self) -> None:
        if not self.is_ours():
            raise OSError(errno.EBADF, _CLOSED_HERE)


class _Loop(pika.adapters.select_connection.IOLoop):  # type: ignore[misc]
    @staticmethod
    def _get_poller(*values: Any, **named: Any) -> _Poller:
        return _Poller(*values, **named)


class _Services(pika.adapters.utils.selector_ioloop_adapter.SelectorIOServicesAdapter):  # type: ignore[misc]
    """The loop of one connection, whose descriptors have numbers that the author's files do not get."""

    def __init__(self) -> None:
        loop = _Loop()
        super().__init__(loop)
        self.poller: _Poller = loop._poller  # noqa: SLF001 - pika has no other way to it
        self.socket = Held()
        self.connecting: socket.socket | None = None

    def getaddrinfo(self, host: str, port: int, on_done: Callable[[Any], None], **named: Any) -> Any:
        try:
            return super().getaddrinfo(host, port, on_done, **named)
        except RuntimeError:
            # pika resolves names in a thread, and the system allows no further thread: resolve the name here.
            found: object
            try:
                found = socket.getaddrinfo(host, port, *(named.get(each, 0) for each in _LOOKED_UP_BY))
            except OSError as error:
                found = error
            return self.call_later(0, lambda: on_done(found))

    def connect_socket(self, sock: socket.socket, resolved_addr: tuple[str, int], on_done: Callable[..., None]) -> Any:
        _move_up(sock)
        self.socket, self.connecting = Held([sock.fileno()]), sock
        return super().connect_socket(sock, resolved_addr, on_done)


class _Connection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """
    A connection that reads the broker's last answer, and survives message properties that pika cannot decode.

    It also gathers the frames published between two turns of its loop. pika would make one system call for each
    frame, and a message has three frames.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._is_gathering = False
        self._services: _Services = named["custom_ioloop"]
        super().__init__(*values, **named)
        self._services.poller.is_ours = lambda: self.is_ours

    @property
    def is_ours(self) -> bool:
        """Whether the descriptors are still the connection's: the author's code may close and reuse any number."""
        # A socket that pika has closed has no number. A TLS socket wraps the socket and keeps its number.
        connected = getattr(self._transport, "_sock", None) or self._services.connecting
        is_open = connected is not None and connected.fileno() in self._services.socket.identities
        return self._services.poller.held.are_ours and (not is_open or self._services.socket.are_ours)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Hold data sent in this context until `emit_gathered`, a size limit, or other data that is sent."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
        if self._gathered_size > _MAX_GATHERED_BYTES:
            self.emit_gathered()

    def emit_gathered(self) -> None:
        """Send the gathered frames in one write."""
        if self._gathered:
            gathered, self._gathered, self._gathered_size = b"".join(self._gathered), [], 0
            super()._adapter_emit_data(gathered)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._is_gathering:
            self._gathered.append(data)
            self._gathered_size += len(data)
        else:
            self.emit_gathered()
            super()._adapter_emit_data(data)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        # In TLS 1.3 a broker refuses our certificate after our side of the handshake is complete. Its reason has
        # arrived, but pika would report that our protocol header can no longer be written.
        if error is not None and not self._opened:
            error = tls.last_word(getattr(self._transport, "_sock", None)) or error
        super()._proto_connection_lost(error)

    def _read_frame(self) -> tuple[int, pika.frame.Frame | None]:
        try:
            found: tuple[int, pika.frame.Frame | None] = super()._read_frame()
        except Exception as error:
            kind, channel, size = _FRAME_START.unpack_from(self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            _, _, body_size = _HEADER_START.unpack_from(self._frame_buffer, _FRAME_START.size)
            _log.warning("a message's properties cannot be read and are left out: %s", error)
            header = pika.frame.Header(channel, body_size, pika.BasicProperties())
            return _FRAME_START.size + size + 1, header
        return found
