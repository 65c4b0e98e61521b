"""
RabbitMQ over AMQP 0.9.1: the one module that says pika, and where pika's errors end.

An `AmqpLink` is one connection with one channel, used by one thread, call after call; callbacks stay inside. Only
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

from dkist_processing_core.bus import _tls
from dkist_processing_core.bus._message import APP_ID, Message, Properties
from dkist_processing_core.bus.topology import Binding, Exchange, Queue, Topology
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.descriptors import Held, move_up
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, ConnectionFailedHereError
from dkist_processing_core.signals import held_back
from dkist_processing_core.text import redact

WINDOW, WINDOW_BYTES = 1000, 4 * 1024 * 1024
"""How many messages, and bytes of their bodies, may be on their way to the broker, unconfirmed."""
HEARTBEAT_SECONDS = 10
CLOSE_SECONDS = 1.0
RPC_SECONDS = 10.0
_GIVE_UP_SECONDS = 0.25
# As many as AMQP can name: more than RabbitMQ puts into one chunk of a stream.
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
# What RabbitMQ says, beside a code for what is missing or not allowed, of a consumer that was too late
# (`consumer_timeout`), and of a queue that is about to start or to move (rabbit_amqqueue.erl, `priv_absent`, `with`).
_SIGNS_OF_A_PASSING_REASON = (
    "delivery acknowledgement",
    "is down or inaccessible",
    "is stopped by supervisor",
    "due to timeout",
    "has crashed",
    "may be stopping or being demoted",
)
# Its words about a routing key that a topic permission refuses; about an exchange they have "exchange" there.
_SIGN_OF_A_KEY = "access to topic "
_MAX_SHORT_BYTES = 255
_MAX_GATHERED_BYTES = 256 * 1024
# AMQP 0.9.1: type, channel and size of a frame; then, in a content header, class, weight and the body's size.
_FRAME_START, _HEADER_START = struct.Struct(">BHL"), struct.Struct(">HHQ")
_ErrorT = TypeVar("_ErrorT", bound=BaseException)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """What the broker has said of messages sent, by the keys they were sent under."""

    confirmed: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """With the reason."""
    returned: dict[int, str] = field(default_factory=dict)
    """The exchanges of what was refused because nothing is bound to them that takes it."""
    exchanges: set[str] = field(default_factory=set)
    """The exchanges of what was confirmed."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the broker delivered, and the tag by which this link acknowledges it."""

    tag: int
    message: Message

    @property
    def offset(self) -> int | None:
        """Where in its stream it stands; None where it comes from no stream."""
        offset = self.message.properties.headers.get("x-stream-offset")
        return offset if isinstance(offset, int) else None


class Load(NamedTuple):
    """What a queue has to do: its messages that wait for a consumer, and its consumers."""

    messages: int
    consumers: int


class _Waking(threading.local):
    """Whether a thread is waking the owner of a link, and whether it is to do so once more."""

    def __init__(self) -> None:
        self.is_busy = False
        self.is_wanted = False


class AmqpLink:
    """One connection to the broker that the settings name. Every failure is a `BusError` in an operator's words."""

    def __init__(self, settings: DKISTProcessingCoreConfiguration, *, deadline: float = math.inf) -> None:
        """Name the broker, and the time (`time.monotonic`) past which no call waits; nothing is connected yet."""
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
        """The exchanges and queues that were missing, and that this link has declared."""
        self.unseen: list[str] = []
        """What `declare` or `restore` has asked for last, and this account has no right to ask for."""
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
        Return a connected link whose channel is in confirm mode; past `deadline` no call of it waits.

        Raises
        ------
        BusUnreachableError
            where nobody answers within `timeout` seconds.
        BusRefusedError
            where the broker refuses the credentials or the virtual host.

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
            # pika gives up by itself at the timeout, and only then lets go of the socket.
            self._run(lambda: self._is_open, timeout + _GIVE_UP_SECONDS, "does not answer")
            self._open_channel(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection within a second, or drop it; in a fork drop it silently, since its parent goes on."""
        connection, self._connection = self._connection, None
        if connection is None or self._pid != os.getpid():
            return
        if not connection.is_ours:
            _let_be(connection)
            return
        # A broker that blocks publishers reads nothing, and will not hear a goodbye either.
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
                # Told to stop while it connects: pika lets go of the socket in a turn of the loop, and then finds fault
                # with what it did.
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
        """Hand a message to the broker, persistent and mandatory; what becomes of it is told by `settle`."""
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
                # It has no form in AMQP, as a name of more than 255 bytes: pika encodes all of it before it sends any.
                self._settled.refused.append((key, f"it cannot be sent: {type(error).__name__}: {error}"))
                return
            self._unsettled[self._next_tag] = (key, message)
            self._unsettled_bytes += len(message.body)
            self._next_tag += 1

    def settle(self, timeout: float) -> Settled:
        """Return what was settled since the last call; wait up to `timeout` seconds for something, or for `wake`."""
        self._run(lambda: self.has_news or self._woken, timeout)
        self._woken = False
        settled, self._settled = self._settled, Settled()
        return settled

    def publish(self, message: Message, timeout: float) -> None:
        """Send one message and wait for the broker's word on it."""
        self.send(-1, message)
        settled = self._settled
        self._run(lambda: bool(settled.confirmed or settled.refused), timeout, "does not confirm a message")
        self._settled = Settled()
        if settled.refused:
            msg = f"{self.where}: {settled.refused[0][1]}"
            raise BusRefusedError(msg)

    @property
    def unsettled(self) -> int:
        """How many messages were sent whose fate is unknown."""
        return len(self._unsettled)

    @property
    def has_room(self) -> bool:
        """Whether more may be sent before something is settled: memory on both sides has its limits."""
        return not self.blocked_reason and len(self._unsettled) < WINDOW and self._unsettled_bytes < WINDOW_BYTES

    @property
    def has_news(self) -> bool:
        """Whether `settle` has something to tell at once."""
        return bool(self._settled.confirmed or self._settled.refused)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there, though the broker may have closed the channel on it."""
        return self._connection is not None and bool(self._connection.is_open)

    @property
    def casualties(self) -> dict[int, Message]:
        """What was sent and is unsettled, by its keys: where the broker closed the channel, for one of them."""
        return dict(self._unsettled.values())

    @property
    def was_closed_for_a_message(self) -> bool:
        """Whether the broker closed the connection for what it was sent, and not because it ends, or is told to."""
        return self._failure is not None and _code_of(self._failure) in _FAULTS_OF_A_SENDER

    @staticmethod
    def is_about_rights(error: BusError) -> bool:
        """Say whether a user may not do what was asked."""
        return _code_of(error) == _ACCESS_REFUSED

    @staticmethod
    def is_about_destination(error: BusError) -> bool:
        """Return True where a message was refused for its exchange, and not for itself or its routing key."""
        is_refusal = isinstance(error, BusRefusedError) and _code_of(error) in (_ACCESS_REFUSED, _NOT_FOUND)
        return is_refusal and _SIGN_OF_A_KEY not in str(error)

    def reopen(self) -> dict[int, Message]:
        """
        Open another channel after the broker has closed this one, and return the casualties.

        Raises
        ------
        BusUnreachableError
            where the connection is lost too.

        """
        if not self.is_connected:
            raise self._loss
        casualties, self._failure = self.casualties, None
        self._open_channel(RPC_SECONDS)
        return casualties

    @property
    def _loss(self) -> BusUnreachableError:
        """Why there is no connection: what closed the channel before is no reason."""
        if isinstance(self._failure, BusUnreachableError):
            return self._failure
        return BusUnreachableError(f"{self.where} was lost: the broker was stopped, or the network broke")

    def _is_cut_answer(self, error: BusError, name: str) -> bool:
        """
        Return True where RabbitMQ 4 has closed the connection over its own refusal.

        AMQP leaves 255 bytes for its sentence. It cuts a longer one anywhere, and then finds half a character in it.
        The sentence names the user and the virtual host as well.
        """
        named = f"{name}{self._settings.isb_vhost}{self._settings.isb_username}"
        return _code_of(error) == _INTERNAL_ERROR and not named.isascii()

    def _recover(self, error: BusError, name: str) -> None:
        """Go on after a question about `name` that the broker refused, which closes the channel."""
        if self._is_cut_answer(error, name):
            self.close()
            self._connect(RPC_SECONDS)
        else:
            self.reopen()

    def wake(self) -> None:
        """End a waiting call of the owning thread. Any thread may call this, and a handler that interrupts it, too."""
        waking = self._waking
        waking.is_wanted = True
        if waking.is_busy:
            # This thread holds pika's lock, which is no reentrant one: the interrupted call wakes again.
            return
        while waking.is_wanted:
            waking.is_wanted, waking.is_busy = False, True
            try:
                self._wake()
            finally:
                waking.is_busy = False

    def _wake(self) -> None:
        connection = self._connection
        # In a fork pika's lock may be held for ever, and the loop behind it is the parent's.
        if connection is not None and self._pid == os.getpid() and connection.is_ours:
            with contextlib.suppress(*_PIKA_ERRORS, AttributeError, OSError):
                connection.ioloop.add_callback_threadsafe(self._on_wake)

    # Receiving

    def last_of_stream(self, queue: str, patience: float) -> Received | None:
        """
        Return the last message of a stream, which is not to be acknowledged; None where it has none.

        One that is new does not count its messages yet: it gets `patience` seconds to show one.
        """
        load = self.load(queue)
        patience = patience if load is not None and load.messages == 0 else RPC_SECONDS
        # A channel of its own: pika rejects what still comes for a consumer that was cancelled, which no stream allows.
        channel = self._new_channel(RPC_SECONDS)
        self._consume(channel, queue, prefetch=_CHUNK_MESSAGES, arguments={"x-stream-offset": "last"})
        self._run(lambda: bool(self._deliveries), patience)
        # The broker sends all messages of the last chunk before it answers another request.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))
        channel.close()
        delivered, self._deliveries = self._deliveries, deque()
        return delivered[-1] if delivered else None

    def consume(self, queue: str, *, prefetch: int, arguments: Mapping[str, Any] | None = None) -> None:
        """Ask for the messages of a queue, `prefetch` of them ahead of their acknowledgement."""
        # The broker gives no reason: the queue was deleted, has moved, or waits for an acknowledgement for too long.
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
        """Return the next message, or None when there is none within `timeout` seconds or at a `wake`."""
        self._run(lambda: bool(self._deliveries) or self._woken, timeout)
        self._woken = False
        return self._deliveries.popleft() if self._deliveries else None

    def acknowledge(self, tag: int) -> None:
        """Tell the broker that one message is dealt with."""
        with self._explained():
            self._live_channel.basic_ack(tag)

    def synchronize(self) -> None:
        """Wait until the broker has dealt with all that was asked before: a channel answers in order."""
        channel = self._live_channel
        # A request without effect: the consumer that there is keeps the prefetch that it began with.
        self._call(lambda done: channel.basic_qos(prefetch_count=1, callback=done))

    # Topology

    def exists(self, kind: str, name: str) -> bool | None:
        """
        Return whether an `exchange` or a `queue` exists, which needs no configure right; None where it is unknown.

        Some versions answer only an account with a right on it, which one that just writes or reads elsewhere lacks.

        Raises
        ------
        BusError
            where the broker answers neither yes nor no, or has yet to start it.

        """
        return self._look(kind, name)[0]

    def load(self, queue: str) -> Load | None:
        """Return what a queue has to do; None where there is no queue, or it is unknown."""
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
            # A cut answer is a refusal. Where a right is what lacks, the next request is refused too.
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
        Return the broker's sentence on how what exists differs from `item`; None where it is equal.

        It is declared again, which changes nothing: ask `exists` first, since what is missing would be made.

        Raises
        ------
        BusRefusedError
            where it cannot be told, as without the configure right.

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
        """Make what is missing of `topology`, and return whether anything was."""
        items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
        found = [(item, self._is_there(item)) for item in items]
        # What this account cannot ask for is left to what it is needed for: to consuming or publishing.
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
        Make what is missing of `topology`, and return why where the broker does not allow it.

        With `bindings` those are made too where nothing else is missing: AMQP cannot ask for them.
        """
        try:
            self.unseen = []
            if not self.declare(topology) and bindings:
                self.bind(topology)
        except BusError as error:
            # Beside what is refused there is what is about to start.
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
        # Nobody else can have made a queue that is this connection's own.
        return False if item.exclusive else self.exists("queue", item.name)

    def bind(self, topology: Topology) -> None:
        """Make the bindings of `topology`; those that exist stay as they are."""
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
        """Make one synchronous request: hand it the callback that ends the waiting, and return what that was given."""
        answers: list[tuple[Any, ...]] = []

        def done(*answer: Any) -> None:
            answers.append(answer)
            self._stir()

        with self._explained():
            request(done)
        self._run(lambda: bool(answers), RPC_SECONDS, "does not answer a request")
        return answers[0]

    def _run(self, until: Callable[[], bool], timeout: float, complaint: str | None = None) -> None:
        """Run the connection until something holds; past `timeout` seconds return, or fail with a complaint."""
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
        """Fail where other code of this process has closed what the connection has open."""
        if not connection.is_ours:
            self._fail(OSError(errno.EBADF, _CLOSED_HERE))
            raise cast("BusError", self._failure)

    def _stir(self) -> None:
        if self._connection is not None:
            self._connection.ioloop.stop()

    # Callbacks: they note what happened, and stir the loop

    def _on_connection_open(self, connection: pika.SelectConnection) -> None:
        self._is_open = True
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._stir()

    # Quoted here and below: before pika 1.4 this class takes no brackets as it runs.
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
        # Tags were given in ascending order, and a dict keeps it.
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
        # The broker sends the return before the confirm of the same message, so it is noted until that comes.
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
        # The first failure says why; what follows from it says less.
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
    """Have nothing close what a connection has open, not even the interpreter's exit: by a reference for ever."""
    import ctypes  # noqa: PLC0415 - for this alone, which is rare

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_inside_link = threading.local()


@contextlib.contextmanager
def _pika_silenced() -> Iterator[None]:
    """
    Keep pika's own log lines back while a link of ours runs it in this thread.

    A refused connection makes five of them, with tracebacks; a link raises one error that says what is wrong. They
    are there for whoever sets a level on the logger `pika`, and untouched for a pika that somebody else runs.
    """
    _inside_link.depth = getattr(_inside_link, "depth", 0) + 1
    try:
        yield
    finally:
        _inside_link.depth -= 1


def _is_wanted(record: logging.LogRecord) -> bool:
    # pika resolves names in a thread of its own, which cannot be told from that of another connection.
    is_ours = getattr(_inside_link, "depth", 0) or record.funcName == "_resolve"
    return not is_ours or logging.getLogger("pika").level != logging.NOTSET


for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("pika.") and isinstance(_logger, logging.Logger):
        _logger.addFilter(_is_wanted)


def explain(error: BaseException, settings: DKISTProcessingCoreConfiguration) -> BusError:
    """Return pika's error as ours, in words that say what an operator can do."""
    service = settings.isb_mesh_service
    chain = list(_nested(error))
    silence = _first(chain, IncompatibleProtocolError)
    fault = (
        _fault_here(chain) or _tls.fault_of(_first(chain, ssl.SSLError), silence, settings) or _refusal(chain, settings)
    )
    kind, text = fault or (BusUnreachableError, _breakage(chain))
    explained = kind(f"RabbitMQ at {service.host}:{service.port} {redact(text)}")
    explained.__cause__ = error
    return explained


def _fault_here(chain: Sequence[BaseException]) -> tuple[type[BusError], str] | None:
    """Return what has failed in this process, of which the broker knows nothing; None where it is not that."""
    for item in chain:
        if isinstance(item, OSError) and item.errno in _OF_DESCRIPTORS:
            return ConnectionFailedHereError, f"was lost: {_CLOSED_HERE}"
        if isinstance(item, OSError) and item.errno in _OF_RESOURCES:
            return ConnectionFailedHereError, f"cannot be connected to from this process: {item.strerror}"
    return None


def _refusal(
    chain: Sequence[BaseException], settings: DKISTProcessingCoreConfiguration
) -> tuple[type[BusError], str] | None:
    """Return what the broker refuses, which only an operator can change; None where it is not that."""
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
    """Return what has broken between us and the broker, which may mend by itself."""
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
    """Say whether pika only guesses at a refusal: a broker that refuses says so before it hangs up."""
    guess = _first(chain, ProbableAuthenticationError, ProbableAccessDeniedError)
    return guess is not None and "StreamLostError" in str(guess)


def _mends_by_itself(closed: BaseException | None) -> bool:
    """Say whether a code of refusals has a reason that passes: the next try, or one soon after, finds all again."""
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
        ssl_options=pika.SSLOptions(_tls.make_context(settings), _tls.server_name(settings))
        if _tls.is_wanted(settings)
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
    """Return a short string of AMQP's as one: pika leaves bytes that are no UTF-8 as they are."""
    if isinstance(short, str):
        return short
    # What replaces a byte takes three, and it may have to travel on as a short string.
    return short.decode("utf-8", "replace").encode()[:_MAX_SHORT_BYTES].decode("utf-8", "ignore")


def _move_up(sock: socket.socket) -> None:
    family, kind, protocol = sock.family, sock.type, sock.proto
    sock.__init__(family, kind, protocol, fileno=move_up(sock.detach()))  # type: ignore[misc]
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature


_CLOSED_HERE = "other code of this process has closed the connection's descriptors"
_OF_DESCRIPTORS = (errno.EBADF, errno.ENOTSOCK)
_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
# As `socket.getaddrinfo` takes them behind host and port, by pika's names.
_LOOKED_UP_BY = ("family", "socktype", "proto", "flags")


class _Poller(pika.adapters.select_connection.PollPoller):  # type: ignore[misc]
    """Waits with poll(2), which needs no descriptor of its own, as long as what it waits for is the connection's."""

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
        # Before pika takes the silence of what was closed for that of the broker.
        self._check()

    def _check(self) -> None:
        if not self.is_ours():
            raise OSError(errno.EBADF, _CLOSED_HERE)


class _Loop(pika.adapters.select_connection.IOLoop):  # type: ignore[misc]
    @staticmethod
    def _get_poller(*values: Any, **named: Any) -> _Poller:
        return _Poller(*values, **named)


class _Services(pika.adapters.utils.selector_ioloop_adapter.SelectorIOServicesAdapter):  # type: ignore[misc]
    """The loop of one connection, whose descriptors stand at numbers that no file of the author's is given."""

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
            # pika has a thread look it up, and there is none to be had.
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
    A connection that hears a broker out, and that no message with properties beyond pika breaks.

    And one that gathers what is published between two turns of its loop: pika would make one call to the system for
    each frame, and there are three to a message.
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
        """Whether what it has open is what was opened: an author's code may close any number, and get it anew."""
        # When pika has closed it, it has no number; TLS wraps it, with its number.
        connected = getattr(self._transport, "_sock", None) or self._services.connecting
        is_open = connected is not None and connected.fileno() in self._services.socket.identities
        return self._services.poller.held.are_ours and (not is_open or self._services.socket.are_ours)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Hold what is sent meanwhile until `emit_gathered`, until it is much, or until something else is sent."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
        if self._gathered_size > _MAX_GATHERED_BYTES:
            self.emit_gathered()

    def emit_gathered(self) -> None:
        """Send what was gathered, as one."""
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
        # In TLS 1.3 a broker refuses our certificate when we believe to be connected: its reason has come, and the
        # greeting that we sent cannot be written any more, which is what pika would report.
        if error is not None and not self._opened:
            error = _tls.last_word(getattr(self._transport, "_sock", None)) or error
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
