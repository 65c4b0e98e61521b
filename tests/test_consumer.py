"""
What a subscription does by itself, whichever bus it reads; what both buses promise it is in `tests.bus.contract`.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkist_processing_core.bus import Message, Properties, open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Subscription, subscribe
from dkist_processing_core.publisher import Publisher
from tests.facts import finished, started


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    Settings that name no broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


@pytest.fixture
def publisher(settings: DKISTProcessingCoreConfiguration) -> Iterator[Publisher]:
    """
    A publisher on the journal.
    """
    with Publisher.open(settings) as publisher:
        yield publisher


def test_whatever_is_wrong_with_a_message_it_is_buried(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    An error that decoding does not foresee is a reason like any other.
    """
    bus = open_bus(settings)
    impossible = Properties("m", 5)  # type: ignore[arg-type]
    with subscribe(settings=settings, name="strict", timeout=5.0) as subscription:
        publisher._append([Message(bus.event_exchange, "task.finished.W.A", b"{}", impossible)])
        publisher.publish(finished("A"))

        assert finished("A") == next(subscription)

    with bus.open_journal() as journal:
        ((reason, body),) = journal.dead_letters("strict")
    assert reason == "AttributeError: 'int' object has no attribute 'strip'"
    assert body == b"{}"


def test_a_subscription_of_another_thread_goes_on(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    A name may be shared by threads: only in its own thread is a subscription known to be abandoned.
    """
    opened: list[Subscription] = []
    with subscribe(settings=settings, name="shared", timeout=5.0) as mine:
        thread = threading.Thread(target=lambda: opened.append(subscribe(settings=settings, name="shared")))
        thread.start()
        thread.join()
        publisher.publish(started("A"))

        assert started("A") == next(mine)
    opened[0].close()


def test_a_timeout_of_nothing_reads_to_the_end(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    What is there already is yielded, and nothing waited for.
    """
    publisher.publish(started("A"), finished("A"))

    with subscribe(settings=settings, replay=True, timeout=0.0) as subscription:
        assert list(subscription) == [started("A"), finished("A")]
        assert list(subscription) == []


def test_a_subscription_that_hears_nothing_for_long_keeps_its_place(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Listening is use: what is pruned as unused is what nobody listens to.
    """
    with subscribe("task.failed", name="patient", timeout=0.05, settings=settings) as listening:
        with open_bus(settings).open_journal() as journal:
            journal._connection.execute("UPDATE subscription SET used = 0")
        assert list(listening) == []

        with open_bus(settings).open_journal() as journal:
            (used,) = journal._connection.execute("SELECT used FROM subscription").fetchone()
        assert used > 0
