"""
A message as the journal keeps it and the broker takes it, and how an event becomes one.

Not here: who stores or sends it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from dkist_processing_core.events import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    Event,
    RecipeRunFailureMessage,
    TaskEvent,
    encode_to_fit,
)
from dkist_processing_core.text import redact

APP_ID = "dkist-processing-core"
EXCERPT_BYTES = 16 * 1024
"""How much is kept of a body that is too large to be read."""
# What AMQP's short strings hold, in bytes.
_MAX_SHORT_BYTES = 255
_MAX_WORD_BYTES = 100


@dataclass(frozen=True, slots=True)
class Properties:
    """The AMQP properties that travel with a body; `timestamp` is in whole seconds since 1970."""

    message_id: str
    content_type: str
    type: str | None = None
    timestamp: int | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the properties as the journal keeps them."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` was given."""
        return cls(**msgspec.json.decode(text))


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes on their way to an exchange."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    full_size: int | None = None
    """How many bytes the body has, where it is too large to be read and `body` holds an excerpt."""

    @classmethod
    def received(cls, exchange: str, routing_key: str, body: bytes, properties: Properties) -> Self:
        """Return a message as a consumer gets it: with an excerpt of a body that is too large."""
        if len(body) <= MAX_BODY_BYTES:
            return cls(exchange, routing_key, body, properties)
        return cls(exchange, routing_key, body[:EXCERPT_BYTES], properties, len(body))


def word(name: str) -> str:
    """
    Return a name as one word of a routing key: no dot, at most 100 bytes of UTF-8.

    A longer one is cut, with `-` and 8 hex digits of its SHA-256 to tell it from others that begin alike.
    """
    encoded = name.replace(".", "-").encode()
    if len(encoded) <= _MAX_WORD_BYTES:
        return encoded.decode()
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{encoded[: _MAX_WORD_BYTES - 9].decode(errors='ignore')}-{digest}"


def routing_key(event: Event) -> str:
    """Return `{entity}.{verb}.{workflow}`, and `.{task}` for an event of a task."""
    words = [event.name, word(event.workflow_name)]
    if isinstance(event, TaskEvent):
        words.append(word(event.task_name))
    return ".".join(words)


def to_message(event: Event, exchange: str, *, blank: Callable[[str], str] = redact) -> Message:
    """Return the event as it may leave the process: its texts made `blank` of secrets, cut to size, encoded."""
    event = event.redacted(blank)
    headers = {"traceparent": event.traceparent} if event.traceparent else {}
    return Message(
        exchange=exchange,
        routing_key=routing_key(event),
        body=encode_to_fit(event),
        properties=Properties(
            message_id=event.id,
            content_type=CONTENT_TYPE,
            type=event.type,
            # AMQP's timestamps have no sign.
            timestamp=max(0, int(event.time.timestamp())),
            correlation_id=_short(event.run_id),
            headers=headers,
        ),
    )


def to_failure_message(
    message: RecipeRunFailureMessage, exchange: str, *, blank: Callable[[str], str] = redact
) -> Message:
    """Return the established failure message for its exchange, its log URL made `blank` of secrets."""
    message = message.redacted(blank)
    return Message(
        exchange=exchange,
        routing_key=message.routing_key,
        body=message.encode(),
        properties=Properties(
            message_id=message.id,
            content_type="application/json",
            correlation_id=_short(message.dag_run_id or "") or None,
        ),
    )


def _short(text: str) -> str:
    return text.encode()[:_MAX_SHORT_BYTES].decode(errors="ignore")
