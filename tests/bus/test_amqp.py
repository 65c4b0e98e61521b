"""
RabbitMQ: the contract of a bus, and the behaviour that only a broker has.
"""

import json
import logging
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pika.adapters.blocking_connection
import pika.exceptions
import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.archive import ARCHIVE_PREFETCH
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Subscription, subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError
from dkist_processing_core.events import Event, RecipeRunFailureMessage, decode
from dkist_processing_core.journal import Books
from dkist_processing_core.journal.message import Message, Properties, to_message
from tests.bus.contract import SECONDS, SharedBusContract
from tests.facts import NOON, finished, progressed, started
from tests.hostile import next_with_little_memory, too_large
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.services.sockets import BlackHole
from tests.waiting import wait_until


@pytest.fixture
def settings(broker: Broker, state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    The settings that name a broker for this test.
    """
    return DKISTProcessingCoreConfiguration(
        dkist_core_state_dir=state_dir,
        mesh_config=broker.env["MESH_CONFIG"],
        isb_username=broker.username,
        isb_password=broker.password,
        isb_vhost=broker.vhost,
    )


class TestAmqpBus(SharedBusContract):
    """
    The contract, on a real broker.
    """

    def test_a_dead_letter_waits_with_its_reason(
        self,
        broker: Broker,
        settings: DKISTProcessingCoreConfiguration,
        publisher: Publisher,
        listen: Callable[..., Subscription],
    ) -> None:
        """
        A message that a named subscription cannot read is published to its queue of dead letters, with reason and
        origin.
        """
        subscription = listen(name="strict")
        with broker.connect() as connection:
            channel = connection.channel()
            channel.basic_publish(settings.isb_event_exchange, "task.finished.W.A", b"nonsense")
        publisher.publish(finished("A"))

        assert finished("A") == next(subscription)

        with broker.connect() as connection:
            _, properties, body = connection.channel().basic_get("strict.dlq", auto_ack=True)
        assert body == b"nonsense"
        assert properties.headers["x-dead-reason"].startswith("the body is not JSON (JSONDecodeError")
        assert properties.headers["x-dead-routing-key"] == "task.finished.W.A"
        assert properties.delivery_mode == 2

    def test_a_message_too_large_to_read_does_not_stop_a_named_subscription(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, broker: Broker
    ) -> None:
        """
        With 900 MB of memory, its beginning and the reason go to the dead letters; the messages behind it are
        delivered.
        """
        subscribe(settings=settings, name="narrow").close()
        message = too_large(settings.isb_event_exchange)
        with open_bus(settings).open_journal() as journal:
            journal.append([message])
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

        assert finished("A") == next_with_little_memory(settings, "narrow")

        with broker.connect() as connection:
            _, properties, body = connection.channel().basic_get("narrow.dlq", auto_ack=True)
        assert body == message.body[: 16 * 1024]
        assert properties.headers["x-dead-size"] == len(message.body)
        assert "too large" in properties.headers["x-dead-reason"]

    def test_a_subscription_survives_its_connection(
        self, broker: Broker, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        When the broker closes every connection, publisher and consumer come back, and nothing is lost.
        """
        subscription = listen(name="lasting")
        publisher.publish(started("A"))
        assert started("A") == next(subscription)

        broker.node.eval('[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()].')
        publisher.publish(finished("A"))

        # The start, which was not acknowledged before, is delivered again and recognised.
        assert finished("A") == next(subscription)

    @pytest.mark.parametrize("replay", [False, True], ids=["live", "replay"])
    @pytest.mark.parametrize("seen", [0, 2])
    def test_what_is_published_during_an_interruption_arrives(
        self, broker: Broker, settings: DKISTProcessingCoreConfiguration, *, seen: int, replay: bool
    ) -> None:
        """
        A subscription without a name goes on behind the last event that it has received, or where it began.
        """
        AmqpBus(settings).open_link().close()
        reader = broker.as_user(read=".*")
        narrow = _changed(settings, isb_username=reader.username, isb_password=reader.password)
        events = [progressed("A", number) for number in range(seen + 3)]
        with broker.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            with subscribe("task.progressed", settings=narrow, timeout=SECONDS, replay=replay) as subscription:
                for event in events[:seen]:
                    _publish(channel, event)
                assert events[:seen] == [next(subscription) for _ in range(seen)]

                with _no_new_connections(broker):
                    _close_connections_of(broker, reader.username)
                    for event in events[seen:-1]:
                        _publish(channel, event)
                _publish(channel, events[-1])

                assert events[seen:] == [next(subscription) for _ in events[seen:]]

    def test_a_queue_that_has_yet_to_start_is_waited_for(
        self,
        broker: Broker,
        settings: DKISTProcessingCoreConfiguration,
        listen: Callable[..., Subscription],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        This occurs just after the broker's start: the subscription then goes on, and published messages are not set
        aside.
        """
        subscription = listen()
        with Publisher.open(settings) as publisher:
            with broker.absent(ARCHIVE_QUEUE):
                broker.close_connections()
                publisher.publish(finished("A"))
                wait_until(lambda: "NO_ROUTE" in caplog.text)

            assert finished("A") == next(subscription)
            wait_until(lambda: not publisher.is_pending)
        with AmqpBus(settings).open_journal() as journal:
            assert journal.books() == Books(published=1, confirmed=1, pending=0, set_aside=0)

    def test_an_event_that_is_worked_on_for_long_ends_nothing(
        self, broker: Broker, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        The broker ends the connection of a late acknowledgement (`consumer_timeout`), or the delivery; the event is
        recognised afterwards.
        """
        quorum = _changed(settings, isb_queue_type="quorum")
        with _set_on_broker(broker, consumer_timeout=300, channel_tick_interval=200):
            subscription = subscribe(name="slow", settings=quorum, timeout=SECONDS)
            publisher.publish(started("A"), finished("A"))
            assert started("A") == next(subscription)
            link = subscription._receiver._thread._link  # type: ignore[attr-defined]
            deadline = time.monotonic() + SECONDS
            while link._failure is None and time.monotonic() < deadline:
                os.sched_yield()

        # From RabbitMQ 4.3 on, a quorum queue ends the delivery without a reason.
        assert re.search(
            "timed out|ended the delivery from slow .basic.cancel, which names no reason", str(link._failure)
        )
        assert finished("A") == next(subscription)
        subscription.close()

    def test_a_replay_outlasts_a_broker_that_falls_silent(
        self, broker: Broker, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        If a broker falls silent before the end of the archive, the replay goes on, whatever its timeout.
        """
        events = [progressed("A", number) for number in range(3 * ARCHIVE_PREFETCH)]
        publisher.publish(*events)
        assert publisher.flush(SECONDS)
        with (
            Proxy(broker.port) as proxy,
            subscribe(replay=True, timeout=0.0, settings=_behind(proxy, settings)) as past,
        ):
            first = next(past)
            proxy.freeze()
            thaw = threading.Timer(1.0, proxy.thaw)
            thaw.start()

            assert [first, *past] == events
            thaw.join()

    def test_a_replay_waits_for_who_works_on_an_event(
        self, publisher: Publisher, listen: Callable[..., Subscription], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        In that time no request goes to the broker, so its silence does not count.
        """
        monkeypatch.setattr("dkist_processing_core.bus.amqp.archive._SILENCE_SECONDS", 0.5)
        events = [progressed("A", number) for number in range(5 * ARCHIVE_PREFETCH)]
        publisher.publish(*events)
        assert publisher.flush(SECONDS)
        past = listen(replay=True, timeout=0.0)

        read = []
        for event in past:
            read.append(event)
            if len(read) in (1, 2 * ARCHIVE_PREFETCH):
                threading.Event().wait(1.0)

        assert read == events

    def test_the_end_of_a_stream_is_found_while_it_grows(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """
        Events that arrive while its end is determined cause no error, and the end never lies before confirmed events.
        """
        message = to_message(progressed("A", 1), settings.isb_event_exchange)
        with AmqpBus(settings).open_link() as link, AmqpBus(settings).open_link() as sender:
            for number in range(20):
                for key in range(200):
                    sender.send(key, message)
                sender.settle(SECONDS)
                while_it_grows = link.last_of_stream(ARCHIVE_QUEUE, SECONDS)
                while sender.unsettled:
                    sender.settle(SECONDS)

                last = link.last_of_stream(ARCHIVE_QUEUE, SECONDS)

                assert while_it_grows is not None
                assert last is not None
                assert last.offset == (number + 1) * 200 - 1

    def test_a_replay_that_gives_up_says_so(
        self,
        broker: Broker,
        settings: DKISTProcessingCoreConfiguration,
        publisher: Publisher,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        If a broker stays silent before the end of the archive, a warning states that the rest is missing.
        """
        monkeypatch.setattr("dkist_processing_core.bus.amqp.archive._SILENCE_SECONDS", 0.5)
        publisher.publish(*[progressed("A", number) for number in range(3 * ARCHIVE_PREFETCH)])
        assert publisher.flush(SECONDS)
        with (
            Proxy(broker.port) as proxy,
            subscribe(replay=True, timeout=0.0, settings=_behind(proxy, settings)) as past,
        ):
            next(past)
            proxy.freeze()

            assert len(list(past)) < 3 * ARCHIVE_PREFETCH - 1
            proxy.thaw()
        assert "the rest of the replay is not read" in caplog.text

    @pytest.mark.parametrize("name", [None, "strict"], ids=["unnamed", "named"])
    def test_no_foreign_message_ends_a_subscription(
        self, broker: Broker, publisher: Publisher, listen: Callable[..., Subscription], name: str | None
    ) -> None:
        """
        Neither short strings with invalid UTF-8 nor properties that the client library cannot read end it.
        """
        subscription = listen(name=name)
        with broker.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for properties in (
                pika.BasicProperties(content_type=b"\xff" * 255, message_id=b"\xff\xfe", type=b"\xff"),
                pika.BasicProperties(headers={b"\xff": 1, "bytes": b"\xff"}, correlation_id=b"\xff"),
                _InMilliseconds(headers={"sent": NOON}),
            ):
                channel.basic_publish("workflow.events.x", "task.finished.W.A", b"{}", properties)
                channel.basic_publish("workflow.events.x", b"task.finished.W.\xff", b"{}", properties)
        publisher.publish(finished("A"))

        assert finished("A") == next(subscription)
        if name is not None:
            with broker.connect() as connection:
                counted = connection.channel().queue_declare("strict.dlq", passive=True).method.message_count
            assert counted == 6

    def test_an_error_that_nobody_expected_reaches_the_consumer(
        self, broker: Broker, settings: DKISTProcessingCoreConfiguration, state_dir: Path
    ) -> None:
        """
        A setting that has become wrong ends the subscription with an error, at each request for an event.
        """
        bus = AmqpBus(settings.model_copy())
        with bus.subscribe(["#"]) as receiver:
            bus.settings.__dict__["isb_tls_ca"] = state_dir / "missing.pem"
            broker.close_connections()

            for _ in range(2):
                with pytest.raises(BusError, match="the subscription ended: ConfigurationError: ISB_TLS_CA"):
                    receiver.receive(SECONDS)

    def test_the_end_of_a_script_acknowledges_what_was_asked_for_before(
        self, broker: Broker, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        A subscription that was not closed is closed at exit: only the event in hand is delivered again.
        """
        listen(name="scripts").close()
        events = [progressed("A", number) for number in range(5)]
        publisher.publish(*events)
        script = (
            "from dkist_processing_core import subscribe\n"
            "subscription = subscribe(name='scripts', timeout=300)\n"
            "for _ in range(4): next(subscription)\n"
        )

        subprocess.run([sys.executable, "-c", script], env={**os.environ, **broker.env}, check=True, timeout=300)

        subscription = listen(name="scripts")
        assert events[3:] == [next(subscription), next(subscription)]


class _InMilliseconds(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """
    Properties whose timestamp counts milliseconds where AMQP counts seconds: the year is 58862.
    """

    def encode(self) -> list[bytes]:
        """Return the parts of the frame."""
        right = struct.pack(">cQ", b"T", int(NOON.timestamp()))
        wrong = struct.pack(">cQ", b"T", int(NOON.timestamp()) * 1000)
        return [piece.replace(right, wrong) for piece in super().encode()]


def _publish(channel: pika.adapters.blocking_connection.BlockingChannel, event: Event) -> None:
    message = to_message(event, "workflow.events.x")
    channel.basic_publish(message.exchange, message.routing_key, message.body)


@contextmanager
def _no_new_connections(broker: Broker) -> Iterator[None]:
    broker.node.eval("rabbit_maintenance:suspend_all_client_listeners().")
    try:
        yield
    finally:
        broker.node.eval("rabbit_maintenance:resume_all_client_listeners().")


def _close_connections_of(broker: Broker, username: str) -> None:
    broker.node.eval(
        '[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections(), '
        f'rabbit_reader:info(P, [user]) =:= [{{user, <<"{username}">>}}]].'
    )


@contextmanager
def _set_on_broker(broker: Broker, **values: int) -> Iterator[None]:
    before = {key: broker.node.eval(f"application:get_env(rabbit, {key}).") for key in values}
    for key, value in values.items():
        broker.node.eval(f"application:set_env(rabbit, {key}, {value}).")
    try:
        yield
    finally:
        for key, found in before.items():
            broker.node.eval(f"{{ok, Before}} = {found}, application:set_env(rabbit, {key}, Before).")


def test_messages_are_persistent_mandatory_and_described(
    broker: Broker, settings: DKISTProcessingCoreConfiguration
) -> None:
    """
    A plain consumer finds the properties that the contract names.
    """
    event = started("A", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with Publisher.open(settings) as publisher:
        AmqpBus(settings).open_link().close()
        with broker.connect() as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, "workflow.events.x", "task.started.W.A")
            publisher.publish(event)
            assert publisher.flush(SECONDS)
            _, properties, body = channel.basic_get(queue, auto_ack=True)

    assert decode(body) == event
    assert properties.message_id == event.id
    assert properties.type == "edu.nso.dkist.task.started"
    assert properties.content_type == "application/cloudevents+json; charset=utf-8"
    assert properties.timestamp == int(event.time.timestamp())
    assert properties.app_id == "dkist-processing-core"
    assert properties.correlation_id == "r"
    assert properties.delivery_mode == 2
    assert properties.headers == {"traceparent": event.traceparent}


def test_the_failure_message_waits_in_the_established_queue(
    broker: Broker, settings: DKISTProcessingCoreConfiguration
) -> None:
    """
    Its exchange, routing key, queue and body are those of release 7.x, which operators consume.
    """
    message = RecipeRunFailureMessage(
        workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r", log_url="http://u:secret@log/1"
    )
    with Publisher.open(settings) as publisher:
        publisher.publish_failure(message)
        assert publisher.flush(SECONDS)

    with broker.connect() as connection:
        _, properties, body = connection.channel().basic_get("recipe.run.failure.q", auto_ack=True)
    assert properties.message_id == message.id
    assert json.loads(body) == {
        "workflowName": "W",
        "workflowVersion": "1",
        "taskName": "A",
        "dagRunId": "r",
        "logUrl": "http://[redacted]@log/1",
        "conversationId": message.id,
    }


def test_the_outbox_is_empty_when_everything_is_confirmed(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    All published messages are counted as confirmed, none as pending or set aside.
    """
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), finished("A"))
        assert publisher.flush(SECONDS)
        with publisher.bus.open_journal() as journal:
            books = journal.books()

    assert (books.published, books.confirmed, books.pending, books.set_aside) == (2, 2, 0, 0)


def test_left_overs_of_another_process_are_delivered(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The next publisher delivers the messages that an earlier one left in the outbox.
    """
    bus = open_bus(settings)
    with bus.open_journal() as journal:
        journal.append([to_message(started("A"), bus.event_exchange)])

    subscription_bus = bus.subscribe(["#"])
    with Publisher.open(settings) as publisher:
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)
        first = subscription_bus.receive(SECONDS)
        second = subscription_bus.receive(SECONDS)
    subscription_bus.close()

    assert first is not None
    assert second is not None
    assert [started("A").id, finished("A").id] == [
        first.message.properties.message_id,
        second.message.properties.message_id,
    ]


def test_the_topology_is_made_once_and_then_only_looked_at(
    broker: Broker, settings: DKISTProcessingCoreConfiguration
) -> None:
    """
    A publisher without the configure permission works if the topology exists.
    """
    AmqpBus(settings).open_link().close()
    broker.node.add_user("writer", "writer-password", configure="^$", write=".*", read="^$", vhost=broker.vhost)
    narrow = settings.model_copy(update={"isb_username": "writer", "isb_password": "writer-password"})

    with Publisher.open(narrow) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
    broker.node.delete_user("writer")


def test_an_unroutable_message_is_set_aside_and_does_not_hold_up_the_rest(
    settings: DKISTProcessingCoreConfiguration,
) -> None:
    """
    A message that the broker returns is set aside with the reason after a few tries; later messages are delivered.
    """
    lost = Message(settings.isb_exchange, "nobody.listens", b"{}", Properties("m", "application/json"))
    with Publisher.open(settings) as publisher:
        publisher._shelf.append([lost])
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        with publisher.bus.open_journal() as journal:
            books = journal.books()
            reason = journal._connection.execute("SELECT set_aside FROM message").fetchone()[0]

    assert (books.published, books.confirmed, books.pending, books.set_aside) == (2, 1, 0, 1)
    assert reason.startswith("the broker returned it: NO_ROUTE (312), no queue is bound for it; ")


def _behind(proxy: Proxy, settings: DKISTProcessingCoreConfiguration) -> DKISTProcessingCoreConfiguration:
    service = settings.isb_mesh_service
    values = settings.model_dump() | {
        "mesh_config": {"interservice-bus": {"mesh_address": service.host, "mesh_port": proxy.port}}
    }
    return DKISTProcessingCoreConfiguration(**values)


def _changed(settings: DKISTProcessingCoreConfiguration, **changes: object) -> DKISTProcessingCoreConfiguration:
    return settings.model_copy(update=changes)


def test_wrong_credentials_are_explained(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The error names the variables and not the password.
    """
    with pytest.raises(BusRefusedError, match=r"refuses the credentials \(ISB_USERNAME, ISB_PASSWORD\)") as caught:
        AmqpLink.open(_changed(settings, isb_password="canary-password"), SECONDS)

    assert "canary" not in str(caught.value)


def test_a_missing_virtual_host_is_explained(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The error names the virtual host and its variable.
    """
    with pytest.raises(BusRefusedError, match=r"refuses virtual host '/nowhere' \(ISB_VHOST\)"):
        AmqpLink.open(_changed(settings, isb_vhost="/nowhere"), SECONDS)


def test_a_subscription_waits_for_a_broker_that_is_down(
    broker: Broker, settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """
    However often it tries to connect, one warning gives the reason; then it receives what is published.
    """
    with Proxy(broker.port) as proxy, Publisher.open(settings) as publisher:
        proxy.refuse()
        opening = threading.Timer(1.0, proxy.accept)
        opening.start()

        with subscribe(settings=_behind(proxy, settings), name="operators", timeout=SECONDS) as subscription:
            publisher.publish(finished("A"))
            received = next(subscription)

    told = [record.getMessage() for record in caplog.records if record.name == "dkist_processing_core.consumer"]
    assert received == finished("A")
    assert len(told) == 1
    assert "refuses the connection: nothing listens there" in told[0]
    assert told[0].endswith(". The subscription waits for the broker")


def test_a_closed_port_is_explained(state_dir: Path, refusing_port: int) -> None:
    """
    The error states that no server listens there.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir, mesh_config=json.dumps(mesh))

    with pytest.raises(BusUnreachableError, match=rf"127\.0\.0\.1:{refusing_port} refuses the connection: nothing"):
        AmqpLink.open(settings, SECONDS)


class _StoppedLink(AmqpLink):
    """A link that is stopped a moment after it has begun to connect."""

    def _run(self, _until: Callable[[], bool], _timeout: float, _complaint: str | None = None) -> None:
        super()._run(lambda: False, 0.2)
        raise KeyboardInterrupt


def test_whoever_is_stopped_while_connecting_leaves_no_socket(state_dir: Path) -> None:  # noqa: ARG001 - its own outbox
    """The link drops a silent broker at once when it is stopped, and leaves no socket open."""
    before = set(Path("/proc/self/fd").iterdir())

    with BlackHole() as hole:
        service = {"mesh_address": "127.0.0.1", "mesh_port": hole.port}
        settings = DKISTProcessingCoreConfiguration(mesh_config={"interservice-bus": service})
        with pytest.raises(KeyboardInterrupt):
            _StoppedLink.open(settings, SECONDS)

    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


def test_pika_stays_silent_while_we_explain(
    state_dir: Path, refusing_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A refused connection is one log line of this library, not five of pika's.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir, mesh_config=json.dumps(mesh))
    caplog.set_level(logging.DEBUG)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)

    assert [1 for record in caplog.records if record.levelno >= logging.INFO] == [1]
    assert "refuses the connection" in caplog.text
    assert "Events are kept in" in caplog.text


def test_queues_are_of_the_type_that_the_settings_name(
    broker: Broker, settings: DKISTProcessingCoreConfiguration
) -> None:
    """
    With ISB_QUEUE_TYPE=quorum a subscription's queue is a quorum queue, including limits and expiry.
    """
    quorum = settings.model_copy(update={"isb_queue_type": "quorum"})

    with (
        subscribe("task.finished", name="replicated", timeout=SECONDS, settings=quorum) as events,
        Publisher.open(quorum) as publisher,
    ):
        publisher.publish(finished("A"))
        assert next(events) == finished("A")

    types = broker.node.eval(
        f'[amqqueue:get_type(Q) || Q <- rabbit_amqqueue:list(<<"{broker.vhost}">>), '
        'lists:prefix("replicated", binary_to_list(element(4, amqqueue:get_name(Q))))].'
    )
    assert types == "[rabbit_quorum_queue, rabbit_quorum_queue]"
