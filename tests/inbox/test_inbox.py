"""
The life of a row: stored once, claimed, handled in a transaction with its mark, tried again, dead.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from dkist_processing_core.errors import ClaimLostError
from dkist_processing_core.inbox import Arrival, Counts, Database, Inbox
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival, die, effects, failures, take_effect

Open = Callable[..., Inbox]


def test_a_repeated_key_is_stored_once(inboxes: Open) -> None:
    """
    The bus may deliver a message several times, and several reporters may report an occurrence.
    """
    inbox = inboxes()

    first = inbox.store(failures(3))
    second = inbox.store([*failures(4), arrival(failed("Task0", reported_by="launcher"))])

    assert (first.new, first.repeated) == (3, 0)
    assert (second.new, second.repeated) == (1, 4)


def test_each_report_is_a_row_on_request(inboxes: Open) -> None:
    """
    A consumer that folds all reports gets each one, and no repetition.
    """
    inbox = inboxes(every_report=True)
    reports = [arrival(failed("A", reported_by=reporter)) for reporter in ("task", "launcher", "task")]

    assert inbox.store(reports).new == 2


def test_consumers_have_rows_of_their_own(inboxes: Open) -> None:
    """
    The inboxes of two consumers in one database do not meet.
    """
    one, other = inboxes("one"), inboxes("other")
    one.store(failures(2))

    assert other.store(failures(2)).new == 2
    assert len(one.claim(9)) == len(other.claim(9)) == 2


def test_rows_are_claimed_in_order_of_arrival(inboxes: Open) -> None:
    """
    A claim takes the oldest rows, and no row twice.
    """
    inbox = inboxes()
    inbox.store(failures(5))

    assert [row.event.task_name for row in inbox.claim(2)] == ["Task0", "Task1"]  # type: ignore[attr-defined]
    assert [row.seq for row in inbox.claim(9)] == [3, 4, 5]
    assert inbox.claim(9) == []


def test_an_effect_and_its_mark_are_one_transaction(inboxes: Open, database: Database) -> None:
    """
    A handler that raises leaves no effect and no mark; one that returns leaves both.
    """
    inbox = inboxes()
    inbox.store(failures(2))
    good, bad = inbox.claim(2)

    def handle_badly(transaction: Connection) -> None:
        take_effect(transaction, bad)
        raise KeyError("missing")

    with inbox.handling([good]) as transaction:
        take_effect(transaction, good)
    with pytest.raises(KeyError, match="missing"), inbox.handling([bad]) as transaction:
        handle_badly(transaction)

    assert effects(database) == [good.seq]
    assert inbox.counts() == Counts(waiting=0, claimed=1, parked=0, dead=0, archived=0)


def test_a_failed_row_is_tried_again_after_a_pause(inboxes: Open, clock: Clock) -> None:
    """
    Pauses grow, and other rows are not held up.
    """
    inbox = inboxes(max_tries=3, first_pause=10.0)
    inbox.store(failures(2))
    row, other = inbox.claim(2)
    inbox.mark_done([other])

    assert inbox.fail(row, ValueError("first")).due_at == pytest.approx(clock.now + 7.5, abs=2.5)
    assert inbox.claim(2) == []
    due = inbox.next_due()
    assert due is not None
    clock.now = due
    (row,) = inbox.claim(2)
    assert (row.tries, row.starts) == (1, 1)
    assert inbox.fail(row, ValueError("second")).due_at == pytest.approx(clock.now + 30, abs=10)


def test_a_row_is_dead_after_its_last_try(inboxes: Open, clock: Clock) -> None:
    """
    It is not claimed any more.
    """
    inbox = inboxes(max_tries=2)
    inbox.store(failures(1))
    (row,) = inbox.claim(1)
    inbox.fail(row, ValueError("first"))
    clock.now += 1000
    (row,) = inbox.claim(1)

    assert inbox.fail(row, ValueError("second")).due_at is None
    assert inbox.next_due() is None
    assert inbox.counts().dead == 1


def test_a_message_that_is_no_event_is_dead_at_once(inboxes: Open) -> None:
    """
    Its bytes are kept with the reason, and the same message is stored once.
    """
    inbox = inboxes()

    stored = inbox.store([Arrival(None, b"\xff", "text/plain", {"a": b"\x00"}, reason="the body is not JSON")] * 2)

    assert (stored.new, stored.dead) == (1, 2)
    assert inbox.counts().dead == 1


def test_a_released_row_was_not_started(inboxes: Open) -> None:
    """
    A consumer that ends on request gives back what it has not begun.
    """
    inbox = inboxes()
    inbox.store(failures(1))

    inbox.release(inbox.claim(1))

    assert [row.starts for row in inbox.claim(1)] == [1]


def test_the_rows_of_a_dead_consumer_are_claimed_again_one_at_a_time(inboxes: Open) -> None:
    """
    One of them may have ended it.
    """
    first = inboxes()
    first.store(failures(3))
    rows = first.claim(9)
    die(first)

    again = inboxes()

    assert [(row.seq, row.starts) for row in again.claim(9)] == [(rows[0].seq, 2)]
    assert [(row.seq, row.starts) for row in again.claim(9)] == [(rows[1].seq, 2)]


def test_the_mark_of_a_lost_claim_rolls_the_effect_back(inboxes: Open, database: Database) -> None:
    """
    Where another process has claimed the row in the meantime, that process has the effect.
    """
    first, second = inboxes(), inboxes()
    first.store(failures(1))
    (row,) = first.claim(1)
    die(first)
    (same,) = second.claim(1)

    with pytest.raises(ClaimLostError, match="lost its claim of event 1"), first.handling([row]) as transaction:
        take_effect(transaction, row)
    with second.handling([same]) as transaction:
        take_effect(transaction, same)

    assert effects(database) == [row.seq]


def test_a_report_that_no_handler_wanted_is_handled_if_one_wants_it_now(inboxes: Open) -> None:
    """
    A consumer may get a further handler, and read past events again.
    """
    inbox = inboxes()
    inbox.store([arrival(finished("A"), is_wanted=False)])
    before = inbox.claim(9)

    inbox.store([arrival(finished("A"))])

    assert before == []
    assert [row.event for row in inbox.claim(9)] == [finished("A")]


def test_the_offset_in_the_archive_is_stored_with_the_rows(inboxes: Open) -> None:
    """
    What was verified stays verified.
    """
    inbox = inboxes()
    before = inbox.position().verified
    inbox.store_position(verified=17, bus="RabbitMQ at one")
    first = inbox.position()
    inbox.store_position(verified=23, bus="RabbitMQ at another")

    last = inboxes().position()
    assert (before, first.verified, last.verified) == (None, 17, 23)
    assert (first.bus, last.bus) == ("RabbitMQ at one", "RabbitMQ at another")


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_set_back_holds_up_no_row(inboxes: Open, clock: Clock, *, restarts: bool) -> None:
    """
    A new row is due at once, one with a longer pause than any rule gives as well, and others after their pause.
    """
    # With the minute by which the clock is set back, the pause is still shorter than the longest one.
    inbox = inboxes(longest_pause=900.0, first_pause=600.0)
    inbox.store(failures(3))
    failing, other = inbox.claim(2)
    inbox.fail(failing, OSError("gone"))
    inbox.release([other])
    clock.now -= 60
    if restarts:
        inbox.close()
        inbox = inboxes(longest_pause=900.0, first_pause=600.0)
    fresh = inbox.claim(9)
    inbox.mark_done(fresh)
    clock.now -= 3600

    assert [row.seq for row in fresh] == [2, 3]
    assert [row.seq for row in inbox.claim(9)] == [1]


def test_a_clock_that_is_set_forward_makes_rows_due_early(inboxes: Open, clock: Clock) -> None:
    """
    Nothing is lost by it, and no row is handled twice.
    """
    inbox = inboxes(first_pause=900.0)
    inbox.store(failures(1))
    inbox.fail(inbox.claim(1)[0], OSError("gone"))
    clock.now += 3600

    assert [row.tries for row in inbox.claim(9)] == [1]
    assert inbox.claim(9) == []


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_row_that_is_due_at_once_is_claimed_whatever_the_clock_of_another_host_shows(
    inboxes: Open, clock: Clock, skew: float
) -> None:
    """
    The processes of a consumer may run on several hosts.
    """
    storing, claiming = inboxes(), inboxes()
    before = claiming.claim(9)
    clock.now += skew
    storing.store(failures(2))
    clock.now -= skew

    assert before == []
    assert [row.seq for row in claiming.claim(9)] == [1, 2]


def test_new_rows_do_not_hold_up_one_whose_pause_has_ended(inboxes: Open, clock: Clock) -> None:
    """
    It is handled within a second, however many rows wait.
    """
    inbox = inboxes(first_pause=1.0)
    inbox.store(failures(9))
    inbox.fail(inbox.claim(1)[0], OSError("gone"))
    inbox.release(inbox.claim(2))
    clock.now += 1.5

    assert [row.seq for row in inbox.claim(2)] == [1]
    assert [row.seq for row in inbox.claim(2)] == [2, 3]
