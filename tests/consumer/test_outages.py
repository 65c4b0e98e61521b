"""
A broker or a database that is killed and started again, a full disk, and a queue that loses events: nothing is lost.

Not here: a consumer that is killed itself (test_kills).
"""

import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pika
import pytest
from sqlalchemy import Connection, select

from dkist_processing_core import Consumer
from dkist_processing_core.bus import ArchiveEnd, ReceivedMessage, open_bus
from dkist_processing_core.bus.interface import MOST_AHEAD
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.consumer.completeness import Completeness
from dkist_processing_core.consumer.measures import Measures
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import JournalVersionError
from dkist_processing_core.events import Event, WorkflowFailed, WorkflowFinished, encode
from dkist_processing_core.inbox import Database, Inbox, Rules, Stored
from dkist_processing_core.inbox.tables import inbox
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import failed, make, progressed, started
from tests.running import run_python
from tests.services.broker import Broker, open_broker
from tests.services.postgres import PostgresServer
from tests.waiting import wait_until

LOGGER = "dkist_processing_core.consumer"


def consumer_of(effects: Effects, name: str = "actor") -> Consumer:
    """
    Return a consumer that takes an effect for each failure.
    """
    consumer = Consumer(name, inbox=effects.url)

    @consumer.on("task.failed")
    def act(event: Event, transaction: Connection) -> None:
        effects.take(transaction, event)

    return consumer


@contextmanager
def running(consumer: Consumer) -> Iterator[None]:
    """
    Run a consumer in a thread.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(60)
    assert errors == []
    assert not thread.is_alive()


def published(*names: str) -> None:
    """
    Publish failures of tasks, and wait until the broker has them.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*map(failed, names))
        assert publisher.flush(60)


def lines_in(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """
    Return what consumers have logged.
    """
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith((LOGGER, "dkist_processing_core.bus")) and record.levelno >= level
    ]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["postgresql"], indirect=True)
def test_a_broker_that_is_killed_and_started_again_loses_nothing(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The outage has one line at its start, and one at its end.
    """
    caplog.set_level(logging.INFO)
    with running(consumer_of(effects)):
        wait_until(lambda: "receives from RabbitMQ" in caplog.text)
        published("A", "B")
        wait_until(lambda: effects.events == ["A", "B"])

        broker.node.kill()
        wait_until(lambda: "connecting again" in caplog.text)
        broker.node.start()
        published("C", "D")
        wait_until(lambda: effects.events == ["A", "B", "C", "D"])

    lines = lines_in(caplog)
    assert sum("connecting again" in line for line in lines) == 1
    assert sum("connected again" in line for line in lines) == 1
    assert len(lines_in(caplog, logging.WARNING)) == 1


def test_a_broker_that_cannot_be_reached_at_the_start_is_waited_for(
    broker: Broker, use: Callable[[Broker], None], caplog: pytest.LogCaptureFixture
) -> None:
    """
    One line states the reason, one that it is over.
    """
    use(broker)
    caplog.set_level(logging.INFO)
    seen: list[Event] = []
    consumer = Consumer("early")
    consumer.on("task.failed")(seen.append)
    broker.node.kill()

    with running(consumer):
        wait_until(lambda: "the consumer tries again" in caplog.text)
        broker.node.start()
        wait_until(lambda: "receives from RabbitMQ" in caplog.text)
        published("A")
        wait_until(lambda: seen == [failed("A")])

    (warning,) = lines_in(caplog, logging.WARNING)
    assert warning.endswith("the consumer tries again, and no event is lost")
    assert sum("can be used again; the consumer continues" in line for line in lines_in(caplog)) == 1


@pytest.mark.parametrize("effects", ["postgresql"], indirect=True)
def test_a_database_that_is_killed_and_started_again_loses_nothing(
    postgres: PostgresServer, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The outage has one line at its start, and one at its end.
    """
    caplog.set_level(logging.INFO)
    with InMemoryBus() as bus, running(consumer_of(effects)):
        wait_until(lambda: "receives from" in caplog.text)
        bus.publish(failed("A"), failed("B"))
        wait_until(lambda: effects.events == ["A", "B"])

        postgres.kill()
        try:
            wait_until(lambda: "the consumer tries again" in caplog.text)
            # Without an event, parts that do not use the database must not take the outage for over.
            threading.Event().wait(1.0)
        finally:
            postgres.start()
        effects.close()
        bus.publish(failed("C"), failed("D"))
        wait_until(lambda: effects.events == ["A", "B", "C", "D"])

    (warning,) = [line for line in lines_in(caplog, logging.WARNING) if "the process that had claimed" not in line]
    assert warning.endswith("the consumer tries again, and no event is lost")
    assert effects.url.rpartition("@")[0].rpartition(":")[2] not in caplog.text
    assert sum("can be used again; the consumer continues" in line for line in lines_in(caplog)) == 1


def test_a_thread_that_meets_an_outage_after_its_end_begins_no_new_one(caplog: pytest.LogCaptureFixture) -> None:
    """
    It still has a connection of before the outage. Its second failure in a row is another outage.
    """
    caplog.set_level(logging.INFO)
    outage = Outage("the inbox")
    steps: list[tuple[ThreadPoolExecutor, Callable[[], object]]]
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        steps = [
            (first, outage.end),
            (second, outage.end),
            (first, partial(outage.begin, OSError("killed"))),
            (first, outage.end),
            (second, partial(outage.begin, OSError("an old connection"))),
            (second, outage.end),
            (second, partial(outage.begin, OSError("killed again"))),
        ]
        for thread, step in steps:
            thread.submit(step).result()

    assert [line.partition(";")[0] for line in caplog.messages] == [
        "killed",
        "the inbox can be used again",
        "killed again",
    ]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["postgresql"], indirect=True)
def test_the_backlog_is_measured_while_the_database_cannot_be_used(postgres: PostgresServer, effects: Effects) -> None:
    """
    It grows then: the broker holds what exceeds the messages that a consumer may have at a time.
    """
    bus = open_bus(read_settings())
    database = Database.open(effects.url, read_settings())
    service = ConsumerService(consumer_of(effects), bus, database, measures=Measures("actor", bus))
    with closing(service):
        assert service.intake is not None
        service.intake.step(0.0)
        published(*[f"Task{number}" for number in range(MOST_AHEAD + 10)])
        postgres.kill()
        try:
            service.intake.step(0.0)
            measured = service.intake.backlog
        finally:
            postgres.start()
    effects.close()

    assert measured == 10


FULL = """
import logging, resource, threading
from dkist_processing_core import Consumer
from dkist_processing_core.testing import InMemoryBus
from tests.facts import failed
from tests.waiting import wait_until

logging.basicConfig(level=logging.INFO)
messages = []
note = lambda record: messages.append(record.getMessage()) or True
logging.getLogger("dkist_processing_core.consumer").addFilter(note)
seen = []
consumer = Consumer("actor")
consumer.on("task.failed")(lambda event: seen.append(event.task_name))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def has_logged(text):
    return any(text in message for message in messages)

with InMemoryBus() as bus:
    thread = threading.Thread(target=consumer.run)
    thread.start()
    wait_until(lambda: has_logged("receives from"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    names = [f"Task{number}" for number in range(100)]
    bus.publish(*map(failed, names))
    wait_until(lambda: has_logged("tries again"))
    assert seen == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    wait_until(lambda: seen == names)
    consumer.stop()
    thread.join()
"""


def test_a_full_disk_of_the_inbox_loses_nothing() -> None:
    """
    The outage has one line at its start, and one at its end.
    """
    done = run_python(FULL, {})

    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("WARNING") for line in lines) == 1, done.stderr
    assert sum("can be used again; the consumer continues" in line for line in lines) == 1


def lost(broker: Broker, *names: str) -> None:
    """
    Publish failures of tasks, and let the queue of the consumer lose them, as by a policy of an operator.
    """
    with broker.connect() as connection:
        connection.channel().queue_unbind("actor", "workflow.events.x", "task.failed.*.#")
        published(*names)
        connection.channel().queue_bind("actor", "workflow.events.x", "task.failed.*.#")


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_what_the_queue_has_lost_is_taken_in_from_the_archive(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    One warning states the number. Events that the queue still has, or that no handler wants, are not counted.
    """
    consumer = consumer_of(effects)
    published("Before")
    consumer.run(until_idle=True)
    lost(broker, "Lost1", "Lost2")
    published("Kept")
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(started("Unwanted"))
        assert publisher.flush(60)

    consumer.run(until_idle=True)
    consumer.run(until_idle=True)

    assert sorted(effects.events) == ["Kept", "Lost1", "Lost2"]
    assert lines_in(caplog, logging.WARNING) == [
        "the queue of the consumer 'actor' has lost 2 events, which it took in from the archive"
    ]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_what_a_lost_connection_repeats_is_no_loss(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The messages that the broker delivers twice count once: what is behind them is still in the queue.
    """
    caplog.set_level(logging.INFO)
    settings, consumer = read_settings(), consumer_of(effects)
    consumer.run(until_idle=True)
    names = [f"Task{number}" for number in range(2 * MOST_AHEAD + 100)]
    published(*names)
    with closing(ConsumerService(consumer, open_bus(settings), Database.open(effects.url, settings))) as service:
        intake = service.intake
        assert intake is not None
        while not intake.is_receiving:
            intake.step()
        # The end of the archive is noted, and the broker has delivered as far ahead as it does.
        intake.step()
        wait_until(lambda: waiting_in_queue(broker) == len(names) - 20 - MOST_AHEAD)
        broker.close_connections()
        wait_until(lambda: "connected again" in caplog.text)
        while intake.quiet_at is None:
            intake.step()

    assert [task for task, _, _ in effects.of_state("waiting")] == names
    assert [line for line in lines_in(caplog, logging.WARNING) if "connecting again" not in line] == []


def waiting_in_queue(broker: Broker) -> int:
    """
    Return how many messages of the consumer were not delivered.
    """
    with broker.connect() as connection:
        return int(connection.channel().queue_declare("actor", passive=True).method.message_count)


class PausingBus(InMemoryBus):
    """
    A bus with an archive, whose queue is empty.
    """

    def archive_end(self, name: str, *, after: int | None = None) -> ArchiveEnd:  # type: ignore[override]
        """
        Return the same end each time.
        """
        super().archive_end(name, after=after)
        return ArchiveEnd(newest=0, waiting=0)


def test_silence_before_a_lost_connection_is_no_empty_queue(state_dir: Path) -> None:
    """
    What was on its way to the connection that broke comes again, and only silence after that shows that all has come.
    """
    with PausingBus() as bus, closing(Database.open(f"sqlite:///{state_dir}/inbox.db", read_settings())) as database:
        completeness = Completeness(bus, Inbox(database, Rules("actor")), ("#",), store=lambda _: Stored(0, 0, 0))
        looks = [completeness.is_due(connections, is_quiet=True) for connections in (1, 1, 2, 2)]

    assert looks == [False, True, False, True]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_lost_event_with_the_body_of_another_one_is_taken_in_from_the_archive(
    broker: Broker, effects: Effects
) -> None:
    """
    In the binary mode of CloudEvents, the headers alone may distinguish them.
    """
    seen: list[Event] = []
    consumer = Consumer("actor", inbox=effects.url)
    consumer.on("workflow.*")(seen.append)
    consumer.run(until_idle=True)
    kept, missing = make(WorkflowFinished), make(WorkflowFailed)
    with broker.connect() as connection:
        channel = connection.channel()
        for event in (kept, missing):
            if event is missing:
                channel.queue_unbind("actor", "workflow.events.x", consumer.patterns[0])
            envelope = json.loads(encode(event))
            body = json.dumps(envelope.pop("data")).encode()
            headers = {f"cloudEvents:{name}": value for name, value in envelope.items()}
            properties = pika.BasicProperties("application/json", headers=headers)
            channel.confirm_delivery()
            channel.basic_publish("workflow.events.x", f"{event.name}.W", body, properties)

    consumer.run(until_idle=True)

    assert seen == [kept, missing]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_new_consumer_that_is_killed_before_its_first_comparison_loses_nothing(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Where it begins in the archive is stored before the queue is bound, so what the queue loses later is noticed.
    """
    published("Before")
    settings, consumer = read_settings(), consumer_of(effects)
    killed = ConsumerService.open(consumer, settings)
    assert killed is not None
    assert killed.intake is not None
    killed.intake.step(0.0)
    killed.close()
    lost(broker, "Lost")

    consumer.run(until_idle=True)

    assert effects.events == ["Lost"]
    assert lines_in(caplog, logging.WARNING) == [
        "the queue of the consumer 'actor' has lost 1 event, which it took in from the archive"
    ]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_new_inbox_with_the_queue_of_another_one_goes_on_from_now(
    effects: Effects, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It does not know how far the other one has compared the queue, and states that once.
    """
    consumer = consumer_of(effects)
    consumer.run(until_idle=True)
    published("Waiting")
    consumer.inbox = f"sqlite:///{state_dir}/other.db"
    seen: list[Event] = []
    consumer.handlers.clear()
    consumer.on("task.failed")(seen.append)

    consumer.run(until_idle=True)
    consumer.run(until_idle=True)

    assert seen == [failed("Waiting")]
    assert [line.partition(":")[0] for line in lines_in(caplog, logging.WARNING)] == [
        "the queue of the consumer 'actor' holds 1 event already, and the inbox does not know it"
    ]


def fill_archive(broker: Broker, effects: Effects) -> list[str]:
    """
    Let the archive have events that the queue of a consumer has lost, and return their names.
    """
    consumer_of(effects).run(until_idle=True)
    names = [f"Task{number}" for number in range(3000)]
    lost(broker, *names)
    return names


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_broker_that_dies_while_the_archive_is_read_loses_nothing(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    What was read stays read, and one warning states how many events the queue has lost.
    """
    names = fill_archive(broker, effects)
    caplog.set_level(logging.INFO)
    with running(consumer_of(effects)):
        wait_until(lambda: bool(effects.events))
        broker.node.kill()
        wait_until(lambda: "connecting again" in caplog.text)
        broker.node.start()
        wait_until(lambda: "which it took in from the archive" in caplog.text)
        wait_until(lambda: len(effects.events) == len(names))

    assert effects.events == names
    assert "the queue of the consumer 'actor' has lost 3000 events" in caplog.text


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_consumer_ends_on_request_while_the_archive_is_read(broker: Broker, effects: Effects) -> None:
    """
    It does not wait for a broker that is gone, and the next start goes on where it was.
    """
    names = fill_archive(broker, effects)
    with running(consumer_of(effects)):
        wait_until(lambda: bool(effects.events))
        broker.node.kill()
    broker.node.start()

    consumer_of(effects).run(until_idle=True)

    assert effects.events == names


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_large_messages_that_are_no_events_do_not_fill_the_memory(broker: Broker, effects: Effects) -> None:
    """
    An excerpt is kept of each, and of those that an event follows nothing is lost.
    """
    half = 512 * 1024
    with open_bus(read_settings()).subscribe(("#",), name="actor", in_batches=True) as receiver:
        with broker.connect() as connection:
            for _ in range(12):
                connection.channel().basic_publish("workflow.events.x", "task.failed.W.T", bytes(half))
        received: list[ReceivedMessage] = []
        while len(received) < 12:
            received += receiver.receive_batch(500, 5.0)
    published("A")
    consumer_of(effects).run(until_idle=True)
    with closing(Database.open(effects.url, read_settings())) as database, database.reading() as connection:
        (reason,) = connection.scalars(select(inbox.c.reason).where(inbox.c.reason.is_not(None)))

    assert {(len(each.message.body), each.message.full_size) for each in received} == {(16 * 1024, half)}
    assert effects.events == ["A"]
    assert "the body has 524,288 bytes, of which the first 16,384 are kept" in reason


@pytest.mark.usefixtures("owned")
def test_a_batch_of_large_messages_has_fewer(broker: Broker) -> None:
    """
    Storing a batch takes a multiple of its size in memory.
    """
    body = encode(failed("T")).ljust(1024 * 1024)
    with open_bus(read_settings()).subscribe(("#",), name="actor", in_batches=True) as receiver:
        with broker.connect() as connection:
            for _ in range(12):
                connection.channel().basic_publish("workflow.events.x", "task.failed.W.T", body)
        sizes: list[int] = []
        while sum(sizes) < 12:
            batch = receiver.receive_batch(500, 5.0)
            sizes.append(len(batch))
            batch[-1].acknowledge(with_earlier=True)

    assert max(sizes) <= 4


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_past_without_events_is_read_at_once(effects: Effects) -> None:
    """
    A broker delivers nothing then, and does not report that.
    """
    published("A")
    seen: list[Event] = []
    consumer = Consumer("actor", inbox=effects.url)
    consumer.on("task.failed")(seen.append)

    consumer.run(since=datetime.now(UTC) + timedelta(hours=1), until_idle=True)

    assert seen == []


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_changed_selection_begins_now_and_its_queue_gets_no_other_events(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    What the former selection has up to now is handled; bindings that the new one does not have are removed.
    """
    seen: list[Event] = []

    def run(*names: str) -> list[Event]:
        seen.clear()
        consumer = Consumer("actor", inbox=effects.url)
        for name in names:
            consumer.on(name)(seen.append)
        consumer.run(until_idle=True)
        return list(seen)

    def put(*events: Event) -> None:
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(*events)
            assert publisher.flush(60)

    run("task.started")
    put(started("Former"), progressed("P", 1))
    widened = run("task.started", "task.progressed")
    put(started("A"), progressed("P", 2))
    both = run("task.started", "task.progressed")
    run("task.progressed")
    put(started("B"), progressed("P", 3))
    with broker.connect() as connection:
        waiting = connection.channel().queue_declare("actor", passive=True).method.message_count
    narrowed = run("task.progressed")

    assert widened == [started("Former")]
    assert sorted(both, key=repr) == sorted([started("A"), progressed("P", 2)], key=repr)
    assert (waiting, narrowed) == (1, [progressed("P", 3)])
    assert lines_in(caplog, logging.WARNING) == []


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_queue_that_was_deleted_loses_nothing(broker: Broker, effects: Effects) -> None:
    """
    As one that has expired: the events are taken in from the archive, in their order.
    """
    consumer = consumer_of(effects)
    consumer.run(until_idle=True)
    with broker.connect() as connection:
        connection.channel().queue_delete("actor")
    names = [f"Task{number}" for number in range(50)]
    published(*names)

    consumer.run(until_idle=True)

    assert effects.events == names


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_an_archive_that_was_created_again_is_read_from_its_beginning(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its offsets begin again, so the comparison does as well; handled events are recognised.
    """
    consumer = consumer_of(effects)
    consumer.run(until_idle=True)
    published("A", "B", "C")
    consumer.run(until_idle=True)
    with broker.connect() as connection:
        connection.channel().queue_delete(ARCHIVE_QUEUE)
    published("D")
    lost(broker, "E")

    consumer.run(until_idle=True)

    assert sorted(effects.events) == ["A", "B", "C", "D", "E"]
    assert "was created again; the consumer 'actor' reads it all" in caplog.text


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_on_another_broker_a_consumer_begins_anew(
    broker: Broker, effects: Effects, use: Callable[[Broker], None], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its place in the archive of the former one does not belong there, and one line states that.
    """
    caplog.set_level(logging.INFO)
    consumer = consumer_of(effects)
    published("A", "B")
    consumer.run(until_idle=True)
    with open_broker(broker.node) as other:
        use(other)
        published("C", "D", "E", "F")
        consumer.run(until_idle=True)
        consumer.run(until_idle=True)
        lost(other, "Lost")
        consumer.run(until_idle=True)

    assert effects.events == ["Lost"]
    assert lines_in(caplog, logging.WARNING) == [
        "the queue of the consumer 'actor' has lost 1 event, which it took in from the archive"
    ]
    assert [line for line in lines_in(caplog) if "was compared" in line] == [
        f"the consumer 'actor' was compared with {place_of(broker)}; it begins anew with {place_of(other)}"
    ]


def place_of(broker: Broker) -> str:
    """
    Return the place of a virtual host, as it is logged.
    """
    return f"RabbitMQ at {broker.host}:{broker.port}, virtual host {broker.vhost}, exchange workflow.events.x"


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_consumer_on_a_broker_takes_in_the_past_without_a_gap(effects: Effects) -> None:
    """
    A new name reads the archive, then goes on with its queue; a second start repeats no effect.
    """
    names = [f"Task{number}" for number in range(300)]
    published(*names)
    consumer = consumer_of(effects)

    consumer.run(since="first", until_idle=True)
    published("Later")
    consumer.run(since="1h", until_idle=True)

    assert effects.events == [*names, "Later"]


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_what_the_archive_has_removed_before_a_comparison_is_counted_as_lost(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    One warning states how many events that may be.
    """
    arguments = {"x-queue-type": "stream", "x-max-length-bytes": 40_000, "x-stream-max-segment-size-bytes": 20_000}
    with broker.connect() as connection:
        connection.channel().queue_declare(ARCHIVE_QUEUE, durable=True, arguments=arguments)
    consumer = consumer_of(effects)
    consumer.run(until_idle=True)
    with broker.connect() as connection:
        connection.channel().queue_delete("actor")
    names = [f"Task{number}" for number in range(300)]
    for at in range(0, len(names), 20):
        published(*names[at : at + 20])

    consumer.run(until_idle=True)

    kept = len(effects.events)
    assert 0 < kept < len(names)
    assert effects.events == names[-kept:]
    (removed, taken) = lines_in(caplog, logging.WARNING)
    found = re.search(r"has removed up to (\d+) events of all kinds before the consumer 'actor' could", removed)
    # The stream has a few numbers without a message.
    assert found is not None
    assert len(names) - kept <= int(found[1]) <= len(names) - kept + 20
    assert f"has lost {kept} events, which it took in from the archive" in taken


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_running_consumer_compares_its_inbox_with_the_archive_from_time_to_time(
    broker: Broker, effects: Effects, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Events that it has received itself are not missing.
    """
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("dkist_processing_core.consumer.completeness.COMPARE_SECONDS", 0.2)
    with running(consumer_of(effects)):
        wait_until(lambda: "receives from" in caplog.text)
        published("A")
        wait_until(lambda: effects.events == ["A"])
        lost(broker, "Lost")
        wait_until(lambda: effects.events == ["A", "Lost"])
        published("B")
        wait_until(lambda: effects.events == ["A", "Lost", "B"])

    assert lines_in(caplog, logging.WARNING) == [
        "the queue of the consumer 'actor' has lost 1 event, which it took in from the archive"
    ]


def test_a_journal_of_a_newer_release_is_an_error_and_no_outage(state_dir: Path) -> None:
    """
    Waiting would not help.
    """
    published("A")
    with closing(sqlite3.connect(state_dir / "embedded.db")) as journal:
        journal.execute("PRAGMA user_version = 999")
    consumer = Consumer("actor")
    consumer.on("task.failed")(print)

    with pytest.raises(JournalVersionError, match="newer"):
        consumer.run()


@pytest.mark.parametrize("firm", [None, failed("A")], ids=["none", "same"])
def test_a_run_that_ends_when_idle_believes_a_provisional_report_of_a_broker(
    broker: Broker, use: Callable[[Broker], None], firm: Event | None
) -> None:
    """
    The connection at its start is no disturbance, after which a consumer would wait for a minute.
    """
    use(broker)
    seen: list[Event] = []
    consumer = Consumer("cron", provisional_after=1.0)
    consumer.on("task.failed")(seen.append)
    consumer.run(until_idle=True)
    lost = failed("A", cause="lost", reported_by="engine", provisional=True)
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(lost)
    consumer.run(until_idle=True)
    at_first = list(seen)
    if firm is not None:
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(firm)
    until = time.monotonic() + 1.0
    wait_until(lambda: time.monotonic() > until)
    consumer.run(until_idle=True)

    assert (at_first, seen) == ([], [firm or lost])
