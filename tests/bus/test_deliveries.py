"""
The frames of delivered messages, compared with what pika's own decoder makes of them.

Not here: their way from a broker (test_amqp).
"""

import pika.frame
import pika.spec
from hypothesis import example, given
from hypothesis import strategies as st

from dkist_processing_core.bus.amqp.consuming import message_of
from dkist_processing_core.bus.amqp.deliveries import Delivery, leading, text_of
from tests.bus.test_frames import decoded, header_values, shorts

CHANNEL = 7


def properties() -> st.SearchStrategy[pika.BasicProperties]:
    """Return a strategy for properties that a broker may deliver."""
    octets = st.none() | st.integers(0, 255)
    texts = {
        name: st.none() | shorts()
        for name in (
            *("content_type", "content_encoding", "correlation_id", "reply_to", "expiration"),
            *("message_id", "type", "user_id", "app_id", "cluster_id"),
        )
    }
    return st.builds(
        pika.BasicProperties,
        headers=st.none() | st.dictionaries(shorts(), header_values(), max_size=3),
        delivery_mode=octets,
        priority=octets,
        timestamp=st.none() | st.integers(0, 2**64 - 1),
        **texts,
    )


def deliveries() -> st.SearchStrategy[list[bytes]]:
    """Return a strategy for the frames of one delivery, whose body may have several."""
    methods = st.builds(pika.spec.Basic.Deliver, shorts(), st.integers(0, 2**64 - 1), st.booleans(), shorts(), shorts())
    return st.builds(frames, methods, properties(), st.lists(st.binary(min_size=1, max_size=300), max_size=3))


def frames(
    method: pika.spec.Basic.Deliver, header: pika.BasicProperties, bodies: list[bytes], *, channel: int = CHANNEL
) -> list[bytes]:
    """Return the frames of a delivery, encoded by pika."""
    size = sum(map(len, bodies))
    found = [pika.frame.Method(channel, method), pika.frame.Header(channel, size, header)]
    return [each.marshal() for each in (*found, *(pika.frame.Body(channel, body) for body in bodies))]


def plain(delivery: Delivery) -> tuple[object, ...]:
    """Return what a consumer receives of a delivery."""
    return delivery.channel, delivery.consumer_tag, delivery.tag, delivery.message


def by_pika(delivery: list[bytes]) -> tuple[object, ...]:
    """Return what a consumer receives of a delivery, decoded by pika."""
    method, header, *bodies = decoded(b"".join(delivery))
    message = message_of(method.method, header.properties, b"".join(each.fragment for each in bodies))
    return method.channel_number, text_of(method.method.consumer_tag), method.method.delivery_tag, message


def odd(**values: object) -> list[bytes]:
    """Return a delivery with unusual properties."""
    return frames(pika.spec.Basic.Deliver("c", 1, False, "x", "k"), pika.BasicProperties(**values), [b"b"])  # noqa: FBT003


@given(sent=st.lists(deliveries(), min_size=1, max_size=3))
@example(sent=[odd(headers={"x-stream-offset": 2**62, "traceparent": "00-é"})])
@example(sent=[odd(headers={})])
def test_deliveries_are_decoded_as_pika_decodes_them(sent: list[list[bytes]]) -> None:
    """Those before the first one whose body has several frames, which is left to pika."""
    found, is_partial = leading(b"".join(b"".join(each) for each in sent))

    whole = next((number for number, each in enumerate(sent) if len(each) > 3), len(sent))
    assert [plain(each) for each in found] == [by_pika(each) for each in sent[:whole]]
    assert [each.end for each in found] == [
        sum(len(frame) for each in sent[:number] for frame in each) for number in range(1, whole + 1)
    ]
    assert not is_partial


@given(sent=deliveries().filter(lambda each: len(each) <= 3), data=st.data())
def test_a_delivery_that_has_not_arrived_completely_is_awaited(sent: list[bytes], data: st.DataObject) -> None:
    """From the first bytes that show that it is one; before that, pika waits for the rest of the frame."""
    whole = b"".join(sent)
    cut = data.draw(st.integers(0, len(whole) - 1))

    found, is_partial = leading(whole + whole[:cut])

    assert [plain(each) for each in found] == [by_pika(sent)]
    assert is_partial == (cut >= 11)


@given(sent=deliveries(), data=st.data())
def test_damaged_frames_never_raise_and_are_read_as_pika_reads_them(sent: list[bytes], data: st.DataObject) -> None:
    """What differs from the form of a delivery is left to pika, which reports it."""
    damaged = bytearray(b"".join(sent))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))

    found, _ = leading(bytes(damaged))

    for each in found:
        expected = by_pika([bytes(damaged[: each.end])])
        assert plain(each) == expected


def test_frames_of_another_channel_between_those_of_a_delivery_are_left_to_pika() -> None:
    """A broker may send frames of several channels in turns."""
    method, header, body = odd()
    other = b"".join(frames(pika.spec.Basic.Deliver("c", 1, False, "x", "k"), pika.BasicProperties(), [], channel=8))  # noqa: FBT003

    assert leading(method + other + header + body) == ([], False)
