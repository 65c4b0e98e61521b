"""
Each statement of the inbox uses an index that was made for it, however many rows there are.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from dkist_processing_core.inbox import Arrival, Database, DeadLetters, Inbox
from dkist_processing_core.inbox.counts import oldest_due
from tests.facts import failed, finished, progressed
from tests.inbox.parts import Clock, arrival, die, failures

Open = Callable[..., Inbox]
# The tables of consumers and timers have few rows.
_LARGE = "dkist_core_inbox"


@contextmanager
def plans(database: Database) -> Iterator[dict[str, list[str]]]:
    """
    Yield the plans of the statements on the inbox that are executed meanwhile, by their text.
    """
    found: dict[str, list[str]] = {}
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "

    def listen(_1: Connection, cursor: Any, statement: str, parameters: Any, _2: Any, many: bool) -> None:  # noqa: FBT001
        if _LARGE not in statement or statement.startswith(explain) or "INSERT" in statement:
            return
        values = parameters[0] if many else parameters
        with closing(cursor.connection.cursor()) as own:
            if database.dialect == "postgresql":
                # A table with few rows is read as a whole, even if there is an index.
                own.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            own.execute(explain + statement, values)
            found[statement] = [str(row[-1]) for row in own.fetchall()]

    event.listen(database.engine, "before_cursor_execute", listen)
    yield found
    event.remove(database.engine, "before_cursor_execute", listen)


def use_all(database: Database, inboxes: Open, clock: Clock, *, ordered: bool) -> None:
    """
    Execute each statement of the inbox.
    """
    inbox = inboxes("used", ordered=ordered, max_tries=2)
    inbox.become_intake()
    provisional = failed("P", cause="lost", reported_by="engine", provisional=True, run_id="p")
    inbox.store([arrival(provisional), arrival(progressed("P", 1, run_id="p")), Arrival(None, b"", reason="none")])
    inbox.store([arrival(finished("P", run_id="p")), *failures(30)])
    inbox.store(failures(30))
    inbox.store_position(verified=3)
    inbox.claim(5)
    die(inbox)
    clock.now += 100
    inbox = inboxes("used", ordered=ordered, max_tries=2)
    for _ in range(12):
        rows = inbox.claim(5)
        for row in rows[:1]:
            inbox.fail(row, OSError("gone"))
        inbox.release(rows[1:2])
        if len(rows) > 2:
            inbox.mark_done(rows[2:])
        clock.now += 1000
    inbox.store([arrival(failed("Q", cause="lost", reported_by="engine", provisional=True))])
    clock.now += 1000
    inbox.is_any_doubted()
    inbox.believe(clock.now)
    inbox.next_due()
    inbox.counts()
    with database.reading() as connection:
        oldest_due(connection, "used", clock())
    letters = DeadLetters(database, clock=clock)
    for letter in [group.newest for group in letters.groups()]:
        letters.show(letter.seq)
        letters.list(letter.family)
        letters.archive(family=letter.family)
        letters.restore(every=True)
    one = DeadLetters(database, "used", clock=clock)
    one.list()
    one.list(one.list()[0].family)
    one.retry(one.list()[0].seq)
    one.discard(every=True)
    clock.now += 10**7
    inbox.prune()


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
def test_no_statement_reads_the_whole_table(database: Database, inboxes: Open, clock: Clock, *, ordered: bool) -> None:
    """
    Handled rows are kept for days: their number must not slow anything.
    """
    with plans(database) as found:
        use_all(database, inboxes, clock, ordered=ordered)

    whole = re.compile(
        r"Seq Scan on dkist_core_inbox|SCAN dkist_core_inbox$|_key \(consumer=\?\)"
        r"|_pkey on [^\n]*\n(?! *Index Cond:)|_inbox_key on [^\n]*\n(?! *Index Cond: .*\(key = )",
        flags=re.MULTILINE,
    )
    assert len(found) > 15
    assert {text: plan for text, plan in found.items() if whole.search("\n".join(plan))} == {}
