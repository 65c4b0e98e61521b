"""
The encoding of a protobuf message, one field at a time: https://protobuf.dev/programming-guides/encoding/.

The library protobuf is not imported: this takes longer than the work of a short task. As there, a field with the
default value of its type is left out. Not here: the messages of OTLP (_encoding).
"""

import struct

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_MOST_OF_BYTE = 0x7F
_BYTES = [bytes([value]) for value in range(_MOST_OF_BYTE + 1)]
_WRAP = 1 << 64


def varint(value: int) -> bytes:
    """Return an integer in the fewest bytes; a negative one as the unsigned one with the same 64 bits."""
    if 0 <= value <= _MOST_OF_BYTE:
        return _BYTES[value]
    rest, encoded = value % _WRAP, bytearray()
    while rest > _MOST_OF_BYTE:
        encoded.append(rest & _MOST_OF_BYTE | _MOST_OF_BYTE + 1)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def message(number: int, body: bytes) -> bytes:
    """Return a field with an embedded message, or a member of a choice; it is present although it is empty."""
    return varint(number << 3 | _LENGTH) + varint(len(body)) + body


def data(number: int, value: bytes) -> bytes:
    """Return a field with bytes."""
    return message(number, value) if value else b""


def text(number: int, value: str | None) -> bytes:
    """Return a field with a text."""
    return message(number, utf8(value)) if value else b""


def integer(number: int, value: int | None) -> bytes:
    """Return a field with an integer, a truth value or a member of an enumeration."""
    return chosen_integer(number, value) if value else b""


def chosen_integer(number: int, value: int) -> bytes:
    """Return a member of a choice that is an integer; it is present although it is 0."""
    return varint(number << 3 | _VARINT) + varint(value)


def fixed_32(number: int, value: int) -> bytes:
    """Return a field with an integer of 4 bytes."""
    return varint(number << 3 | _FIXED_32) + struct.pack("<I", value) if value else b""


def fixed_64(number: int, value: int | None) -> bytes:
    """Return a field with an integer of 8 bytes."""
    return chosen_fixed_64(number, value) if value else b""


def chosen_fixed_64(number: int, value: int) -> bytes:
    """Return a member of a choice that is an integer of 8 bytes; it is present although it is 0."""
    return varint(number << 3 | _FIXED_64) + struct.pack("<Q", value)


def chosen_double(number: int, value: float) -> bytes:
    """Return a member of a choice that is a number of double precision; it is present although it is 0."""
    return varint(number << 3 | _FIXED_64) + struct.pack("<d", value)


def utf8(value: str) -> bytes:
    """Return a text in UTF-8, with U+FFFD for each lone surrogate, which no text of protobuf may hold."""
    try:
        return str.encode(value)
    except UnicodeEncodeError:
        return str.encode(value, "utf-16", "surrogatepass").decode("utf-16", "replace").encode()
