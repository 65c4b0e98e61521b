"""
Claims of consumers that die: their rows are claimed again alone, and given up if they end each consumer.
"""

import logging
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import event, text

from dkist_processing_core.errors import ClaimLostError, InboxUnavailableError
from dkist_processing_core.inbox import Database, DeadLetters, Inbox, Rules
from dkist_processing_core.inbox.locks import named_lock
from tests.inbox.parts import Clock, die, effects, failures, locked, opened, take_effect
from tests.waiting import wait_until

Open = Callable[..., Inbox]


def test_a_row_that_ends_each_consumer_is_given_up_and_the_others_are_done(
    inboxes: Open, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Claims of the same batch are not to blame, however often they were claimed beside it.
    """
    killer, deaths = 4, 0
    inbox = inboxes(max_starts=3)
    inbox.store(failures(9))

    done: list[int] = []
    while rows := inbox.claim(6):
        for row in rows:
            if row.seq == killer:
                die(inbox)
                deaths += 1
                inbox = inboxes(max_starts=3)
                break
            inbox.mark_done([row])
            done.append(row.seq)

    (letter,) = DeadLetters(database).list()
    assert deaths == 3
    assert sorted(done) == [1, 2, 3, 5, 6, 7, 8, 9]
    assert (letter.seq, letter.reason) == (killer, "its consumer ended 3 times while it handled this event")
    assert any("is the dead letter i4: its consumer ended 3 times" in record.message for record in caplog.records)


def test_the_last_start_of_a_row_has_no_other_beside_it(inboxes: Open) -> None:
    """
    The death of its consumer must then be its own doing, so other workers wait for a moment.
    """
    inbox = inboxes(max_starts=2)
    inbox.store(failures(3))
    suspect = inbox.claim(1)
    die(inbox)
    inbox = inboxes(max_starts=2)

    alone = inbox.claim(9)
    beside = inbox.claim(9)
    inbox.mark_done(alone)
    after = inbox.claim(9)

    assert [row.seq for row in alone] == [row.seq for row in suspect]
    assert beside == []
    assert [row.seq for row in after] == [2, 3]


def test_a_suspect_waits_until_the_others_are_handled(inboxes: Open, database: Database, clock: Clock) -> None:
    """
    A consumer that has claimed rows takes no row that may end it.
    """
    one = inboxes(max_starts=2)
    one.store(failures(2))
    if database.dialect == "sqlite":
        (first,) = one.claim(1)
        die(one)
        other = inboxes(max_starts=2)
        assert [row.seq for row in other.claim(9)] == [first.seq]
        return
    one.claim(1)
    other = inboxes(max_starts=2)
    held = other.claim(1)
    die(one)
    clock.now += 10

    before = other.claim(9)
    other.mark_done(held)

    assert before == []
    assert [row.seq for row in other.claim(9)] == [1]


def test_a_failure_takes_back_the_suspicion(inboxes: Open, clock: Clock) -> None:
    """
    A handler that raised did not end its consumer.
    """
    inbox = inboxes(max_starts=2, first_pause=1.0)
    inbox.store(failures(1))
    inbox.claim(1)
    die(inbox)
    inbox = inboxes(max_starts=2, first_pause=1.0)
    (row,) = inbox.claim(1)

    inbox.fail(row, OSError("gone"))

    clock.now += 10
    (again,) = inbox.claim(1)
    assert (row.starts, again.starts, again.tries) == (2, 1, 1)


def test_processes_of_a_consumer_on_sqlite_take_turns(inboxes: Open, database: Database) -> None:
    """
    On PostgreSQL they share the rows; only one of them stores arrivals in both cases.
    """
    one, other = inboxes(), inboxes()
    one.store(failures(4))

    assert one.become_intake()
    assert not other.become_intake()
    assert len(one.claim(2)) == 2
    assert len(other.claim(9)) == (0 if database.dialect == "sqlite" else 2)

    die(one)

    assert other.become_intake()


def test_a_claimer_that_lost_its_session_keeps_its_claims(
    inbox_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its rows are neither handled twice nor held for a death that did not happen.
    """
    with opened(inbox_url) as database, closing(Inbox(database, Rules("lost"), clock=clock)) as inbox:
        inbox.store(failures(3))
        held = inbox.claim(2)
        with database.transaction() as transaction:
            transaction.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))

        with pytest.raises(InboxUnavailableError, match="cannot be used now"):
            inbox.claim(1)
        rest = inbox.claim(9)
        for row in held:
            with inbox.handling([row]) as transaction:
                take_effect(transaction, row)

        assert [row.seq for row in rest] == [3]
        assert effects(database) == [1, 2]
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("outcome", ["done", "failed", "released"])
def test_an_outcome_is_recorded_while_the_claims_move_to_a_new_session(
    inbox_url: str, clock: Clock, outcome: str
) -> None:
    """
    The statement of the outcome has the number of the lost session, and comes after the move.
    """
    with opened(inbox_url) as database, closing(Inbox(database, Rules("lost"), clock=clock)) as inbox:
        inbox.store(failures(1))
        (row,) = inbox.claim(1)
        moves = [True]

        @event.listens_for(database.engine, "before_cursor_execute")
        def move(*of: object) -> None:
            if moves and str(of[2]).startswith("UPDATE dkist_core_inbox SET"):
                moves.clear()
                with database.reading() as connection:
                    connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype='advisory'"))
                wait_until(lambda: locked(database) == [], every=0.001)
                with pytest.raises(InboxUnavailableError):
                    inbox.claim(1)
                assert inbox.claim(1) == []

        match outcome:
            case "done":
                inbox.mark_done([row])
            case "failed":
                inbox.fail(row, OSError("gone"))
            case _:
                inbox.release([row])

        counts = inbox.counts()
        assert (counts.claimed, counts.waiting) == (0, 0 if outcome == "done" else 1)


def test_the_last_start_of_a_consumer_that_gives_up_at_once_has_no_other_row_beside_it(
    inboxes: Open, database: Database
) -> None:
    """
    With `max_starts=1` the first start is the last one: rows that its end finds beside it would be dead as well.
    """
    inbox = inboxes(max_starts=1)
    inbox.store(failures(5))
    (killer,) = inbox.claim(5)
    assert inbox.claim(5) == []
    die(inbox)
    inbox = inboxes(max_starts=1)

    done = []
    while rows := inbox.claim(5):
        inbox.mark_done(rows)
        done.append([row.seq for row in rows])

    assert [letter.seq for letter in DeadLetters(database).list()] == [killer.seq]
    assert done == [[2], [3], [4], [5]]


def test_a_session_without_the_lock_goes_back_as_it_was(inbox_url: str) -> None:
    """
    The statements of handlers run on it next, and the plans of the inbox are not theirs.
    """
    with opened(inbox_url) as database:
        held, refused = named_lock(database, "one"), named_lock(database, "one")
        try:
            assert held.acquire()
            assert not refused.acquire()
            with held.transaction() as connection:
                of_the_holder = connection.scalar(text("SHOW enable_seqscan"))
        finally:
            held.release()
        with database.transaction() as first, database.transaction() as second:
            of_others = [each.scalar(text("SHOW enable_seqscan")) for each in (first, second)]

    assert of_the_holder == "off"
    assert of_others == ["on", "on"]


def test_a_row_that_another_process_has_claimed_meanwhile_is_lost(inboxes: Open) -> None:
    """
    Neither its mark nor its failure is recorded by the process that lost it.
    """
    one, other = inboxes(), inboxes()
    one.store(failures(2))
    first, second = one.claim(2)
    die(one)
    (taken,) = other.claim(1)
    other.mark_done([taken])

    with pytest.raises(ClaimLostError, match="lost its claim of event 1"):
        one.mark_done([first])
    with pytest.raises(ClaimLostError, match="lost its claim of event 2"):
        one.fail(second, OSError("gone"))
    one.release([second])

    assert [row.starts for row in other.claim(9)] == [2]


def test_rows_of_an_ended_process_are_freed_after_a_transaction_was_refused(inboxes: Open, database: Database) -> None:
    """
    The first try has freed nothing, so the next claim does not wait until others are looked for again.
    """
    one = inboxes()
    one.store(failures(1))
    (row,) = one.claim(1)
    die(one)
    other, refusals = inboxes(), ["the disk is full"]
    assert other.become_claimer()

    @event.listens_for(database.engine, "commit")
    def refuse(_: object) -> None:
        if refusals:
            raise InboxUnavailableError(refusals.pop())

    with pytest.raises(InboxUnavailableError):
        other.claim(1)

    assert [each.seq for each in other.claim(1)] == [row.seq]
