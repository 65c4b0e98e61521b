"""
Timers: work at regular times, once, with its transaction.
"""

from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, text

from dkist_processing_core.errors import InboxError
from dkist_processing_core.inbox import Database, Timers
from tests.inbox.parts import Clock, effects


@pytest.fixture
def timers(database: Database, clock: Clock) -> Timers:
    """
    The timers of a consumer.
    """
    return Timers(database, "consumer", clock=clock)


def work(timers: Timers) -> bool:
    """
    Do the work if it is due, and return whether it was.
    """
    with timers.due("work", 60) as transaction:
        if transaction is None:
            return False
        transaction.execute(text("INSERT INTO effect VALUES (1)"))
    return True


def test_work_is_done_once_in_each_period(timers: Timers, clock: Clock, database: Database) -> None:
    """
    A new timer is due after its period, and missed times are not made up for.
    """
    found = [work(timers)]
    for seconds in (59, 1, 1, 59, 600, 1, 59):
        clock.now += seconds
        found.append(work(timers))

    assert found == [False, False, True, False, True, True, False, True]
    assert effects(database) == [1] * 4


def test_work_that_fails_is_still_due(timers: Timers, clock: Clock, database: Database) -> None:
    """
    Nothing of it remains, and it can be put off.
    """
    start = clock.now
    timers.next_at("work", 60)
    clock.now += 60

    def fail(transaction: Connection | None) -> None:
        assert transaction is not None
        transaction.execute(text("INSERT INTO effect VALUES (1)"))
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing"), timers.due("work", 60) as transaction:
        fail(transaction)
    due = timers.next_at("work", 60)
    timers.postpone("work", 5)

    assert due == start + 60
    assert timers.next_at("work", 60) == clock.now + 5
    assert effects(database) == []


def test_one_process_at_a_time_does_the_work(timers: Timers, clock: Clock, database: Database) -> None:
    """
    Another one passes over it; on SQLite it would wait for the only writer, so the work is finished then.
    """
    timers.next_at("work", 60)
    clock.now += 60
    with ExitStack() as first:
        transaction = first.enter_context(timers.due("work", 60))
        if database.dialect == "sqlite":
            first.close()
        others = work(Timers(database, "consumer", clock=clock))

    assert transaction is not None
    assert others is False


def test_work_without_a_transaction_is_due_until_it_is_done(timers: Timers, clock: Clock) -> None:
    """
    The next time is that of the start of the work, as with a transaction: missed times are not made up for.
    """
    start = clock.now
    timers.next_at("work", 60)
    clock.now += 130
    with pytest.raises(KeyError), timers.due_apart("work", 60) as is_due:
        raise KeyError(is_due)
    with timers.due_apart("work", 60) as is_due_again:
        due_meanwhile = timers.next_at("work", 60) - start
        clock.now += 100
    following = timers.next_at("work", 60) - start
    clock.now = start + 170
    with timers.due_apart("work", 60) as is_due_later:
        pass

    assert (is_due, is_due_again, is_due_later) == (True, True, False)
    assert (due_meanwhile, following) == (60, 180)


def test_work_may_not_end_its_transaction(timers: Timers, clock: Clock) -> None:
    """
    The move of the timer is part of it.
    """
    timers.next_at("work", 60)
    clock.now += 60

    def commit(transaction: Connection | None) -> None:
        assert transaction is not None
        transaction.commit()

    with pytest.raises(InboxError, match=r"called commit\(\)"), timers.due("work", 60) as transaction:
        commit(transaction)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_work_is_due_after_its_period_although_the_clock_was_set(timers: Timers, clock: Clock, jump: float) -> None:
    """
    It does not stand still for the hour by which a clock was set back.
    """
    timers.next_at("work", 60)
    clock.now += jump

    due = timers.next_at("work", 60)

    assert due == (clock.now + 60 if jump < 0 else clock.now - jump + 60)
