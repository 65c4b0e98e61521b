"""
Provisional reports: what replaces and cancels them, and when they are believed.

Not here: the proof that lets them be believed (tests.consumer.test_acting), and random histories (test_histories).
"""

from collections.abc import Callable
from typing import Any

import pytest

from dkist_processing_core.events import TaskEvent
from dkist_processing_core.inbox import Database, DeadLetters, Inbox, Row
from tests.facts import failed, finished, progressed
from tests.inbox.parts import Clock, arrival, dead_letter, die

Open = Callable[..., Inbox]
_LOST: dict[str, Any] = {"cause": "lost", "reported_by": "engine", "provisional": True}


def test_a_firm_report_replaces_a_provisional_one(inboxes: Open, clock: Clock) -> None:
    """
    The handler gets the firm one, at once.
    """
    inbox = inboxes()
    inbox.store([arrival(failed("A", **_LOST))])
    before = inbox.claim(1)
    waiting_until = inbox.next_due()

    inbox.store([arrival(failed("A", cause="out_of_memory"))])

    (row,) = inbox.claim(1)
    assert before == []
    assert waiting_until == clock.now + 60
    assert row.event == failed("A", cause="out_of_memory")


@pytest.mark.parametrize("is_firm_first", [True, False])
def test_a_firm_end_of_another_type_cancels_a_provisional_report(
    inboxes: Open, clock: Clock, *, is_firm_first: bool
) -> None:
    """
    The engine was wrong: no handler gets its report, in whichever order the two arrive.
    """
    inbox = inboxes()
    provisional = arrival(failed("A", **_LOST))
    firm = arrival(finished("A"), is_wanted=False)

    for each in (firm, provisional) if is_firm_first else (provisional, firm):
        inbox.store([each])

    clock.now += 1000
    inbox.believe(clock.now)
    assert inbox.claim(9) == []
    assert inbox.next_due() is None


def test_a_firm_report_of_a_cancelled_one_is_handled_in_its_own_place(inboxes: Open, clock: Clock) -> None:
    """
    Two processes report different ends of an attempt: the consumer gets both, as they arrived.
    """
    inbox = inboxes(ordered=True)
    inbox.store([arrival(failed("A", **_LOST))])
    inbox.store([arrival(finished("A"))])

    inbox.store([arrival(failed("A", **_LOST)), arrival(failed("A"))])

    clock.now += 1000
    assert [row.event for row in inbox.claim(9)] == [finished("A"), failed("A")]


@pytest.mark.parametrize("is_lost_first", [True, False])
@pytest.mark.parametrize(
    ("other", "handled"),
    [
        pytest.param(failed("A", attempt=2, final=True), [2], id="firm and final"),
        pytest.param(failed("A", attempt=2, final=True, **_LOST), [2], id="provisional and final"),
        pytest.param(finished("A", attempt=2), [2], id="success"),
        pytest.param(failed("A", attempt=2, final=False), [2, None], id="another attempt follows"),
        pytest.param(failed("A", attempt=2, final=None), [2, None], id="unknown whether one follows"),
        pytest.param(failed("B", attempt=2, final=True), [2, None], id="another task"),
    ],
)
def test_a_report_of_the_last_attempt_is_needless_beside_the_final_end_of_the_task(
    inboxes: Open, clock: Clock, other: TaskEvent, handled: list[int | None], *, is_lost_first: bool
) -> None:
    """
    The engine reports a task as lost without a number, so under another id, and one end is handled once.
    """
    inbox = inboxes()
    lost = failed("A", attempt=None, **_LOST)

    for each in (lost, other) if is_lost_first else (other, lost):
        inbox.store([arrival(each)])

    clock.now += 1000
    inbox.believe(clock.now)
    attempts = [row.event.attempt for row in inbox.claim(9) if isinstance(row.event, TaskEvent)]
    assert sorted(attempts, key=str) == handled


def test_a_report_of_the_last_attempt_counts_where_the_final_end_was_cancelled(inboxes: Open, clock: Clock) -> None:
    """
    A firm success of the first attempt cancels both reports of the engine.
    """
    inbox = inboxes()
    inbox.store([arrival(failed("A", attempt=None, **_LOST)), arrival(failed("A", **_LOST))])
    inbox.store([arrival(finished("A"), is_wanted=False)])

    clock.now += 1000
    inbox.believe(clock.now)
    assert inbox.claim(9) == []


@pytest.mark.parametrize("ordered", [False, True])
def test_a_provisional_report_waits_until_everything_is_stored_that_was_on_the_bus_when_it_was_due(
    inboxes: Open, clock: Clock, *, ordered: bool
) -> None:
    """
    In each process. With an order the later rows of its run wait as well.
    """
    inbox, begin = inboxes(ordered=ordered), clock.now
    inbox.store([arrival(failed("A", **_LOST)), *([arrival(progressed("A", 0))] if ordered else [])])
    clock.now += 1000
    inbox.believe(begin + 59)
    other = inbox if inbox.takes_turns else inboxes(ordered=ordered)
    early, due_at, is_doubted = other.claim(9), other.next_due(), inbox.is_any_doubted()

    inbox.believe(begin + 60)

    assert (early, due_at, is_doubted) == ([], None, True)
    assert not inbox.is_any_doubted()
    assert [row.event for row in other.claim(1)] == [failed("A", **_LOST)]


@pytest.mark.parametrize("leave", [Inbox.release, lambda inbox, _: die(inbox)], ids=["release", "die"])
def test_a_provisional_report_that_was_contradicted_before_its_process_ended_is_not_handled_again(
    inboxes: Open, clock: Clock, leave: Callable[[Inbox, list[Row]], None]
) -> None:
    """
    Another process does not take it, however the first one has ended.
    """
    inbox = inboxes()
    inbox.store([arrival(failed("A", **_LOST))])
    clock.now += 60
    inbox.believe(clock.now)
    rows = inbox.claim(9)
    inbox.store([arrival(finished("A"), is_wanted=False)])
    leave(inbox, rows)
    inbox.close()
    other = inboxes()
    unproved = other.claim(9)

    other.believe(clock.now)

    assert (unproved, other.claim(9)) == ([], [])


@pytest.mark.parametrize("max_tries", [1, 2])
def test_a_provisional_report_that_was_contradicted_during_its_handling_is_not_handled_again(
    inboxes: Open, database: Database, clock: Clock, max_tries: int
) -> None:
    """
    Neither after a failed try nor as a dead letter that an operator retries.
    """
    inbox = inboxes(max_tries=max_tries)
    inbox.store([arrival(failed("A", **_LOST)), arrival(failed("B", **_LOST))])
    clock.now += 60
    inbox.believe(clock.now)
    rows = inbox.claim(9)
    inbox.store([arrival(finished("A"), is_wanted=False)])
    for row in rows:
        inbox.fail(row, OSError("gone"))
    clock.now += 1000
    DeadLetters(database, clock=clock).retry(every=True)
    unproved = inbox.claim(9)

    inbox.believe(clock.now)

    assert unproved == []
    assert [row.event for row in inbox.claim(9)] == [failed("B", **_LOST)]


@pytest.mark.parametrize("archived", [False, True])
def test_a_firm_report_takes_the_place_of_a_dead_provisional_one(
    inboxes: Open, database: Database, clock: Clock, *, archived: bool
) -> None:
    """
    It is still a dead letter. A retry handles what is known best.
    """
    inbox, letters = inboxes(max_tries=1), DeadLetters(database, clock=clock)
    inbox.store([arrival(failed("A", **_LOST))])
    clock.now += 60
    inbox.believe(clock.now)
    (seq,) = dead_letter(inbox, 1, OSError("gone"))
    if archived:
        letters.archive(seq)

    inbox.store([arrival(failed("A", cause="out_of_memory"))])

    counts, early = inbox.counts(), inbox.claim(9)
    letters.retry(seq)
    assert (counts.dead, counts.archived, early) == (int(not archived), int(archived), [])
    assert [row.event for row in inbox.claim(9)] == [failed("A", cause="out_of_memory")]
