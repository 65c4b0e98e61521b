"""
Losses on RabbitMQ, because a queue dropped messages or expired, or an archive was deleted: noticed, counted, reported.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest
from typer.testing import CliRunner

from dkist_processing_core.bus import topology
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.amqp.consuming import TaggedMessage
from dkist_processing_core.bus.amqp.lost_events import LostEvents
from dkist_processing_core.bus.amqp.named_queue import QUEUE_PREFETCH
from dkist_processing_core.bus.amqp.session import RPC_SECONDS
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Subscription, subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.journal.message import Message, Properties
from tests.bus.contract import SECONDS
from tests.facts import progressed
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.test_delivery import settings_of, warnings_in
from tests.waiting import wait_until

LIMIT = 50


@pytest.fixture
def settings(broker: Broker) -> DKISTProcessingCoreConfiguration:
    """
    The settings that name a broker for this test.
    """
    return settings_of(broker)


@pytest.fixture
def open_named(
    settings: DKISTProcessingCoreConfiguration, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Subscription]:
    """
    A function that opens the subscription `ops` on a queue of 50 messages.
    """
    monkeypatch.setattr(topology, "MAX_QUEUE_LENGTH", LIMIT)

    def open_it(**how: Any) -> Subscription:
        values: dict[str, Any] = {"name": "ops", "timeout": 1.0, "settings": settings} | how
        return subscribe("task.progressed", **values)

    return open_it


def publish(settings: DKISTProcessingCoreConfiguration, first: int, last: int, workflow: str = "W") -> None:
    """
    Publish reports of progress, confirmed.
    """
    with Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number, workflow_name=workflow) for number in range(first, last)])
        assert publisher.flush(SECONDS)


def numbers(subscription: Subscription, last: float | None = None) -> list[float]:
    """
    Return the numbers of the progress reports that a subscription yields, up to a number or to the timeout.
    """
    found: list[float] = []
    for event in subscription:
        found.append(event.done)  # type: ignore[attr-defined]
        if found[-1] == last:
            break
    return found


def test_what_overflowed_before_the_first_read_is_counted(
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    Losses since the queue was declared are counted at the next read, in one warning.
    """
    publish(settings, 0, 5)
    open_named().close()
    publish(settings, 5, 5 + LIMIT + 30)

    with open_named() as subscription:
        before = subscription.missed
        read = numbers(subscription)
        missed = subscription.missed

    assert read == list(range(35, 35 + LIMIT))
    assert (before, missed) == (0, 30)
    (told,) = warnings_in(caplog)
    assert told == (
        "the subscription 'ops' has lost 30 events: its queue keeps 50 and drops the oldest; "
        "subscribe(replay=…) yields those still in the archive"
    )


def test_what_overflowed_behind_the_last_read_is_counted(
    settings: DKISTProcessingCoreConfiguration, open_named: Callable[..., Subscription]
) -> None:
    """
    Messages that were acknowledged before are not counted as lost, and neither are unselected ones.
    """
    with open_named(workflow="W") as subscription:
        publish(settings, 0, 20)
        assert numbers(subscription) == list(range(20))
    publish(settings, 0, 10, workflow="Other")
    publish(settings, 20, 20 + LIMIT + 7)

    with open_named(workflow="W") as subscription:
        read = numbers(subscription)

        assert (subscription.missed, len(read), read[0]) == (7, LIMIT, 27)


def test_a_queue_that_has_expired_is_noticed(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    All events published without it are lost to the name.
    """
    with open_named() as subscription:
        publish(settings, 0, 3)
        assert numbers(subscription) == [0, 1, 2]
    with broker.connect() as connection:
        connection.channel().queue_delete("ops")
    publish(settings, 3, 9)

    with open_named() as subscription:
        publish(settings, 9, 10)
        read = numbers(subscription)

        assert (subscription.missed, read) == (6, [9])
    (told,) = warnings_in(caplog)
    assert "has lost 6 events: its queue was deleted, or has expired without use;" in told


def test_a_slow_reader_learns_of_what_is_dropped_meanwhile(
    settings: DKISTProcessingCoreConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Every published event is read or counted.
    """
    monkeypatch.setattr(topology, "MAX_QUEUE_LENGTH", 100 * QUEUE_PREFETCH["classic"])
    monkeypatch.setattr("dkist_processing_core.bus.amqp.lost_events.LOOK_SECONDS", 0.0)
    published = topology.MAX_QUEUE_LENGTH + 300
    with subscribe("task.progressed", name="ops", timeout=SECONDS, settings=settings) as subscription:
        publish(settings, 0, 30)
        next(subscription)
        publish(settings, 30, published)
        # The last one is never dropped: a full queue drops its first message.
        read = numbers(subscription, published - 1)

        assert 1 + len(read) + subscription.missed == published
        assert subscription.missed > 0


def test_nothing_is_claimed_where_nothing_was_lost(
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A queue may be exactly full.
    """
    open_named().close()
    publish(settings, 0, LIMIT)

    with open_named() as subscription:
        assert numbers(subscription) == list(range(LIMIT))
        assert subscription.missed == 0
    assert warnings_in(caplog) == []


def test_an_account_that_may_not_read_the_archive_is_told_without_the_count(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The subscription continues.
    """
    open_named().close()
    publish(settings, 0, LIMIT + 1)
    narrow = settings_of(broker.as_user(configure=".*", write=".*", read=r"^(ops|workflow\.events\.(x|dlx))$"))

    with open_named(settings=narrow) as subscription:
        read = numbers(subscription)

        assert (subscription.missed, len(read)) == (0, LIMIT)
    (told,) = warnings_in(caplog)
    assert told == (
        "the subscription 'ops' may have lost events: its queue keeps 50 and drops the oldest; how many is not known"
    )


# Values that others control: properties of their messages, content of a shared folder, permissions of an account


def publish_foreign(broker: Broker, **properties: Any) -> None:
    """
    Publish a message that is not an event of this library.
    """
    with broker.connect() as connection:
        connection.channel().basic_publish(
            "workflow.events.x", "task.progressed.W.A", b"x", pika.BasicProperties(**properties)
        )


@pytest.mark.parametrize(
    "properties",
    [{"message_id": "m", "timestamp": 300_000_000_000}, {"message_id": "\x00" * 255}],
    ids=["time", "id"],
)
def test_no_property_of_a_foreign_message_ends_a_name(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
    properties: dict[str, Any],
) -> None:
    """
    After the message was read, later losses are counted as usual.
    """
    with open_named() as subscription:
        publish_foreign(broker, **properties)
        assert numbers(subscription) == []
    with broker.connect() as connection:
        connection.channel().queue_delete("ops")
    publish(settings, 0, 2)

    with open_named(timeout=0) as subscription:
        assert subscription.missed == 2
    assert "has lost 2 events: its queue was deleted" in caplog.text


def test_a_message_without_an_id_is_no_place(
    broker: Broker, open_named: Callable[..., Subscription], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Losses behind it are noticed, but not counted.
    """
    with open_named() as subscription:
        publish_foreign(broker)
        assert numbers(subscription) == []
    for _ in range(LIMIT + 1):
        publish_foreign(broker)

    with open_named() as subscription:
        assert numbers(subscription) == []
        assert subscription.missed == 0
    unknown = (
        "the subscription 'ops' may have lost events: its queue keeps 50 and drops the oldest; how many is not known"
    )
    assert unknown in warnings_in(caplog)


def test_a_publisher_whose_clock_is_ahead_hides_no_loss(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    If the archive holds nothing from that time on, it is read from its beginning.
    """
    monkeypatch.setattr("dkist_processing_core.bus.amqp.lost_events._CLOCK_MARGIN", -3600)
    with open_named() as subscription:
        publish(settings, 0, 3)
        publish_foreign(broker, message_id="m", timestamp=int(time.time()))
        assert numbers(subscription) == [0, 1, 2]
    with broker.connect() as connection:
        connection.channel().queue_delete("ops")
    # These are published as two groups, because the broker may deliver the last group alone.
    publish(settings, 3, 4)
    publish(settings, 4, 5)

    with open_named(timeout=0) as subscription:
        assert subscription.missed == 2


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [(1, "has lost at least 3 events"), (300_000_000_000, "may have lost events")],
    ids=["dropped", "never held"],
)
def test_a_place_that_the_archive_does_not_hold_is_no_exact_one(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
    timestamp: int,
    expected: str,
) -> None:
    """
    Everything in the archive came after the position if the oldest message did.
    """
    with open_named() as subscription:
        with broker.connect() as connection:
            channel = connection.channel()
            channel.basic_publish("", "ops", b"x", pika.BasicProperties(message_id="m", timestamp=timestamp))
        assert numbers(subscription) == []
    caplog.clear()
    with broker.connect() as connection:
        connection.channel().queue_delete("ops")
    publish_foreign(broker, message_id="oldest", timestamp=1000)
    publish(settings, 0, 2)

    open_named(timeout=0).close()

    assert expected in caplog.text


def test_what_other_consumers_of_a_name_received_is_not_counted_as_lost(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The number is an upper bound if other consumers read, and is not added to `missed`.
    """
    open_named().close()
    with broker.connect() as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("ops", lambda *_: None)
        publish(settings, 0, LIMIT + 31)
        with open_named() as subscription:
            assert len(numbers(subscription)) == LIMIT
            assert subscription.missed == 0

    (told,) = warnings_in(caplog)
    assert "has lost at most 31 events: its queue keeps 50 and drops the oldest;" in told


def test_a_connection_that_breaks_repeats_no_comparison(
    broker: Broker,
    settings: DKISTProcessingCoreConfiguration,
    open_named: Callable[..., Subscription],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The pause after a comparison also applies on the next connection.
    """
    open_named().close()
    publish(settings, 0, LIMIT + 1)
    narrow = settings_of(broker.as_user(configure=".*", write=".*", read=r"^(ops|workflow\.events\.(x|dlx))$"))

    with open_named(settings=narrow, timeout=SECONDS) as subscription:
        next(subscription)
        broker.close_connections()
        wait_until(lambda: "connecting again" in caplog.text)
        next(subscription)
        assert len(numbers(subscription, LIMIT)) == LIMIT - 2

    assert caplog.text.count("how many is not known") == 1


def test_a_silent_broker_holds_up_no_connection_past_its_deadline(
    proxied: tuple[Broker, Proxy],
) -> None:
    """
    The deadline applies whatever timeout the call has.
    """
    behind, proxy = proxied
    began = time.monotonic()
    with AmqpBus(settings_of(behind)).connect(deadline=began + 3.0) as link:
        proxy.swallow_answers()
        with pytest.raises(BusUnreachableError, match="does not open a channel within 0 s"):
            link.last_of_stream(ARCHIVE_QUEUE, 60.0)

    assert time.monotonic() - began < RPC_SECONDS


@pytest.mark.parametrize(
    "content",
    [
        '{"timestamp": "abc"}',
        '{"timestamp": 1e30}',
        '{"offset": "z"}',
        '{"offset": -1}',
        '{"message_id": []}',
        "[]",
        '{"message_id": "m", "timestamp": 1000000000000000000000}',
        '{"offset": 100000000000000000000}',
    ],
)
def test_no_file_of_others_ends_a_name(
    broker: Broker, state_dir: Path, open_named: Callable[..., Subscription], content: str
) -> None:
    """
    A file that is not a position in the archive is ignored.
    """
    open_named().close()
    (file,) = state_dir.glob("read-*.json")
    file.write_text(content)
    with broker.connect() as connection:
        connection.channel().queue_delete("ops")

    with open_named(timeout=0) as subscription:
        assert subscription.missed == 0


def test_a_queue_that_an_account_may_not_ask_for_is_not_asked_for_later(
    settings: DKISTProcessingCoreConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    RabbitMQ 4.2 refuses the request without the configure permission, and closes the channel of the messages.
    """
    monkeypatch.setattr("dkist_processing_core.bus.amqp.lost_events.LOOK_SECONDS", -1.0)
    bus = AmqpBus(settings)
    received = TaggedMessage(1, Message("x", "k", b"", Properties("m", "")))
    with bus.open_link() as link:
        losses = LostEvents(bus, "ops", ["#"], limit=LIMIT, prefetch=1)
        losses.attach(link, is_there=None)

        losses.receive(link, received)


def delete_archive(broker: Broker) -> None:
    """
    Delete the archive.
    """
    with broker.connect() as connection:
        connection.channel().queue_delete(ARCHIVE_QUEUE)


def test_an_archive_that_is_made_again_is_one_warning(
    broker: Broker, settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Only if this host has delivered to it before; the first archive of a broker causes no warning.
    """
    publish(settings, 0, 3)
    before = warnings_in(caplog)
    delete_archive(broker)
    for first in (3, 6):
        publish(settings, first, first + 3)

    (told,) = warnings_in(caplog)
    assert before == []
    where = f"RabbitMQ at {broker.host}:{broker.port}, virtual host {broker.vhost}"
    lost = "no replay yields the events that were delivered before"
    assert told == f"{where} had no {ARCHIVE_QUEUE} any more, and it was created again: {lost}"


def test_doctor_reports_an_archive_that_it_makes_again(
    broker: Broker, use: Callable[[Broker], None], settings: DKISTProcessingCoreConfiguration
) -> None:
    """
    It is reported in addition to the objects that doctor has declared.
    """
    use(broker)
    publish(settings, 0, 3)
    delete_archive(broker)

    told = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)

    assert "created now: workflow.events.dlx, workflow.events.archive.q; RabbitMQ at" in told.stdout
    assert "no replay yields the events that were delivered before" in told.stdout
