"""
Sending messages, and the broker's answers: which messages are unsettled, confirmed or refused.

Not here: deciding which messages to send and when (delivery).
"""

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pika
import pika.frame
import pika.spec
from pika.exceptions import ChannelWrongStateError

from dkist_processing_core.bus.amqp import errors
from dkist_processing_core.bus.amqp.frames import publish_frames
from dkist_processing_core.bus.amqp.session import Session
from dkist_processing_core.errors import BusError, BusRefusedError
from dkist_processing_core.journal.message import Message
from dkist_processing_core.process.signals import signals_deferred

WINDOW, WINDOW_BYTES = 1000, 4 * 1024 * 1024
"""How many messages, and bytes of their bodies, may be sent to the broker and still unconfirmed."""
# How many bytes are gathered before they are sent: the broker processes them while this process encodes more. A small
# message counts as more bytes than it has, so that at most 128 messages are gathered.
_TURN_BYTES, _LEAST_BYTES = 512 * 1024, 4 * 1024
# How many confirms may wait for `settle`: until then their messages remain in the journal.
_MAX_NEWS = 500


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


class Publishing(Session):
    """A session whose channel is in confirm mode."""

    def __init__(self, *values: Any, **named: Any) -> None:
        """Store the arguments of a session. No connection is opened."""
        super().__init__(*values, **named)
        self._unsettled: dict[int, tuple[int, Message]] = {}
        self._unsettled_bytes = 0
        self._waiting_bytes = 0
        self._returned: dict[tuple[str, str], deque[str]] = {}
        self._settled = Settled()
        self._next_tag = 1

    def send(self, key: int, message: Message) -> None:
        """
        Send a message to the broker, persistent and mandatory; `settle` returns the broker's answer.

        Args:
            key: The number by which the answer refers to the message.
            message: The message. If AMQP cannot encode it, the answer is a refusal.
        """
        channel, connection = self._live_channel, self._live_connection
        if not channel.is_open:
            raise errors.explain(ChannelWrongStateError(errors.LOST), self._settings)
        with signals_deferred():
            try:
                frames = publish_frames(channel.channel_number, message, connection.max_body)
            except Exception as error:  # noqa: BLE001 - other messages must not wait for a wrong one
                # AMQP cannot encode the message, as with a name of more than 255 bytes.
                self._settled.refused.append((key, f"it cannot be sent: {type(error).__name__}: {error}"))
                return
            connection.gather(frames)
            self._unsettled[self._next_tag] = (key, message)
            self._unsettled_bytes += len(message.body)
            self._waiting_bytes += max(_LEAST_BYTES, len(message.body))
            self._next_tag += 1
        if self._waiting_bytes >= _TURN_BYTES:
            self._waiting_bytes = 0
            self._turn()

    def settle(self, timeout: float) -> Settled:
        """Return the answers since the last call; wait up to `timeout` seconds for an answer or for `wake`."""
        self._wait(lambda: self.has_news, timeout)
        settled, self._settled = self._settled, Settled()
        return settled

    def publish(self, message: Message, timeout: float) -> None:
        """
        Send one message and wait until the broker confirms it.

        Raises:
            BusRefusedError: The broker refuses the message.
            BusUnreachableError: The broker does not answer within `timeout` seconds.
        """
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
        """Whether more messages may be sent before others are settled: this limits the memory of both sides."""
        return (
            len(self._unsettled) < WINDOW
            and self._unsettled_bytes < WINDOW_BYTES
            and len(self._settled.confirmed) < _MAX_NEWS
            and not self.blocked_reason
        )

    @property
    def has_news(self) -> bool:
        """Whether `settle` has an answer to return at once."""
        return bool(self._settled.confirmed or self._settled.refused)

    @property
    def unsettled_messages(self) -> dict[int, Message]:
        """The unsettled messages by key: if the broker closed the channel, one of them was the reason."""
        return dict(self._unsettled.values())

    @property
    def was_closed_for_a_message(self) -> bool:
        """Whether the broker closed the connection because of a message, not for its shutdown or by an operator."""
        return errors.is_about_a_message(self._failure)

    @staticmethod
    def is_about_permissions(error: BusError) -> bool:
        """Return True if the broker refused a request because the user lacks a permission."""
        return errors.is_about_permissions(error)

    @staticmethod
    def is_about_destination(error: BusError) -> bool:
        """Return True if a message was refused because of its exchange, not because of itself or its routing key."""
        return errors.is_about_destination(error)

    def reopen(self) -> dict[int, Message]:
        """
        Open another channel after the broker has closed this one.

        Returns:
            The `unsettled_messages` of the closed channel.

        Raises:
            BusUnreachableError: The connection is lost as well.
        """
        unsettled = self.unsettled_messages
        self._reopen_channel()
        return unsettled

    def _open_channel(self, timeout: float) -> None:
        super()._open_channel(timeout)
        channel = self._live_channel
        self._unsettled.clear()
        self._unsettled_bytes = self._waiting_bytes = 0
        self._returned.clear()
        self._next_tag = 1
        channel.add_on_return_callback(self._on_return)
        self._call(lambda done: channel.confirm_delivery(self._on_confirm, callback=done))

    # The annotation is quoted: before pika 1.4 this class is not subscriptable at run time.
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
        self._stop_loop()

    def _on_return(
        self, _: object, method: pika.spec.Basic.Return, properties: pika.BasicProperties, __: bytes
    ) -> None:
        # The broker sends the return before the confirm of the same message, so the reason is kept until the confirm.
        reason = f"the broker returned it: {method.reply_text} ({method.reply_code})"
        if method.reply_code == errors.NO_ROUTE:
            reason += ", no queue is bound for it; `dkist-core topology apply` creates the archive"
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
