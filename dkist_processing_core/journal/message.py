"""
A message in the form that journal and broker share, and the conversion of an event to a message.

Not here: storing and sending it.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Self

import msgspec

from dkist_processing_core.errors import UnknownEventError
from dkist_processing_core.events import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    MAX_ENCODED_BYTES,
    Event,
    RecipeRunFailureMessage,
    TaskEvent,
    decode,
    encode_to_fit,
)
from dkist_processing_core.text import redact

APP_ID = "dkist-processing-core"
EXCERPT_BYTES = 16 * 1024
"""How many bytes are kept of a body that is too large to be read, or to be kept without an event in it."""
# The longest short string of AMQP, in bytes.
_MAX_SHORT_BYTES = 255
_MAX_WORD_BYTES = 100


class Properties(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The AMQP properties that travel with a body; `timestamp` is in whole seconds since 1970."""

    message_id: str
    content_type: str
    type: str | None = None
    timestamp: int | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] = {}

    def to_json(self) -> str:
        """Return the properties as JSON, the form in which the journal stores them."""
        return _to_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Properties":
        """
        Return the properties that `to_json` has encoded.

        Raises:
            ValueError: The text is not JSON, or a property is missing, unknown or of another type.
        """
        return _from_json(text)


_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(Properties).decode


class Message(msgspec.Struct, frozen=True, gc=False):
    """A body with its properties, its exchange and its routing key."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    full_size: int | None = None
    """The size of the whole body in bytes, if `body` is an excerpt; otherwise None."""
    refusal: str | None = None
    """Why the whole body is no event, if that was found when the excerpt was made."""

    @classmethod
    def received(cls, exchange: str, routing_key: str, body: bytes, properties: Properties) -> Self:
        """Return a message as a consumer receives it: with an excerpt of a body that is too large."""
        if len(body) <= MAX_BODY_BYTES:
            return cls(exchange, routing_key, body, properties)
        return cls(exchange, routing_key, body[:EXCERPT_BYTES], properties, len(body))


def without_needless_bytes(message: Message) -> Message:
    """Return a message, with an excerpt of a body that is larger than an event has to be and holds none."""
    size, properties = len(message.body), message.properties
    if size <= MAX_ENCODED_BYTES or message.full_size is not None:
        return message
    try:
        decode(message.body, properties.content_type, properties.headers)
    except UnknownEventError:
        return message
    except Exception as error:  # noqa: BLE001 - no error of a foreign message may end a consumer
        reason = f"{error}; the body has {size:,} bytes, of which the first {EXCERPT_BYTES:,} are kept"
        return msgspec.structs.replace(message, body=message.body[:EXCERPT_BYTES], full_size=size, refusal=reason)
    return message


def word(name: str) -> str:
    """
    Return a name as one word of a routing key: no dot, at most 100 bytes of UTF-8.

    A longer name is cut, and gets `-` and 8 hex digits of its SHA-256, so that names with the same beginning differ.
    """
    encoded = name.replace(".", "-").encode()
    if len(encoded) <= _MAX_WORD_BYTES:
        return encoded.decode()
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{encoded[: _MAX_WORD_BYTES - 9].decode(errors='ignore')}-{digest}"


def routing_key(event: Event) -> str:
    """Return the routing key `{entity}.{verb}.{workflow}`, with `.{task}` added for an event of a task."""
    task = (event.task_name,) if isinstance(event, TaskEvent) else ()
    return _routing_key(event.name, event.workflow_name, *task)


@lru_cache(maxsize=64)
def _routing_key(name: str, *names: str) -> str:
    return ".".join([name, *map(word, names)])


@lru_cache(maxsize=1024)
def topic_matches(pattern: str, key: str) -> bool:
    """
    Return True if a routing key matches a topic pattern: `*` matches one word, `#` any number of words.

    >>> topic_matches("task.*.W.#", "task.failed.W.A"), topic_matches("task.*", "task.failed.W")
    (True, False)
    """
    reachable = {0}
    words = key.split(".")
    for part in pattern.split("."):
        if part == "#":
            reachable = set(range(min(reachable), len(words) + 1)) if reachable else set()
        else:
            reachable = {at + 1 for at in reachable if at < len(words) and part in ("*", words[at])}
    return len(words) in reachable


def to_message(event: Event, exchange: str, *, blank: Callable[[str], str] = redact) -> Message:
    """Return the message of an event: `blank` removes secrets from its texts, and it is cut to size and encoded."""
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
            # AMQP's timestamps are unsigned.
            timestamp=max(0, int(event.time.timestamp())),
            correlation_id=_short(event.run_id),
            headers=headers,
        ),
    )


def to_failure_message(
    message: RecipeRunFailureMessage, exchange: str, *, blank: Callable[[str], str] = redact
) -> Message:
    """Return the established failure message for its exchange; `blank` removes secrets from its log URL."""
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
