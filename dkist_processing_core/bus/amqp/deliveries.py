"""
Decoding the frames of AMQP 0.9.1 by which a broker delivers a message, if all of them have arrived.

pika decodes each frame into its own objects, one value after the other, and a long read of the archive takes most of
its time there. Not here: all other frames, which pika decodes, and also deliveries of another form, such as those whose
body has several frames (pika_connection).
"""

import functools
import struct
from typing import Any, NamedTuple

from pika.data import decode_value
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = 0xCE
# Each frame begins with type, channel and size of its payload, and ends with one byte.
_START = struct.Struct(">BHI")
# The payload of Basic.Deliver begins with class and method; the payload of a content header with class, weight, size of
# the body, and a flag for each property that follows.
_BASIC = 60
_DELIVER = struct.pack(">HH", _BASIC, 60)
_DELIVER_START = _START.size + len(_DELIVER)
_CONTENT = struct.Struct(">HHQH")
_TAG, _LONG, _LONG_LONG, _SIGNED = struct.Struct(">QB"), struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">q")
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
    """A delivered message, in the objects of pika."""

    channel: int
    method: Basic.Deliver
    properties: BasicProperties
    body: bytes
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


def _delivery(data: bytes, at: int) -> Delivery:
    channel, header = _frame(data, at, _METHOD)
    channels = {channel}
    header_channel, end = _frame(data, header, _HEADER)
    properties_end = end - 1
    class_id, _, size, flags = _CONTENT.unpack_from(data, header + _START.size)
    channels.add(header_channel)
    body = b""
    if size:
        start = end + _START.size
        body_channel, end = _frame(data, end, _BODY)
        channels.add(body_channel)
        body = data[start : end - 1]
    if len(channels) > 1 or len(body) != size or class_id != _BASIC or flags & _UNKNOWN_FLAGS:
        raise ValueError
    consumer_tag, position = _short(data, at + _DELIVER_START)
    delivery_tag, bits = _TAG.unpack_from(data, position)
    exchange, routing_key = _names(data[position + _TAG.size : header - 1])
    properties = _properties(data, header + _START.size + _CONTENT.size, properties_end, flags)
    method = Basic.Deliver(consumer_tag, delivery_tag, bool(bits & 1), exchange, routing_key)
    return Delivery(channel, method, properties, body, end)


def _frame(data: bytes, at: int, expected: int) -> tuple[int, int]:
    """Return the channel of the frame of this kind at a position, and the position after it."""
    if at + _START.size > len(data):
        raise EOFError
    kind, channel, size = _START.unpack_from(data, at)
    end: int = at + _START.size + size + 1
    if kind != expected:
        raise ValueError
    if end > len(data):
        raise EOFError
    if data[end - 1] != _END:
        raise ValueError
    return channel, end


def _properties(data: bytes, at: int, end: int, flags: int) -> BasicProperties:
    found: dict[str, Any] = {}
    for flag, name, kind in _PROPERTIES:
        if flags & flag:
            if kind == _SHORT:
                found[name], at = _short(data, at)
            elif kind == _TABLE:
                found[name], at = _table(data, at)
            elif kind == _OCTET:
                found[name], at = data[at], at + 1
            else:
                (found[name],) = _LONG_LONG.unpack_from(data, at)
                at += _LONG_LONG.size
    if at > end:
        raise ValueError
    return BasicProperties(**found)


def _table(data: bytes, at: int) -> tuple[dict[str | bytes, Any], int]:
    (size,) = _LONG.unpack_from(data, at)
    at += _LONG.size
    end, found = at + size, {}
    while at < end:
        name, at = _short(data, at)
        kind = data[at]
        if kind == ord("S"):
            (length,) = _LONG.unpack_from(data, at + 1)
            start, at = at + 1 + _LONG.size, at + 1 + _LONG.size + length
            found[name] = _text(data[start:at])
        elif kind == ord("l"):
            (found[name],) = _SIGNED.unpack_from(data, at + 1)
            at += 1 + _SIGNED.size
        else:
            found[name], at = decode_value(data, at)
    return found, at


@functools.lru_cache(256)
def _names(encoded: bytes) -> tuple[str | bytes, str | bytes]:
    """Return exchange and routing key, which many messages have in common."""
    exchange, at = _short(encoded, 0)
    routing_key, _ = _short(encoded, at)
    return exchange, routing_key


def _short(data: bytes, at: int) -> tuple[str | bytes, int]:
    start = at + 1
    end = start + data[at]
    return _text(data[start:end]), end


def _text(encoded: bytes) -> str | bytes:
    """Return text, or the bytes themselves if they are not UTF-8, as pika does."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded
