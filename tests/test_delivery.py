"""
Delivery under real faults: missing topology, unreachable or blocked brokers.

Not here: a healthy broker (bus/test_amqp.py), the journal by itself (bus/test_journal.py), and journals that cannot be
written to (test_degradation.py).
"""

import json
import logging
import re
import threading
import time

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import CONNECT_SECONDS, AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery import drainer, outbox_warnings
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.refusals import RETRY_SECONDS
from dkist_processing_core.errors import BusError
from dkist_processing_core.journal import Books
from dkist_processing_core.journal.locks import FileLock
from tests.arrivals import Arrivals
from tests.bus.contract import SECONDS
from tests.facts import finished, progressed, started
from tests.services.broker import Broker

ARCHIVE = "workflow.events.archive.q"
LIMIT = 2.0
"""The default of EVENT_FLUSH_TIMEOUT."""


def settings_of(broker: Broker) -> DKISTProcessingCoreConfiguration:
    """
    Return the settings that name a broker; the state folder is the test's own.
    """
    return DKISTProcessingCoreConfiguration(
        mesh_config=broker.env["MESH_CONFIG"],
        isb_username=broker.username,
        isb_password=broker.password,
        isb_vhost=broker.vhost,
    )


def unreachable(port: int) -> DKISTProcessingCoreConfiguration:
    """
    Return the settings of a broker that does not exist.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}}
    return DKISTProcessingCoreConfiguration(mesh_config=json.dumps(mesh))


def books_of(settings: DKISTProcessingCoreConfiguration) -> Books:
    """
    Return the counts of the journal that the settings name.
    """
    with open_bus(settings).open_journal() as journal:
        return journal.books()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    Return the warnings of the library.
    """
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def unbind(broker: Broker) -> None:
    """
    Remove the archive's binding.
    """
    with broker.connect() as connection:
        connection.channel().queue_unbind(ARCHIVE, "workflow.events.x", "#")


def close_timed(publisher: Publisher, timeout: float) -> float:
    """
    Close a publisher and return how long that took, in seconds.
    """
    began = time.monotonic()
    publisher.close(timeout)
    return time.monotonic() - began


def test_who_leaves_hears_out_what_it_has_sent_for_others(broker: Broker) -> None:
    """
    A publisher ends while confirms of others' events are outstanding: it waits for them, so the next one repeats none.
    """
    settings, others = settings_of(broker), 2000
    arrivals = Arrivals(broker, settings)
    delivering = FileLock(open_bus(settings).journal_path.with_suffix(".lock"))
    assert delivering.acquire()
    with Publisher.open(settings, delivers=False) as beside:
        leaving = Publisher.open(settings)
        leaving.publish(started("Leaves"))
        beside.publish(*[progressed("Stays", number) for number in range(others)])
        delivering.release()
        assert leaving.flush(SECONDS)
        leaving.close(SECONDS)

    with Publisher.open(settings) as following:
        following.include_backlog()
        assert following.flush(SECONDS)
    arrivals.read()

    assert sorted(arrivals.counts.values()) == [1] * (others + 1)
    assert books_of(settings) == Books(published=others + 1, confirmed=others + 1, pending=0, set_aside=0)


def test_a_binding_that_has_gone_is_made_again(broker: Broker) -> None:
    """
    The archive exists without a binding: events still arrive, and none is set aside.
    """
    settings = settings_of(broker)
    AmqpBus(settings).open_link().close()
    unbind(broker)

    with Publisher.open(settings) as publisher:
        publisher.publish(*[progressed("A", number) for number in range(20)])
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=20, confirmed=20, pending=0, set_aside=0)


def test_a_binding_that_goes_while_connected_is_made_again(broker: Broker) -> None:
    """
    It is also restored if an operator removes it while a publisher is connected.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        unbind(broker)
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=2, confirmed=2, pending=0, set_aside=0)


def test_who_may_not_bind_goes_on_and_says_so_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    Without permissions events are set aside after seconds. When an operator grants them, they are used.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    unbind(broker)
    # An account that may read the queues, on each version.
    settings = settings_of(
        broker.as_user(configure="^$", write=r"^(workflow\.events\.x|master\.direct\.x)$", read="q$")
    )

    with Publisher.open(settings) as publisher:
        began = time.monotonic()
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        assert time.monotonic() - began >= sum(RETRY_SECONDS)
        with broker.connect() as connection:
            connection.channel().queue_bind(ARCHIVE, "workflow.events.x", "#")
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=2, confirmed=1, pending=0, set_aside=1)
    refused, set_aside = warnings_in(caplog)
    assert "missing topology cannot be created: RabbitMQ at" in refused
    assert "is set aside: the broker returned it: NO_ROUTE (312)" in set_aside


def test_every_process_says_once_that_its_events_wait(refusing_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """
    The first cannot connect; the next ones, which pause, report it as well, each once for any number of publishers.
    """
    settings = unreachable(refusing_port)
    found = []
    for _ in range(3):
        outbox_warnings._logged.clear()
        caplog.clear()
        for name in ("A", "B"):
            publisher = Publisher.open(settings)
            publisher.publish(started(name))
            assert close_timed(publisher, LIMIT) < LIMIT
        found.append(warnings_in(caplog))

    assert [len(texts) for texts in found] == [1, 1, 1]
    assert "refuses the connection: nothing listens there" in found[0][0]
    assert re.search(" events? waits? in ", found[1][0])
    assert found[1][0].endswith(
        "could not be reached a moment ago. The next publisher or `dkist-core outbox drain` delivers them"
    )


def test_a_corrected_password_is_used_at_once(broker: Broker) -> None:
    """
    After a refusal the broker is tried again at once.
    """
    settings = settings_of(broker)
    with Publisher.open(settings.model_copy(update={"isb_password": "wrong"})) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)

    with Publisher.open(settings) as publisher:
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

    assert books_of(settings) == Books(published=2, confirmed=2, pending=0, set_aside=0)


def test_a_mark_from_a_wrong_clock_is_not_obeyed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However far in the future the mark's time is, the broker is tried again after the pause.
    """
    settings = settings_of(broker)
    monkeypatch.setattr(drainer, "UNREACHABLE_SECONDS", 0.2)
    with open_bus(settings).open_journal() as journal:
        journal.unreachable_until = time.time() + 10 * 365 * 24 * 3600

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        publisher.flush(SECONDS)
        wait_until_confirmed(settings, 1)
    with open_bus(settings).open_journal() as journal:
        assert journal.unreachable_until == 0


def wait_until_confirmed(settings: DKISTProcessingCoreConfiguration, count: int) -> None:
    """
    Return when that many messages were confirmed.
    """
    deadline = time.monotonic() + SECONDS
    turn = threading.Event()
    while books_of(settings).confirmed < count:
        assert time.monotonic() < deadline
        turn.wait(0.02)


def test_a_blocked_broker_costs_the_first_process_little_and_the_next_ones_nothing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The alarm is reported when it is noticed, and no process waits for its end.
    """
    settings = settings_of(broker)
    AmqpBus(settings).open_link().close()
    broker.node.memory_alarm(on=True)

    publisher = Publisher.open(settings)
    publisher.publish(started("A"))
    assert close_timed(publisher, LIMIT) < LIMIT / 2
    (told,) = warnings_in(caplog)
    assert "blocks publishers: " in told

    publisher = Publisher.open(settings)
    publisher.publish(finished("A"))
    assert close_timed(publisher, LIMIT) < LIMIT / 4

    assert books_of(settings).pending == 2


def test_a_blocked_broker_gets_everything_when_the_alarm_clears(broker: Broker) -> None:
    """
    A publisher that still runs delivers as soon as the broker allows it.
    """
    settings = settings_of(broker)
    AmqpBus(settings).open_link().close()
    broker.node.memory_alarm(on=True)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)
        broker.node.memory_alarm(on=False)
        wait_until_confirmed(settings, 1)
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)


def test_a_broker_that_never_answers_costs_no_more_than_the_timeout(broker: Broker) -> None:
    """
    Closing takes its timeout, and not the time of the connection's thread in addition.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
    publisher = Publisher.open(settings)
    publisher.publish(progressed("A", 0))
    assert publisher.flush(SECONDS)
    broker.node.pause()
    publisher.publish(finished("A"))

    assert close_timed(publisher, 1.0) < 1.0 + CONNECT_SECONDS / 2


def test_leaving_the_block_delivers(broker: Broker) -> None:
    """
    A publisher opened with settings waits for the bus at its end, for the time in the settings.
    """
    settings = settings_of(broker)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"), finished("A"))

    assert books_of(settings) == Books(published=2, confirmed=2, pending=0, set_aside=0)


def test_a_publisher_that_was_closed_says_so(broker: Broker) -> None:
    """
    Closing again has no effect, and publishing raises an error, so that no event is lost silently.
    """
    settings = settings_of(broker)
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        publisher.close(LIMIT)

    with pytest.raises(BusError, match="the publisher is closed"):
        publisher.publish(finished("A"))

    assert books_of(settings).published == 1
