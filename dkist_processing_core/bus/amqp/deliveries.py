"""
Decoding the frames of AMQP 0.9.1 by which a broker delivers a message, if all of them have arrived.

pika decodes each frame into its own objects, one value after the other, and a consumer of many events takes a third of
its time there. Not here: all other frames, which pika decodes, and also deliveries of another form, such as those whose
body has several frames (pika_connection).
"""

import functools
import struct
from typing import Any, NamedTuple

from pika.data import decode_value
from pika.exceptions import AMQPError

from dkist_processing_core.journal.message import Message, Properties

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = 0xCE
# Each frame begins with type, channel and size of its payload, and ends with one byte.
_START = struct.Struct(">BHI")
_FRAME_BYTES = _START.size + 1
# The payload of Basic.Deliver begins with class and method; the payload of a content header with class, weight, size of
# the body, and a flag for each property that follows.
_BASIC = 60
_DELIVER = struct.pack(">HH", _BASIC, 60)
_CONTENT = struct.Struct(">BHIHHQH")
_TAG, _LONG, _LONG_LONG, _SIGNED = struct.Struct(">QB"), struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">q")
_MAX_SHORT_BYTES = 255
# The properties in the order of their flags, from the highest to the lowest; the lowest bit announces more flags.
_SHORT, _TABLE, _OCTET, _TIME = range(4)
_PROPERTIES = (
    (1 << 15, "content_type", _SHORT),
    (1 << 14, "content_encoding", _SHORT),
    (1 << 13, "headers", _TABLE),
    (1 << 12, "delivery_mode", _OCTET),
    (1 << 11, "priority", _OCTET),
    (1 << 10, "correlation_id", _SHORT),
    (1 << 9, "reply_to", _SHORT),
    (1 << 8, "expiration", _SHORT),
    (1 << 7, "message_id", _SHORT),
    (1 << 6, "timestamp", _TIME),
    (1 << 5, "type", _SHORT),
    (1 << 4, "user_id", _SHORT),
    (1 << 3, "app_id", _SHORT),
    (1 << 2, "cluster_id", _SHORT),
)
_UNKNOWN_FLAGS = 0b11


class Delivery(NamedTuple):
    """A delivered message."""

    channel: int
    consumer_tag: str
    tag: int
    """The number by which it is acknowledged."""
    message: Message
    end: int
    """The position after its frames."""


def leading(data: bytes) -> tuple[list[Delivery], bool]:
    """
    Return the deliveries at the beginning of the bytes that have arrived.

    Returns:
        The deliveries, and whether they are followed by the beginning of another one, the rest of which has not
        arrived. Frames of a form that pika decodes end the deliveries.
    """
    found, at = list[Delivery](), 0
    while data.startswith(_DELIVER, at + _START.size) and data[at] == _METHOD:
        try:
            found.append(_delivery(data, at))
        except EOFError:
            return found, True
        except (AMQPError, ValueError, LookupError, OverflowError, OSError, struct.error):
            # pika reports what it cannot decode.
            break
        at = found[-1].end
    return found, False


def text_of(short: str | bytes) -> str:
    """Return a short string as `str`, also if it is not UTF-8: short enough to be sent again."""
    if isinstance(short, str):
        return short
    try:
        return short.decode()
    except UnicodeDecodeError:
        # The replacement of a byte takes three bytes.
        return short.decode("utf-8", "replace").encode()[:_MAX_SHORT_BYTES].decode("utf-8", "ignore")


def _delivery(data: bytes, at: int) -> Delivery:
    arrived = len(data)
    _, channel, length = _START.unpack_from(data, at)
    header = at + length + _FRAME_BYTES
    if header + _CONTENT.size > arrived:
        raise _incomplete(data, header, _HEADER)
    kind, header_channel, length, class_id, _, size, flags = _CONTENT.unpack_from(data, header)
    if kind != _HEADER or header_channel != channel or class_id != _BASIC or flags & _UNKNOWN_FLAGS:
        raise ValueError
    end = body_end = header + length + _FRAME_BYTES
    body = b""
    if size:
        start = end + _START.size
        if start > arrived:
            raise _incomplete(data, end, _BODY)
        if _START.unpack_from(data, end) != (_BODY, channel, size):
            raise ValueError
        body_end = start + size + 1
        body = data[start : body_end - 1]
    if body_end > arrived:
        raise EOFError
    if not data[header - 1] == data[end - 1] == data[body_end - 1] == _END:
        raise ValueError
    consumer_tag, position = _short(data, at + _START.size + len(_DELIVER))
    tag, _ = _TAG.unpack_from(data, position)
    exchange, routing_key = _names(data[position + _TAG.size : header - 1])
    properties = _properties(data, header + _CONTENT.size, end - 1, flags)
    return Delivery(
        channel, _text(consumer_tag), tag, Message.received(exchange, routing_key, body, properties), body_end
    )


def _incomplete(data: bytes, at: int, kind: int) -> Exception:
    """Return the error about a frame whose beginning has not arrived; one of another kind is left to pika."""
    return EOFError() if data[at : at + 1] in (b"", bytes((kind,))) else ValueError()


def _properties(data: bytes, at: int, end: int, flags: int) -> Properties:
    found: dict[str, Any] = {}
    for name, kind in _present(flags):
        if kind == _SHORT:
            start = at + 1
            at = start + data[at]
            found[name] = data[start:at]
        elif kind == _TABLE:
            found[name], at = _table(data, at)
        elif kind == _OCTET:
            at += 1
        else:
            (found[name],) = _LONG_LONG.unpack_from(data, at)
            at += _LONG_LONG.size
    if at > end:
        raise ValueError
    return Properties(
        text_of(found.get("message_id", b"")),
        _text(found.get("content_type", b"")),
        _text(found["type"]) if "type" in found else None,
        found.get("timestamp"),
        _text(found["correlation_id"]) if "correlation_id" in found else None,
        found.get("headers", {}),
    )


@functools.lru_cache(64)
def _present(flags: int) -> tuple[tuple[str, int], ...]:
    """Return the names and kinds of the properties that the flags announce."""
    return tuple((name, kind) for flag, name, kind in _PROPERTIES if flags & flag)


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    (size,) = _LONG.unpack_from(data, at)
    at += _LONG.size
    end, found = at + size, {}
    while at < end:
        name, at = _short(data, at)
        kind = data[at]
        if kind == ord("S"):
            (length,) = _LONG.unpack_from(data, at + 1)
            start, at = at + 1 + _LONG.size, at + 1 + _LONG.size + length
            found[_text(name)] = _long_text(data[start:at])
        elif kind == ord("l"):
            (found[_text(name)],) = _SIGNED.unpack_from(data, at + 1)
            at += 1 + _SIGNED.size
        else:
            found[_text(name)], at = decode_value(data, at)
    return found, at


@functools.lru_cache(256)
def _names(encoded: bytes) -> tuple[str, str]:
    """Return exchange and routing key, which many messages have in common."""
    exchange, at = _short(encoded, 0)
    routing_key, _ = _short(encoded, at)
    return text_of(exchange), text_of(routing_key)


def _short(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 1
    end = start + data[at]
    return data[start:end], end


# Of texts that many messages have in common, one copy is kept.
_text = functools.lru_cache(256)(text_of)


def _long_text(encoded: bytes) -> str | bytes:
    """Return text, or the bytes themselves if they are not UTF-8, as pika does."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded
