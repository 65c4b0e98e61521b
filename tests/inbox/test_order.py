"""
The order within runs: rows wait for the earlier ones of their run, and other runs go on.
"""

from collections.abc import Callable

import pytest

from dkist_processing_core.inbox import Database, DeadLetters, Inbox, Row
from tests.facts import failed, finished, progressed
from tests.inbox.parts import Clock, arrival, die

Open = Callable[..., Inbox]


@pytest.fixture
def inbox(inboxes: Open) -> Inbox:
    """
    An ordered inbox with three rows of run `a` and one of run `b`.
    """
    opened = inboxes(ordered=True, max_tries=2, first_pause=10.0)
    opened.store([arrival(progressed("T", number, run_id="a")) for number in range(3)])
    opened.store([arrival(progressed("T", 0, run_id="b"))])
    return opened


def runs(rows: list[Row]) -> list[tuple[str, int]]:
    """
    Return the runs and numbers of rows.
    """
    return [(row.event.run_id, int(row.event.number)) for row in rows]


def test_the_beginning_of_a_run_is_claimed_together(inbox: Inbox) -> None:
    """
    A batch for one worker keeps its order, and no other worker gets a later row of the run meanwhile.
    """
    assert runs(inbox.claim(2)) == [("a", 0), ("a", 1)]
    assert runs(inbox.claim(9)) == [("b", 0)]
    assert inbox.claim(9) == []


def test_a_run_goes_on_when_its_claimed_rows_are_done(inbox: Inbox) -> None:
    """
    The next row is claimed after the mark of those before it.
    """
    inbox.mark_done(inbox.claim(2))

    assert runs(inbox.claim(9)) == [("a", 2), ("b", 0)]


def test_a_waiting_row_parks_the_later_ones_of_its_run(inbox: Inbox, clock: Clock) -> None:
    """
    Other runs go on meanwhile, and the parked rows are no work to wait for.
    """
    first, *others = inbox.claim(9)
    inbox.fail(first, OSError("gone"))
    inbox.release([row for row in others if row.event.run_id == "a"])
    inbox.mark_done([row for row in others if row.event.run_id == "b"])

    assert inbox.claim(9) == []
    assert inbox.counts().parked == 2
    due = inbox.next_due()
    assert due is not None
    assert due > clock.now
    clock.now = due
    again = inbox.claim(9)
    assert runs(again) == [("a", 0)]
    inbox.mark_done(again)
    assert runs(inbox.claim(9)) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_a_dead_row_parks_its_run_until_an_operator_decides(
    inbox: Inbox, database: Database, clock: Clock, decision: str
) -> None:
    """
    The rest of the run is released by the retry, or by giving the row up; it stays parked while archived.
    """
    letters = DeadLetters(database, clock=clock)
    for _ in range(2):
        first, *others = inbox.claim(9)
        inbox.fail(first, OSError("gone"))
        inbox.release(others)
        clock.now += 1000
    letters.archive(first.seq)
    parked = runs(inbox.claim(9))

    getattr(letters, decision)(first.seq)

    rest = [("a", 0), ("a", 1), ("a", 2)]
    found = []
    while rows := inbox.claim(9):
        inbox.mark_done(rows)
        found += runs(rows)
    assert parked == [("b", 0)]
    assert found == (rest if decision == "retry" else rest[1:])


def test_an_arrival_behind_a_dead_row_is_parked(inbox: Inbox, clock: Clock) -> None:
    """
    It does not keep the consumer from being idle.
    """
    for _ in range(2):
        first, *others = inbox.claim(9)
        inbox.fail(first, OSError("gone"))
        inbox.release(others)
        clock.now += 1000
    inbox.mark_done(inbox.claim(9))

    inbox.store([arrival(progressed("T", 9, run_id="a"))])

    assert inbox.claim(9) == []
    assert inbox.next_due() is None
    assert inbox.counts().parked == 3


@pytest.mark.parametrize("firm", [failed("T", run_id="c"), finished("T", run_id="c")], ids=["replaced", "cancelled"])
def test_rows_behind_a_provisional_report_go_on_when_a_firm_one_comes(inbox: Inbox, firm: object, clock: Clock) -> None:
    """
    The order of arrival holds for a report that waits, too.
    """
    inbox.mark_done(inbox.claim(9))
    provisional = failed("T", run_id="c", cause="lost", reported_by="engine", provisional=True)
    inbox.store([arrival(provisional), arrival(progressed("T", 0, run_id="c"))])
    before = inbox.claim(9)
    waiting_until = inbox.next_due()

    inbox.store([arrival(firm)])  # type: ignore[arg-type]

    after = inbox.claim(9)
    assert before == []
    assert waiting_until == clock.now + 60
    assert [row.event.name for row in after] == (
        ["task.failed", "task.progressed"] if firm.name == "task.failed" else ["task.progressed", "task.finished"]  # type: ignore[attr-defined]
    )


def test_a_provisional_report_that_is_taken_lets_its_run_go_on(inbox: Inbox, clock: Clock) -> None:
    """
    No firm one came.
    """
    inbox.mark_done(inbox.claim(9))
    provisional = failed("T", run_id="c", cause="lost", reported_by="engine", provisional=True)
    inbox.store([arrival(provisional), arrival(progressed("T", 0, run_id="c"))])
    before = inbox.claim(9)
    clock.now += 60
    inbox.believe(clock.now)

    found = []
    while rows := inbox.claim(9):
        inbox.mark_done(rows)
        found += [row.event.name for row in rows]

    assert before == []
    assert found == ["task.failed", "task.progressed"]


def test_rows_of_a_dead_consumer_keep_their_order(inbox: Inbox, inboxes: Open, clock: Clock) -> None:
    """
    A row that was claimed behind one that failed is not handled before it.
    """
    first, *_ = inbox.claim(9)
    inbox.fail(first, OSError("gone"))
    die(inbox)
    second = inboxes(ordered=True)

    early = [runs(second.claim(9)), runs(second.claim(9))]
    clock.now += 1000
    found = []
    while rows := second.claim(9):
        second.mark_done(rows)
        found += runs(rows)

    assert early == [[("b", 0)], []]
    assert found == [("a", 0), ("a", 1), ("a", 2)]


def test_a_consumer_that_keeps_no_order_any_more_handles_what_was_parked(inbox: Inbox, inboxes: Open) -> None:
    """
    Its former declaration has parked rows, and so does an older process that has an order still.
    """
    first, *others = inbox.claim(9)
    inbox.fail(first, OSError("gone"))
    inbox.release(others)
    inbox.mark_done(inbox.claim(9))
    parked = inbox.counts().parked
    die(inbox)
    second = inboxes()

    found = runs(second.claim(9))

    assert parked == 2
    assert found == [("a", 1), ("a", 2)]
    assert second.counts().parked == 0
