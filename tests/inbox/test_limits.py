"""
Values at the limits of what an event may hold: each event is stored, found again and handled.
"""

import random
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from sqlalchemy import text

from dkist_processing_core.events import Event
from dkist_processing_core.identity import MAX_NUMBER
from dkist_processing_core.inbox import Database, DeadLetters, Inbox
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival, dead_letter
from tests.strategies import events

Open = Callable[..., Inbox]
# PostgreSQL compresses texts, but not this one.
LONG = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=9000))


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(failed("A", attempt=MAX_NUMBER, max_attempts=MAX_NUMBER), id="attempt"),
        pytest.param(failed("A", run_id=LONG), id="run"),
        pytest.param(failed("A", workflow_version=LONG), id="version"),
        pytest.param(failed(LONG), id="task"),
    ],
)
def test_the_largest_number_and_a_long_text_are_stored(inboxes: Open, event: Event) -> None:
    """
    An event that could not be stored would end its consumer at each start.
    """
    inbox = inboxes(ordered=True)

    inbox.store([arrival(event)])

    assert [row.event for row in inbox.claim(9)] == [event]


def test_any_event_is_stored_and_claimed(inboxes: Open, database: Database) -> None:
    """
    Texts and numbers at their limits fit the columns of each database.
    """
    inbox = inboxes(doubted=frozenset())

    @given(event=events())
    def check(event: Event) -> None:
        # An earlier event may contradict this one.
        with database.transaction() as transaction:
            transaction.execute(text("DELETE FROM dkist_core_inbox"))
        inbox.store([arrival(event)])
        rows = inbox.claim(9)
        inbox.mark_done(rows)
        assert [row.event.id for row in rows] == [event.id]

    check()


def test_long_ids_with_a_common_beginning_are_those_of_separate_runs_and_tasks(inboxes: Open, clock: Clock) -> None:
    """
    A firm end cancels the report of the same attempt alone.
    """
    lost: dict[str, Any] = {"cause": "lost", "reported_by": "engine", "provisional": True}
    inbox = inboxes()
    inbox.store([arrival(failed(f"{LONG}{task}", run_id=f"{LONG}{run}", **lost)) for run in "12" for task in "AB"])

    inbox.store([arrival(finished(f"{LONG}A", run_id=f"{LONG}1"), is_wanted=False)])

    clock.now += 1000
    inbox.believe(clock.now)
    left = [(row.event.run_id[-1], row.event.task_name[-1]) for row in inbox.claim(9)]  # type: ignore[attr-defined]
    assert left == [("1", "B"), ("2", "A"), ("2", "B")]


def test_rows_of_a_run_with_a_long_id_wait_for_its_dead_letter(inboxes: Open, database: Database, clock: Clock) -> None:
    """
    They return when it is retried.
    """
    inbox = inboxes(ordered=True, max_tries=1)
    inbox.store([arrival(failed(task, run_id=LONG)) for task in ("A", "B")])
    dead_letter(inbox, 1, KeyError("missing"))
    held_up = inbox.claim(9)

    DeadLetters(database, clock=clock).retry(every=True)
    inbox.mark_done(inbox.claim(1))

    assert held_up == []
    assert [row.seq for row in inbox.claim(9)] == [2]


def test_a_message_that_the_database_refuses_becomes_a_dead_letter(
    inboxes: Open, database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The others of its batch are stored in their order, and a repetition of it is known.
    """
    inbox = inboxes()
    batch = [arrival(failed(task, run_id=run)) for run, task in ("1A", "1B", "2B", "2C")]
    with database.transaction() as transaction:
        transaction.execute(text("CREATE UNIQUE INDEX planted ON dkist_core_inbox (task) WHERE task = 'B'"))
    try:
        stored = [inbox.store(batch), inbox.store(batch)]
        (letter,) = DeadLetters(database, clock=clock).list()
        DeadLetters(database, clock=clock).retry(every=True)
        rows = inbox.claim(9)
    finally:
        with database.transaction() as transaction:
            transaction.execute(text("DROP INDEX planted"))

    assert [(each.new, each.repeated, each.dead) for each in stored] == [(4, 0, 0), (0, 4, 0)]
    assert (letter.event, letter.body, letter.family) == (failed("B", run_id="2"), batch[2].body, "refused")
    assert "has refused a statement" in (letter.reason or "")
    assert [row.event for row in rows] == [failed("A", run_id="1"), failed("B", run_id="1"), failed("C", run_id="2")]
    assert f"consumer 'consumer': a message is the dead letter i{letter.seq}: " in caplog.text
