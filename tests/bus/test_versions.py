"""
Behaviour that differs between the versions of RabbitMQ, 3.10 to 4.3, and may lose no event.

Not here: their common behaviour (test_amqp.py), and the accounts that the documentation prints (test_topology.py).
"""

import logging
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pika
import pytest

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, DELIVERY_LIMIT_ARGUMENT, consumer_topology
from dkist_processing_core.cli.topology.differences import advice, differences
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.events import Event
from dkist_processing_core.journal import Books
from tests.bus.contract import SECONDS
from tests.facts import progressed, started
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.test_delivery import books_of, settings_of
from tests.test_poison import reasons_in
from tests.waiting import wait_until

WRITE_ONLY = {"configure": "^$", "write": r"^(workflow\.events\.x|master\.direct\.x)$", "read": "^$"}
# The default limit of RabbitMQ 4, and a few more.
RETURNS = 23


@pytest.fixture
def quorum(broker: Broker) -> DKISTProcessingCoreConfiguration:
    """
    The settings with the broker and quorum queues.
    """
    return settings_of(broker).model_copy(update={"isb_queue_type": "quorum"})


def publish(settings: DKISTProcessingCoreConfiguration, *events: Event) -> None:
    """
    Publish events, confirmed.
    """
    with Publisher.open(settings) as publisher:
        publisher.publish(*events)
        assert publisher.flush(SECONDS)


def read_one_each(settings: DKISTProcessingCoreConfiguration, events: list[Event]) -> Iterator[Event]:
    """
    Yield one event from each of several subscriptions, which acknowledge it and end.
    """
    for _ in events:
        with subscribe(name="ops", timeout=SECONDS, settings=settings) as subscription:
            event = next(subscription)
            event.ack()
        yield event


# Quorum queues


def test_short_subscriptions_of_a_quorum_queue_lose_nothing(quorum: DKISTProcessingCoreConfiguration) -> None:
    """
    Each of them acknowledges one event and ends, more often than a message may come back by default.
    """
    events: list[Event] = [progressed("A", number) for number in range(2 * RETURNS)]
    subscribe(name="ops", settings=quorum).close()
    publish(quorum, *events)

    assert list(read_one_each(quorum, events)) == events


def test_the_end_of_a_subscription_returns_what_was_handed_out_alone(
    broker: Broker, quorum: DKISTProcessingCoreConfiguration
) -> None:
    """
    A quorum queue counts the returns of a message: only the event in hand is returned.
    """
    subscribe(name="ops", settings=quorum).close()
    publish(quorum, *[progressed("A", number) for number in range(5)])
    for _ in range(3):
        with subscribe(name="ops", settings=quorum, timeout=SECONDS) as subscription:
            next(subscription)

    counts = []
    with broker.connect() as connection:
        channel = connection.channel()
        while (got := channel.basic_get("ops", auto_ack=True))[0] is not None:
            counts.append((got[1].headers or {}).get("x-delivery-count", 0))

    assert counts[1:] == [0, 0, 0, 0]
    # RabbitMQ 4.3 does not count the messages that a closed connection returns.
    assert counts[0] in (0, 3)


def test_the_event_in_hand_comes_again_however_often(quorum: DKISTProcessingCoreConfiguration) -> None:
    """
    This holds for more deliveries than RabbitMQ 4 allows by default.
    """
    subscribe(name="ops", settings=quorum).close()
    publish(quorum, started("A"))

    for _ in range(RETURNS):
        with subscribe(name="ops", settings=quorum, timeout=SECONDS) as subscription:
            assert next(subscription) == started("A")


def test_a_plan_names_the_policy_for_a_quorum_queue_without_a_limit(
    broker: Broker, quorum: DKISTProcessingCoreConfiguration
) -> None:
    """
    The command as printed makes the queue keep returned messages.
    """
    queue, _ = consumer_topology(quorum, "ops", ["#"]).queues
    arguments = {name: value for name, value in queue.arguments.items() if name != DELIVERY_LIMIT_ARGUMENT}
    with broker.connect() as connection:
        connection.channel().queue_declare("ops", durable=True, arguments=arguments)
    with AmqpBus(quorum).open_link() as link:
        found, _ = differences(link, queue) or ([], "")
        told = advice(queue, found, broker.vhost)

    command = told.partition("`rabbitmqctl ")[2].removesuffix("`")
    broker.node.ctl(*shlex.split(command))

    assert [str(each) for each in found] == ["x-delivery-limit is not set, expected 2147483647"]
    subscribe(name="ops", settings=quorum).close()
    publish(quorum, started("A"))
    with broker.connect() as connection:
        for _ in range(RETURNS):
            channel = connection.channel()
            wait_until(lambda channel=channel: channel.basic_get("ops")[0] is not None)  # type: ignore[misc]
            channel.close()


# Permissions


def test_a_write_only_publisher_waits_for_a_node_that_starts(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    With or without the permission to check for missing objects, no event is set aside for a queue that is available
    soon.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    settings = settings_of(broker.as_user(**WRITE_ONLY))
    with Publisher.open(settings) as publisher:
        with broker.absent(ARCHIVE_QUEUE):
            publisher.publish(started("A"))
            wait_until(lambda: "NO_ROUTE" in caplog.text)
            before = books_of(settings)
        wait_until(lambda: not publisher.is_pending)

    assert before == Books(published=1, confirmed=0, pending=1, set_aside=0)
    assert books_of(settings) == Books(published=1, confirmed=1, pending=0, set_aside=0)


def test_a_refused_routing_key_holds_up_no_other(broker: Broker) -> None:
    """
    A topic permission refuses the events of one workflow: they are set aside with the reason, the rest is delivered.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    mine = broker.as_user(**WRITE_ONLY)
    broker.node.grant_topic(mine.username, broker.vhost, "workflow.events.x", write=r"^[a-z]+\.[a-z]+\.W(\.|$)")
    settings = settings_of(mine)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), started("A", workflow_name="Other"))
        publisher.publish(*[progressed("A", number) for number in range(50)])
        wait_until(lambda: books_of(settings).confirmed == 51)
        wait_until(lambda: not publisher.is_pending)

    assert books_of(settings) == Books(published=52, confirmed=51, pending=0, set_aside=1)
    (reason,) = reasons_in(settings)
    assert "access to topic 'task.started.Other.A' in exchange 'workflow.events.x'" in reason


def test_a_refusal_that_the_broker_cuts_in_the_name_of_a_virtual_host_is_a_refusal(broker: Broker) -> None:
    """
    RabbitMQ 4 shortens its text, and closes the connection if the cut is inside a character: for one of the two names.
    """
    vhost = "ä" * 120
    broker.node.add_vhost(vhost)
    try:
        settings = settings_of(replace(broker, vhost=vhost))
        with AmqpBus(settings).connect() as link:
            assert [link.exists("queue", "q" * length) for length in (100, 101)] == [False, False]
    finally:
        broker.node.delete_vhost(vhost)


# Connections


@contextmanager
def lost_during_a_question(proxy: Proxy) -> Iterator[None]:
    """
    Have a connection break while a request waits for the broker's answer.
    """
    proxy.swallow_answers()
    cut = threading.Timer(0.2, proxy.cut)
    cut.start()
    yield
    cut.join()


@pytest.mark.parametrize("question", ["exists", "compare"])
def test_a_connection_that_is_lost_during_a_look_is_reported_as_lost(
    proxied: tuple[Broker, Proxy], question: str
) -> None:
    """
    The error is not the wrong state of the channel, which is a consequence.
    """
    behind, proxy = proxied
    settings = settings_of(behind)
    queue, _ = consumer_topology(settings, "ops", ["#"]).queues
    with (
        AmqpBus(settings).open_link() as link,
        lost_during_a_question(proxy),
        pytest.raises(BusUnreachableError, match="was lost: the broker was stopped, or the network broke"),
    ):
        link.exists("queue", "ops") if question == "exists" else link.compare(queue)


def test_a_queue_that_is_deleted_under_a_subscription_is_made_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The broker ends the delivery without a reason, and the message states none. The next one says that it goes on.
    """
    caplog.set_level(logging.INFO, logger="dkist_processing_core")
    settings = settings_of(broker)
    with subscribe(name="ops", settings=settings, timeout=SECONDS) as subscription:
        with broker.connect() as connection:
            connection.channel().queue_delete("ops")
        wait_until(lambda: "basic.cancel" in caplog.text)
        publish_when_bound(broker)

        assert next(subscription) == started("A")
    assert (
        "the broker ended the delivery from ops (basic.cancel, which names no reason); connecting again" in caplog.text
    )
    assert caplog.text.count("connected again to RabbitMQ at ") == 1


def publish_when_bound(broker: Broker) -> None:
    """
    Publish an event when the queue of a subscription is bound again.
    """

    def is_there() -> bool:
        with broker.connect() as connection:
            try:
                connection.channel().queue_declare("ops", passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
        return True

    wait_until(is_there)
    publish(settings_of(broker), started("A"))
