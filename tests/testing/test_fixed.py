"""
The clock and the ids that a test sets.
"""

from datetime import timedelta

from dkist_processing_core import TaskBase
from dkist_processing_core.identity import new_run_id
from dkist_processing_core.testing import START, FixedClock, FixedIds, InMemoryBus


class Count(TaskBase):
    """A task that reports progress."""

    def run(self) -> None:
        """Report."""
        self.progress(1, 1)


def test_a_clock_stands_still_until_it_is_advanced() -> None:
    """It gives seconds where `time.time` would, and shows the time in UTC."""
    clock = FixedClock()

    assert [clock(), clock()] == [START.timestamp()] * 2
    assert clock.advance(90) == START + timedelta(seconds=90)
    assert clock.now == START + timedelta(seconds=90)
    assert repr(clock) == "<FixedClock: 2026-11-22T09:01:30+00:00>"


def test_events_of_a_task_have_the_time_of_the_clock_and_a_known_run_id() -> None:
    """Two tests that call the same task get equal ids of events."""
    with InMemoryBus() as bus, FixedClock(), FixedIds():
        Count(recipe_run_id=7, workflow_name="fixed", workflow_version="1")()

    assert [event.time for event in bus.events] == [START] * 3
    assert {event.run_id for event in bus.events} == {"hand__7__20261122T090000Z__00000001"}


def test_clock_and_ids_are_those_of_the_process_again_after_their_block() -> None:
    """Blocks may be nested; the inner one counts."""
    with FixedIds(), FixedClock() as outer:
        with FixedClock(START + timedelta(days=1)):
            inner = new_run_id("local", 1)
        outer.advance(1)
        after = new_run_id("local", 1)

    assert inner == "local__1__20261123T090000Z__00000001"
    assert after == "local__1__20261122T090001Z__00000002"
    assert new_run_id("local", 1) != new_run_id("local", 1)
