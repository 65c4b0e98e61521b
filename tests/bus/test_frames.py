"""
The frames of a published message, read back by pika's own decoder.

Not here: their way to a broker (test_amqp).
"""

import math
from typing import Any

import pika.frame
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dkist_processing_core.bus.amqp.frames import publish_frames
from dkist_processing_core.journal.message import APP_ID, Message, Properties

CHANNEL = 7
MAX_SHORT_BYTES = 255
MAX_BODY = 131_064


def shorts() -> st.SearchStrategy[str]:
    """Return a strategy for short strings of AMQP: Unicode of up to 255 bytes."""
    return st.text(max_size=MAX_SHORT_BYTES).filter(lambda text: len(text.encode()) <= MAX_SHORT_BYTES)


def header_values() -> st.SearchStrategy[object]:
    """Return a strategy for values of AMQP's tables: those that this library sends, and those that it only forwards."""
    plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(max_size=20)
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(shorts(), inner, max_size=3))


def messages() -> st.SearchStrategy[Message]:
    """Return a strategy for messages that AMQP can represent."""
    properties = st.builds(
        Properties,
        message_id=shorts(),
        content_type=shorts(),
        type=st.none() | shorts(),
        timestamp=st.none() | st.integers(0, 2**64 - 1),
        correlation_id=st.none() | shorts(),
        headers=st.dictionaries(shorts(), header_values(), max_size=3),
    )
    return st.builds(Message, shorts(), shorts(), st.binary(max_size=300), properties)


def encoded(message: Message, max_body: int = MAX_BODY) -> bytes:
    """Return the frames of a message as they are sent."""
    return b"".join(publish_frames(CHANNEL, message, max_body))


def decoded(data: bytes) -> list[pika.frame.Frame]:
    """Return the frames that pika decodes, none of them incomplete."""
    frames = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        assert frame is not None
        frames.append(frame)
        data = data[size:]
    return frames


def properties_of(message: Message) -> pika.BasicProperties:
    """Return the properties of a message as pika's own."""
    properties = message.properties
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


@given(message=messages(), max_body=st.integers(1, 400))
def test_pika_reads_back_what_was_encoded(message: Message, max_body: int) -> None:
    """Method, properties and body are equal, however many frames the body takes."""
    method, header, *bodies = decoded(encoded(message, max_body))

    expected = pika.spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True)
    assert method.method == expected
    assert (header.properties, header.body_size) == (properties_of(message), len(message.body))
    assert b"".join(each.fragment for each in bodies) == message.body
    assert [len(each.fragment) for each in bodies[:-1]] == [max_body] * (math.ceil(len(message.body) / max_body) - 1)
    assert {each.channel_number for each in (method, header, *bodies)} == {CHANNEL}


@given(first=messages(), second=messages())
def test_the_bytes_are_those_that_pika_would_send(first: Message, second: Message) -> None:
    """The frames contain nothing of an earlier message, or of an earlier send of the same message."""
    for message in (first, second, first):
        publish = pika.spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True)
        frames = [
            pika.frame.Method(CHANNEL, publish),
            pika.frame.Header(CHANNEL, len(message.body), properties_of(message)),
            *([pika.frame.Body(CHANNEL, message.body)] if message.body else []),
        ]
        assert encoded(message) == b"".join(frame.marshal() for frame in frames)


@pytest.mark.parametrize("text", ["a" * 256, "é" * 128, "\ud800"], ids=["long", "long in UTF-8", "a lone surrogate"])
@pytest.mark.parametrize("part", ["exchange", "routing_key", "message_id", "content_type", "type", "correlation_id"])
def test_a_name_that_amqp_cannot_represent_is_refused(part: str, text: str) -> None:
    """No frame is built, so no part of the message is sent."""
    changed: dict[str, Any] = {part: text}
    message = Message("x", "k", b"body", Properties("id", "text/plain"))
    if hasattr(message, part):
        message = replace(message, **changed)
    else:
        message = replace(message, properties=replace(message.properties, **changed))

    with pytest.raises(ValueError, match=r"expected at most 255|surrogates not allowed"):
        encoded(message)
