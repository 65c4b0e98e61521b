"""
Faults of the network and of permissions between a publisher and a broker that works.

Not here: faults of the broker and of the disk (test_delivery.py), and of certificates (test_tls.py).
"""

import ast
import json
import re
import time
from collections import Counter
from dataclasses import replace

import pytest
from pika.exceptions import ProbableAccessDeniedError, ProbableAuthenticationError

from dkist_processing_core.bus.amqp import connection_parameters
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.amqp.errors import explain
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery import delivery
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.events import Event
from dkist_processing_core.journal import Books
from tests.bus.contract import SECONDS
from tests.facts import finished, progressed, started
from tests.running import ROOT
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.services.sockets import BlackHole
from tests.test_delivery import books_of, settings_of, unreachable, warnings_in
from tests.waiting import wait_until

WITNESS = "witness"
COUNT = 2000
EXCHANGE = "workflow.events.x"
# The client's exclusive queues and exchanges, and only the permission to write to the topology's.
MAY_WRITE = r"^(workflow\.events\.x|master\.direct\.x)$"
NONE = "^$"


def witness(broker: Broker) -> None:
    """
    Declare the topology of publishers, and a durable queue of the test that receives every later event.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare(WITNESS, durable=True)
        channel.queue_bind(WITNESS, EXCHANGE, "#")


def witnessed(broker: Broker) -> Counter[str]:
    """
    Return how often each id has arrived, by a client that does not use the code under test.
    """
    with broker.connect() as connection:
        channel = connection.channel()
        count = channel.queue_declare(WITNESS, passive=True).method.message_count
        found: Counter[str] = Counter()
        for _, properties, _ in channel.consume(WITNESS, auto_ack=True, inactivity_timeout=SECONDS):
            found[properties.message_id] += 1
            if found.total() == count:
                return found
    return found


def events_of(count: int) -> list[Event]:
    """
    Return `count` different events.
    """
    return [progressed("A", number) for number in range(count)]


def ids_of(events: list[Event]) -> set[str]:
    """
    Return the ids of events.
    """
    return {event.id for event in events}


def delivered(count: int) -> Books:
    """
    Return the books of an outbox whose messages are all delivered.
    """
    return Books(published=count, confirmed=count, pending=0, set_aside=0)


def kept(count: int) -> Books:
    """
    Return the books of an outbox whose messages are all pending.
    """
    return Books(published=count, confirmed=0, pending=count, set_aside=0)


def test_what_is_published_while_connections_are_cut_arrives(proxied: tuple[Broker, Proxy]) -> None:
    """
    With five cuts during two thousand events, every id arrives, no other id does, and the books are exact.
    """
    behind, proxy = proxied
    witness(behind)
    settings = settings_of(behind)
    events = events_of(COUNT)

    with Publisher.open(settings) as publisher:
        for part in range(5):
            before = proxy.bytes_sent
            for start in range(part * COUNT // 5, (part + 1) * COUNT // 5, 10):
                publisher.publish(*events[start : start + 10])
                if proxy.bytes_sent > before + 20_000:
                    proxy.cut()
                    before = 1 << 60
            proxy.cut()
        wait_until(lambda: books_of(settings).pending == 0, 2 * SECONDS)

    assert books_of(settings) == delivered(COUNT)
    assert set(witnessed(behind)) == ids_of(events)


def test_a_confirm_that_never_comes_keeps_the_event(
    proxied: tuple[Broker, Proxy], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The broker has the event and its confirm is lost: the wait ends in time with one warning, and the event is sent
    again.
    """
    behind, proxy = proxied
    witness(behind)
    settings = settings_of(behind)
    monkeypatch.setattr(delivery, "_STALLED_SECONDS", 0.5)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        proxy.swallow_answers()
        publisher.publish(finished("A"))
        began = time.monotonic()
        assert not publisher.flush(1.0)
        assert time.monotonic() - began < 10.0
        assert books_of(settings) == Books(published=2, confirmed=1, pending=1, set_aside=0)
        wait_until(lambda: len(warnings_in(caplog)) > 0)
        proxy.thaw()
        wait_until(lambda: books_of(settings).pending == 0)

    found = witnessed(behind)
    assert books_of(settings) == delivered(2)
    assert set(found) == ids_of([started("A"), finished("A")])
    assert found[finished("A").id] > 1
    assert "confirms nothing. Events are kept in " in warnings_in(caplog)[0]


def test_a_silent_network_is_given_up_and_tried_again(
    proxied: tuple[Broker, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An idle connection without heartbeats is closed, and events that are published before the thaw arrive after it.
    """
    behind, proxy = proxied
    settings = settings_of(behind)
    monkeypatch.setattr(connection_parameters, "HEARTBEAT_SECONDS", 1)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        assert proxy.accepted == 1
        link = publisher._drainer._link  # type: ignore[union-attr]
        assert link is not None
        proxy.freeze()
        wait_until(lambda: link._failure is not None)
        publisher.publish(finished("A"))
        proxy.thaw()
        wait_until(lambda: books_of(settings).pending == 0)

    assert books_of(settings) == delivered(2)
    assert proxy.accepted > 1


def test_one_outage_is_one_warning(proxied: tuple[Broker, Proxy], caplog: pytest.LogCaptureFixture) -> None:
    """
    A connection that is cut and made again needs none. If the broker is gone, the warning has the reason of the next
    try.
    """
    behind, proxy = proxied
    settings = settings_of(behind)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        proxy.cut()
        publisher.publish(progressed("A", 1))
        wait_until(lambda: books_of(settings).pending == 0)
        after_a_cut = warnings_in(caplog)
        proxy.refuse()
        proxy.cut()
        publisher.publish(finished("A"))
        assert not publisher.flush(1.0)
        wait_until(lambda: warnings_in(caplog) != [])

    (told,) = warnings_in(caplog)
    assert after_a_cut == []
    assert f":{proxy.port} refuses the connection: nothing listens there" in told


def test_a_connection_that_was_refused_is_tried_again(
    proxied: tuple[Broker, Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    """
    When the port accepts connections again, a running publisher delivers the events that it has kept.
    """
    behind, proxy = proxied
    settings = settings_of(behind)
    proxy.refuse()

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)
        assert books_of(settings) == kept(1)
        proxy.accept()
        wait_until(lambda: books_of(settings) == delivered(1))

    (told,) = warnings_in(caplog)
    assert f":{proxy.port} refuses the connection: nothing listens there" in told


def test_a_name_that_does_not_resolve_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """
    The warning names MESH_CONFIG, and the event is kept.
    """
    mesh = {"interservice-bus": {"mesh_address": "no-such-host.invalid", "mesh_port": 5672}}
    settings = DKISTProcessingCoreConfiguration(mesh_config=json.dumps(mesh))

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)

    (told,) = warnings_in(caplog)
    assert books_of(settings) == kept(1)
    assert told.startswith(
        "RabbitMQ at no-such-host.invalid:5672 has a name that does not resolve; check mesh_address in MESH_CONFIG. "
        "Events are kept in "
    )


@pytest.mark.parametrize("server_name", [None, "broker.example"], ids=["plain", "TLS"])
def test_a_connection_that_nobody_answers_is_one_line(
    black_hole: BlackHole, caplog: pytest.LogCaptureFixture, server_name: str | None
) -> None:
    """
    The wait ends in time, for AMQP and for TLS.
    """
    settings = unreachable(black_hole.port).model_copy(update={"isb_tls_server_name": server_name})

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        began = time.monotonic()
        assert not publisher.flush(SECONDS)
        assert time.monotonic() - began < 10.0

    (told,) = warnings_in(caplog)
    assert books_of(settings) == kept(1)
    assert "does not answer" in told


def test_a_wrong_password_is_one_line(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    The warning names the variables and shows no password, and the event is kept.
    """
    settings = settings_of(replace(broker, password="canary-password"))

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)

    (told,) = warnings_in(caplog)
    assert books_of(settings) == kept(1)
    assert f":{broker.port} refuses the credentials (ISB_USERNAME, ISB_PASSWORD). Events are kept in " in told
    assert "canary" not in caplog.text


def test_a_virtual_host_that_is_made_later_is_used(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    Without the virtual host, one warning names ISB_VHOST. A running publisher delivers once it exists.
    """
    missing = f"{broker.vhost}-later"
    settings = settings_of(replace(broker, vhost=missing))

    try:
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"))
            assert not publisher.flush(SECONDS)
            assert books_of(settings) == kept(1)
            broker.node.add_vhost(missing)
            wait_until(lambda: books_of(settings) == delivered(1))
    finally:
        broker.node.delete_vhost(missing)

    (told,) = warnings_in(caplog)
    assert f"refuses virtual host '{missing}' (ISB_VHOST): it does not exist, or '{broker.username}' has no" in told


def test_a_right_that_is_granted_later_is_used(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    Without the write permission no event is lost and a warning names the exchange. A running publisher delivers with
    it.
    """
    witness(broker)
    user = broker.as_user(configure=NONE, write=NONE, read=NONE)
    settings = settings_of(user)
    events = events_of(50)

    with Publisher.open(settings) as publisher:
        publisher.publish(*events)
        wait_until(lambda: any("Events are kept in " in told for told in warnings_in(caplog)))
        assert books_of(settings) == kept(50)
        broker.node.grant(user.username, broker.vhost, configure=NONE, write=MAY_WRITE, read=NONE)
        wait_until(lambda: books_of(settings) == delivered(50))

    told = [text for text in warnings_in(caplog) if f"'{EXCHANGE}'" in text]
    assert set(witnessed(broker)) == ids_of(events)
    assert len(told) == 1
    assert "ACCESS_REFUSED" in told[0]


def test_a_right_that_is_taken_in_flight_and_given_back_loses_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    An operator revokes the write permission between two batches: the second waits, one warning states the reason, and
    after the permission is restored, the batch arrives.
    """
    witness(broker)
    user = broker.as_user(configure=NONE, write=MAY_WRITE, read=NONE)
    settings = settings_of(user)
    events = events_of(100)

    with Publisher.open(settings) as publisher:
        publisher.publish(*events[:50])
        assert publisher.flush(SECONDS)
        broker.node.grant(user.username, broker.vhost, configure=NONE, write=NONE, read=NONE)
        # A channel caches permissions for its lifetime.
        broker.close_connections()
        publisher.publish(*events[50:])
        wait_until(lambda: any(f"'{EXCHANGE}'" in told for told in warnings_in(caplog)))
        assert books_of(settings) == Books(published=100, confirmed=50, pending=50, set_aside=0)
        broker.node.grant(user.username, broker.vhost, configure=NONE, write=MAY_WRITE, read=NONE)
        wait_until(lambda: books_of(settings) == delivered(100))

    told = [text for text in warnings_in(caplog) if f"'{EXCHANGE}'" in text]
    assert set(witnessed(broker)) == ids_of(events)
    assert len(told) == 1
    assert "ACCESS_REFUSED" in told[0]


def test_a_broker_that_is_killed_under_load_gets_everything(broker: Broker) -> None:
    """
    With two thousand events, a kill during them and a start after them, every id arrives and the books are exact.
    """
    witness(broker)
    settings = settings_of(broker)
    events = events_of(COUNT)

    with Publisher.open(settings) as publisher:
        for start in range(0, COUNT, 10):
            publisher.publish(*events[start : start + 10])
            if start == COUNT // 2:
                wait_until(lambda: books_of(settings).confirmed > 0)
                broker.node.kill()
        assert books_of(settings).pending >= COUNT // 2 - 10
        broker.node.start()
        wait_until(lambda: books_of(settings).pending == 0, 2 * SECONDS)

    assert books_of(settings) == delivered(COUNT)
    assert set(witnessed(broker)) == ids_of(events)


@pytest.mark.parametrize("guess", [ProbableAuthenticationError, ProbableAccessDeniedError])
def test_a_login_that_the_network_broke_is_no_refusal(guess: type[Exception]) -> None:
    """
    The client library reports any end of the connection at that stage as a wrong password or virtual host.
    """
    settings = DKISTProcessingCoreConfiguration()

    explained = explain(guess("StreamLostError: ('Stream connection lost: ConnectionResetError()',)"), settings)

    assert type(explained) is BusUnreachableError
    assert str(explained) == "RabbitMQ at localhost:5672 broke the connection at the login"


def test_every_line_that_the_page_explains_is_one_that_is_said() -> None:
    """
    The table of the page on outages quotes texts that the packages log.
    """
    page = (ROOT / "docs" / "how-to" / "outages.md").read_text()
    table = page.partition("| text in the log line |")[2].partition("\n\n")[0]
    quoted = re.findall(r"^\| `(.+?)` \|", table, flags=re.MULTILINE)
    constants = {
        node.value
        for package in ("bus", "consumer", "delivery", "journal", "otlp", "tracing")
        for path in (ROOT / "dkist_processing_core" / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    unsaid = [text for text in quoted if not any(text in constant for constant in constants)]

    assert (len(quoted), unsaid) == (24, [])
