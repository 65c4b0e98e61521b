"""
Encoding a message as frames of AMQP 0.9.1; the parts that many messages have in common are cached.

pika builds an object for each frame, although most messages have the same exchange, routing key and properties.
Not here: all other frames, which pika encodes and decodes, and sending frames (pika_connection).
"""

import functools
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from pika.data import encode_table

from dkist_processing_core.journal.message import APP_ID, Message

Frames = list[bytes | memoryview]
"""Pieces of encoded frames: a body is copied only when the pieces are joined."""

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
# Each frame begins with type, channel and size of its payload.
_START = struct.Struct(">BHI")
# The payload of Basic.Publish begins with class, method and a reserved number; it ends with the bit `mandatory`.
_PUBLISH, _MANDATORY = struct.pack(">HHH", 60, 40, 0), b"\x01"
# The payload of a content header begins with class, weight, size of the body, and a flag for each property that
# follows. The order of the properties is that of their flags, from the highest to the lowest.
_CONTENT_BYTES = 14
_CONTENT_START = struct.Struct(">BHIHHQH")
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _CORRELATION_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 10
_MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3
_ALWAYS = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID | _APP_ID
_PERSISTENT = b"\x02"
_LONG, _LONG_LONG = struct.Struct(">I"), struct.Struct(">Q")
_MAX_SHORT_BYTES = 255
# The cache has few tables, because each may be as large as a frame.
_CACHE_SIZE, _CACHED_TABLES = 256, 16


class _Shared(NamedTuple):
    """The encoded parts that many messages have in common: the method frame, and parts of the content header."""

    method_frame: bytes
    flags: int
    content_type: bytes
    before_message_id: bytes
    after_timestamp: bytes


def publish_frames(channel: int, message: Message, max_body: int) -> Frames:
    """
    Return the frames that publish a message, persistent, mandatory, and with the app id of this library.

    Args:
        channel: The number of the channel.
        message: The message.
        max_body: How many bytes of a body one frame may hold, as the broker and the client have agreed.

    Raises:
        ValueError: A name or a property is too long for AMQP, or is no Unicode text.
        AMQPError, struct.error: A header or the timestamp has a value that AMQP cannot represent.
    """
    body, properties = message.body, message.properties
    size, timestamp, headers = len(body), properties.timestamp, properties.headers
    shared = _shared(
        channel,
        message.exchange,
        message.routing_key,
        properties.content_type,
        properties.correlation_id,
        properties.type,
    )
    flags = shared.flags
    table = time = b""
    if headers:
        flags |= _HEADERS
        table = _table(headers)
    if timestamp is not None:
        flags |= _TIMESTAMP
        time = _LONG_LONG.pack(timestamp)
    message_id = _short(properties.message_id)
    encoded = b"".join((shared.content_type, table, shared.before_message_id, message_id, time, shared.after_timestamp))
    frames: Frames = [
        shared.method_frame,
        _CONTENT_START.pack(_HEADER, channel, _CONTENT_BYTES + len(encoded), 60, 0, size, flags),
        encoded,
        _END,
    ]
    if 0 < size <= max_body:
        frames += (_START.pack(_BODY, channel, size), body, _END)
    elif size:
        view = memoryview(body)
        for start in range(0, size, max_body):
            part = view[start : start + max_body]
            frames += (_START.pack(_BODY, channel, len(part)), part, _END)
    return frames


@functools.lru_cache(_CACHE_SIZE)
def _shared(
    channel: int, exchange: str, routing_key: str, content_type: str, correlation_id: str | None, type_: str | None
) -> _Shared:
    method = _PUBLISH + _short(exchange) + _short(routing_key) + _MANDATORY
    flags, before, after = _ALWAYS, _PERSISTENT, _short(APP_ID)
    if correlation_id is not None:
        flags |= _CORRELATION_ID
        before += _short(correlation_id)
    if type_ is not None:
        flags |= _TYPE
        after = _short(type_) + after
    return _Shared(
        method_frame=_START.pack(_METHOD, channel, len(method)) + method + _END,
        flags=flags,
        content_type=_short(content_type),
        before_message_id=before,
        after_timestamp=after,
    )


def _short(text: str) -> bytes:
    """Return a short string of AMQP: its length in one byte, and its UTF-8."""
    encoded = text.encode()
    length = len(encoded)
    if length > _MAX_SHORT_BYTES:
        msg = f"found {length} bytes, expected at most {_MAX_SHORT_BYTES}: {text[:_MAX_SHORT_BYTES]!r}"
        raise ValueError(msg)
    return bytes((length,)) + encoded


def _table(headers: Mapping[str, Any]) -> bytes:
    """Return the encoded headers. An event has one, `traceparent`, equal for all events of an attempt: it is cached."""
    if len(headers) == 1:
        ((name, value),) = headers.items()
        if type(value) is str:
            return _table_of_text(name, value)
    pieces: list[bytes] = []
    encode_table(pieces, dict(headers))
    return b"".join(pieces)


@functools.lru_cache(_CACHED_TABLES)
def _table_of_text(name: str, value: str) -> bytes:
    encoded = value.encode()
    field = _short(name) + b"S" + _LONG.pack(len(encoded)) + encoded
    return _LONG.pack(len(field)) + field
