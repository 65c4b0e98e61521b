"""
Messages that the broker refuses: set aside with the reason if the message is the cause, pending if it is not.

Not here: brokers that cannot be reached (test_delivery.py).
"""

import re
import sqlite3
from collections.abc import Iterator

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusRefusedError
from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.journal import Books
from dkist_processing_core.journal.message import Message, Properties
from tests.bus.contract import SECONDS
from tests.facts import finished, progressed, started
from tests.services.broker import Broker
from tests.test_delivery import books_of, settings_of, unbind, warnings_in
from tests.waiting import wait_until

FAILURE = RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r", log_url="u")


def message(body: bytes, *, exchange: str = "workflow.events.x", key: str = "task.started.W.A") -> Message:
    """
    Return a message that is not an event.
    """
    return Message(exchange, key, body, Properties(message_id=f"m-{len(body)}", content_type="text/plain"))


def append(settings: DKISTProcessingCoreConfiguration, *messages: Message) -> None:
    """
    Append messages to the outbox, unchanged.
    """
    with open_bus(settings).open_journal() as journal:
        journal.append(messages)


def reasons_in(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Return the reasons of the messages that are set aside.
    """
    with open_bus(settings).open_journal() as journal:
        return [entry.reason for entry in journal.set_aside()]


@pytest.fixture
def limited(broker: Broker) -> Iterator[Broker]:
    """
    Yield a broker that refuses messages of more than 20,000 bytes by closing the channel.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    before = broker.node.limit_messages(20_000)
    yield broker
    broker.node.limit_messages(before)


def test_one_message_that_is_too_large_holds_up_no_other(limited: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    The channel closes for all messages in flight. The large one is identified, tried three times, and set aside.
    """
    settings = settings_of(limited)
    before = [message(b"x" * size) for size in range(1, 30)]
    append(settings, *before, message(b"x" * 30_000), *before)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), finished("A"))
        assert publisher.flush(SECONDS)
        wait_until(lambda: books_of(settings).pending == 0)

    assert books_of(settings) == Books(published=61, confirmed=60, pending=0, set_aside=1)
    assert reasons_in(settings)[0].endswith(
        "refuses a request: PRECONDITION_FAILED - message size 30000 is larger than configured max size 20000 (406)"
    )
    (told,) = warnings_in(caplog)
    assert told.startswith("message 30 of ")
    assert "is set aside: RabbitMQ at " in told


def test_what_has_no_form_in_amqp_is_set_aside(broker: Broker) -> None:
    """
    A routing key of more than 255 bytes cannot be sent. Other messages do not wait for it.
    """
    settings = settings_of(broker)
    append(settings, message(b"a", key="k" * 300), message(b"b"))

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        wait_until(lambda: books_of(settings).pending == 0)

    assert books_of(settings) == Books(published=3, confirmed=2, pending=0, set_aside=1)
    assert reasons_in(settings)[0].startswith("it cannot be sent: ")


def test_a_row_that_cannot_be_read_is_set_aside(broker: Broker) -> None:
    """
    An edited row cannot be read. The other messages are delivered.
    """
    settings = settings_of(broker)
    append(settings, message(b"a"), message(b"b"))
    with sqlite3.connect(open_bus(settings).journal_path) as connection:
        connection.execute("UPDATE message SET properties = 'no JSON' WHERE seq = 1")
    connection.close()

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=3, confirmed=2, pending=0, set_aside=1)
    assert reasons_in(settings)[0].startswith("it cannot be read in the journal: ")


@pytest.mark.parametrize("missing", ["the right", "the exchange"])
def test_what_one_exchange_lacks_holds_up_no_other(
    missing: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The failure message stays pending until an operator adds the permission or the exchange. Events are delivered.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    write = r"^workflow\.events\.x$" if missing == "the right" else ".*"
    mine = broker.as_user(configure="^$", write=write, read="^$")
    settings = settings_of(mine)
    if missing == "the exchange":
        with broker.connect() as connection:
            connection.channel().exchange_delete("master.direct.x")

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        publisher.publish_failure(FAILURE)
        publisher.publish(*[progressed("A", number) for number in range(50)])
        wait_until(lambda: books_of(settings).confirmed == 51)
        before = books_of(settings)
        if missing == "the right":
            broker.node.grant(mine.username, broker.vhost, configure="^$", write=".*", read="^$")
        else:
            AmqpBus(settings_of(broker)).open_link().close()
            with broker.connect() as connection:
                connection.channel().queue_bind("recipe.run.failure.q", "master.direct.x", "recipe.run.failure.m")
        wait_until(lambda: books_of(settings).confirmed == 52)

    assert before == Books(published=52, confirmed=51, pending=1, set_aside=0)
    assert books_of(settings) == Books(published=52, confirmed=52, pending=0, set_aside=0)
    (told,) = warnings_in(caplog)
    assert ("ACCESS_REFUSED" if missing == "the right" else "NOT_FOUND - no exchange 'master.direct.x'") in told


def test_an_exchange_that_is_deleted_under_a_publisher_is_made_again(broker: Broker) -> None:
    """
    A user with the configure permission declares it again with its bindings, and nothing is set aside.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        with broker.connect() as connection:
            connection.channel().exchange_delete("workflow.events.x")
        publisher.publish(*[progressed("A", number) for number in range(20)])
        wait_until(lambda: books_of(settings).pending == 0)

    assert books_of(settings) == Books(published=21, confirmed=21, pending=0, set_aside=0)


def test_rights_taken_away_in_flight_set_nothing_aside(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    All messages stay pending until the permissions are restored, and then arrive in their order.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    mine = broker.as_user(configure="^$", write=".*", read="^$")
    settings = settings_of(mine)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        broker.node.grant(mine.username, broker.vhost, configure="^$", write="^$", read="^$")
        # A channel caches permissions for a while.
        broker.close_connections()
        publisher.publish(*[progressed("A", number) for number in range(2000)])
        assert not publisher.flush(SECONDS)
        before = books_of(settings)
        broker.node.grant(mine.username, broker.vhost, configure="^$", write=".*", read="^$")
        wait_until(lambda: books_of(settings).pending == 0)

    assert (before.confirmed, before.set_aside) == (1, 0)
    assert books_of(settings) == Books(published=2001, confirmed=2001, pending=0, set_aside=0)
    # The loss of the connection is a part of the same outage.
    (told,) = warnings_in(caplog)
    assert re.search(
        "refuses a request: ACCESS_REFUSED - (write )?access to exchange 'workflow.events.x' in vhost", told
    )


def test_a_queue_that_refuses_publishers_has_its_events_set_aside(broker: Broker) -> None:
    """
    A nack is a refusal, here of a full queue with `reject-publish`. After `retry` without that queue, the events
    arrive.
    """
    settings = settings_of(broker)
    AmqpBus(settings).open_link().close()
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        channel.queue_bind("full", "workflow.events.x", "#")
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"), finished("A"))
            wait_until(lambda: books_of(settings).pending == 0)
            before = books_of(settings), reasons_in(settings)
            channel.queue_delete("full")
            with open_bus(settings).open_journal() as journal:
                assert journal.retry() == 1
            publisher.publish(started("B"))
            wait_until(lambda: books_of(settings).pending == 0)

    assert before == (
        Books(published=2, confirmed=1, pending=0, set_aside=1),
        ["the broker refused it (nack)"],
    )
    assert books_of(settings) == Books(published=3, confirmed=3, pending=0, set_aside=0)


def test_a_queue_that_another_connection_owns_is_a_refusal(broker: Broker) -> None:
    """
    The error contains the broker's reason (405). Another try cannot help.
    """
    with broker.connect() as connection, AmqpBus(settings_of(broker)).connect() as link:
        connection.channel().queue_declare("owned", exclusive=True)

        with pytest.raises(BusRefusedError, match=r"RESOURCE_LOCKED - cannot obtain exclusive access .* \(405\)"):
            link.exists("queue", "owned")


def test_many_refusals_of_a_kind_are_two_lines(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    The first line states the reason and the remedy, the last one the number.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    unbind(broker)
    # An account with the permission to list the queues, on each version.
    settings = settings_of(broker.as_user(configure="^$", write=r"^(workflow\.events|master\.direct)\.x$", read="q$"))

    with Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number) for number in range(100)])
        wait_until(lambda: books_of(settings).set_aside == 100)

    first, total = [text for text in warnings_in(caplog) if "set aside" in text]
    assert first.endswith("(312), no queue is bound for it; `dkist-core topology apply` creates the archive")
    assert total.startswith("100 messages are set aside in ")
    assert total.endswith(".db; `dkist-core outbox list --set-aside` lists the reasons")
