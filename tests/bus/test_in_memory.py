"""
The in-memory bus: the contract of a bus, and what only a bus in the memory of a test has.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import DecodeError, JournalError
from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.testing import FixedClock, InMemoryBus
from tests.bus.contract import BusContract
from tests.facts import failed, finished, started


class TestInMemoryBus(BusContract):
    """
    The contract, in memory.
    """

    @pytest.fixture(autouse=True)
    def settings(self, tmp_path: Path) -> Iterator[DKISTProcessingCoreConfiguration]:
        """
        Settings whose folder is not created, while a bus in memory is in use.
        """
        folder = tmp_path / "never"
        with InMemoryBus():
            yield DKISTProcessingCoreConfiguration(dkist_core_state_dir=folder)
        assert not folder.exists()


def test_the_bus_is_in_use_inside_its_block_only() -> None:
    """
    Whatever the settings name; blocks may be nested.
    """
    settings = DKISTProcessingCoreConfiguration()
    before = open_bus(settings).where

    with InMemoryBus() as outer:
        with InMemoryBus() as inner:
            assert open_bus(settings) is inner
        assert open_bus(settings) is outer

    assert open_bus(settings).where == before


def test_its_events_and_messages_can_be_read() -> None:
    """
    `events` are the reports, `messages` also those of release 7.x; a message that is no event is an error.
    """
    message = RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r")
    bus = InMemoryBus()
    bus.publish(started("A"), finished("A"), finished("A"))
    bus.publish_failure(message)
    bus.publish_failure(message)

    assert bus.events == [started("A"), finished("A"), finished("A")]
    assert [each.exchange for each in bus.messages] == ["workflow.events.x"] * 3 + ["master.direct.x"]
    assert repr(bus) == "<InMemoryBus: 4 messages>"

    bus.publish_raw(Message(bus.event_exchange, "task.finished.W.A", b"?", Properties("m", "text/plain")))
    with pytest.raises(DecodeError, match="the body is not JSON"):
        _ = bus.events


def test_its_dead_letters_can_be_read() -> None:
    """
    Each has the message and the reason, under the name of the subscription.
    """
    bad = Message("workflow.events.x", "task.finished.W.A", b"?", Properties("m", "application/json"))
    with InMemoryBus() as bus, subscribe(name="strict", timeout=0.0) as subscription:
        bus.publish_raw(bad)
        bus.publish(failed("A"))
        assert list(subscription) == [failed("A")]

    (letter,) = bus.dead_letters("strict")
    assert letter.message == bad
    assert letter.reason.startswith("the body is not")
    assert bus.dead_letters("another") == []


def test_a_message_reaches_the_bus_at_the_time_of_its_clock() -> None:
    """
    So a test can replay from a time without waiting.
    """
    clock = FixedClock()
    with InMemoryBus(clock=clock) as bus:
        bus.publish(started("A"))
        since = clock.advance(60)
        bus.publish(finished("A"))

        assert list(subscribe(replay=since, timeout=0.0)) == [finished("A")]


def test_it_has_no_spare_journal() -> None:
    """
    A publisher that could not append would keep its messages in memory.
    """
    with pytest.raises(JournalError, match=r"^the in-memory bus of this process has no spare journal$"):
        InMemoryBus().open_spare()
