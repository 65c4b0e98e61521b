"""
The table of transitions on the page about the inbox: each of its rows is what happens to a row of the inbox.

Not here: the rest of the page (test_page).
"""

import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from dkist_processing_core.inbox import Arrival, Database, DeadLetters, Inbox, Row
from dkist_processing_core.inbox.tables import inbox as rows
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival, die, failures
from tests.inbox.test_page import PAGE

# A database has no difference here, apart from the lock.
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
FIRST, SECOND, THIRD = 1, 2, 3


class World:
    """
    The inbox of one consumer, its processes, and its operator.
    """

    def __init__(self, database: Database, clock: Clock, open_: Callable[..., Inbox]) -> None:
        """
        Open the first process.
        """
        self.clock, self.open = clock, open_
        self.letters = DeadLetters(database, clock=clock)
        self.inbox = open_()

    def restart(self, **rules: object) -> None:
        """
        Kill the process, and start one with these rules.
        """
        die(self.inbox)
        self.inbox = self.open(**rules)

    def held(self, **rules: object) -> Row:
        """
        Return a row that is claimed for the second time, by a process with these rules.
        """
        self.inbox.store(failures(1))
        self.inbox.claim(1)
        self.restart(**rules)
        (row,) = self.inbox.claim(1)
        return row

    def dead(self) -> None:
        """
        Have a row that has ended two processes.
        """
        self.held(max_starts=2)
        self.restart(max_starts=2)
        self.inbox.claim(1)

    def parked(self) -> None:
        """
        Have a row behind one of its run that waits for its next try.
        """
        self.restart(ordered=True)
        self.inbox.store(failures(2))
        (row,) = self.inbox.claim(1)
        self.inbox.fail(row, OSError("gone"))


Move = Callable[[World], Iterator[int]]


def _arrives(world: World) -> Iterator[int]:
    yield FIRST
    world.inbox.store(failures(1))


def _arrives_for_the_store(world: World) -> Iterator[int]:
    world.restart(every_report=True)
    yield FIRST
    world.inbox.store(failures(1), lambda _, __: None)


def _arrives_as_no_event(world: World) -> Iterator[int]:
    yield FIRST
    world.inbox.store([Arrival(None, b"\xff", reason="the body is not JSON")])


def _arrives_unwanted(world: World) -> Iterator[int]:
    yield FIRST
    world.inbox.store([arrival(failed("A"), is_wanted=False)])


def _is_claimed(world: World) -> Iterator[int]:
    world.inbox.store(failures(1))
    yield FIRST
    world.inbox.claim(1)


def _is_handled(world: World) -> Iterator[int]:
    row = world.held()
    yield FIRST
    world.inbox.mark_done([row])


def _fails(world: World) -> Iterator[int]:
    row = world.held()
    yield FIRST
    world.inbox.fail(row, OSError("gone"))


def _fails_at_last(world: World) -> Iterator[int]:
    row = world.held(max_tries=1)
    yield FIRST
    world.inbox.fail(row, OSError("gone"))


def _is_given_back(world: World) -> Iterator[int]:
    row = world.held()
    yield FIRST
    world.inbox.release([row])


def _outlives_its_process(world: World) -> Iterator[int]:
    world.held()
    yield FIRST
    world.restart()
    world.inbox.claim(1)


def _kills_at_last(world: World) -> Iterator[int]:
    world.held(max_starts=2)
    yield FIRST
    world.restart(max_starts=2)
    world.inbox.claim(1)


def _is_held_up(world: World) -> Iterator[int]:
    world.parked()
    yield SECOND
    world.inbox.claim(1)


def _goes_on(world: World) -> Iterator[int]:
    world.parked()
    world.inbox.claim(1)
    world.clock.now += 60
    (row,) = world.inbox.claim(1)
    yield SECOND
    world.inbox.mark_done([row])


def _needs_no_order(world: World) -> Iterator[int]:
    world.parked()
    world.inbox.store(failures(3)[2:])
    world.inbox.claim(1)
    world.restart()
    yield THIRD
    world.inbox.claim(1)


def _is_contradicted(world: World) -> Iterator[int]:
    world.inbox.store([arrival(failed("A", provisional=True))])
    yield FIRST
    world.inbox.store([arrival(finished("A"))])


def _is_retried(world: World) -> Iterator[int]:
    world.dead()
    yield FIRST
    world.letters.retry(FIRST)


def _is_discarded(world: World) -> Iterator[int]:
    world.dead()
    yield FIRST
    world.letters.discard(FIRST)


def _is_archived(world: World) -> Iterator[int]:
    world.dead()
    yield FIRST
    world.letters.archive(FIRST)


def _is_restored(world: World) -> Iterator[int]:
    world.dead()
    world.letters.archive(FIRST)
    yield FIRST
    world.letters.restore(FIRST)


def _is_old(world: World) -> Iterator[int]:
    row = world.held()
    world.inbox.mark_done([row])
    world.clock.now += world.inbox.rules.kept_seconds + 1
    yield FIRST
    world.inbox.prune()


MOVES: dict[str, Move] = {
    "an event arrives": _arrives,
    "a report arrives for the store of runs": _arrives_for_the_store,
    "a message arrives that is no event": _arrives_as_no_event,
    "an end arrives that no function wants": _arrives_unwanted,
    "the row is claimed": _is_claimed,
    "its functions return": _is_handled,
    "a function raises": _fails,
    "a function raises at the last try": _fails_at_last,
    "SIGTERM comes before its functions are called": _is_given_back,
    "its process has died": _outlives_its_process,
    "its process has died at the last start": _kills_at_last,
    "an earlier row of its run is tried again later": _is_held_up,
    "that row is done or discarded": _goes_on,
    "its consumer keeps no order any more": _needs_no_order,
    "a firm report contradicts it": _is_contradicted,
    "`dead-letters retry`": _is_retried,
    "`dead-letters discard`": _is_discarded,
    "`dead-letters archive`": _is_archived,
    "`dead-letters restore`": _is_restored,
    "seven days pass": _is_old,
}
LISTED = {
    what: cells
    for what, *cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.partition("## The transitions")[2].partition("\n## ")[0].splitlines()
        if re.match(r"\| (?!what|--)", line)
    )
}


def test_the_page_lists_each_transition_that_is_tested_here(database: Database) -> None:
    """
    A line of the table without a test would be a claim.
    """
    assert list(LISTED) == list(MOVES)
    assert database.dialect == "sqlite"


@pytest.mark.parametrize("what", MOVES)
def test_a_row_moves_as_the_page_lists(
    database: Database, clock: Clock, inboxes: Callable[..., Inbox], what: str
) -> None:
    """
    Its state, its claim and its starts are compared before and after.
    """
    moves = MOVES[what](World(database, clock, inboxes))
    seq = next(moves)
    before = found(database, seq)
    next(moves, None)

    _, *listed = LISTED[what]
    assert shown(before, found(database, seq)) == listed


Found = tuple[str, int | None, int]


def found(database: Database, seq: int) -> Found | None:
    """
    Return the state, the claim and the starts of a row; None if there is no row.
    """
    with database.reading() as connection:
        row = connection.execute(select(rows.c.state, rows.c.claim, rows.c.starts).where(rows.c.seq == seq)).first()
    return None if row is None else (row.state, row.claim, row.starts)


def shown(before: Found | None, after: Found | None) -> list[str]:
    """
    Return a transition as the page writes it.
    """
    if before is None:
        assert after is not None
        return [f"`{after[0]}`", "none", str(after[2])]
    if after is None:
        return [f"`{before[0]}`, then deleted", "none", ""]
    state = f"`{before[0]}`" if before[0] == after[0] else f"`{before[0]}` → `{after[0]}`"
    claims = ["none" if each is None else "held" for each in (before[1], after[1])]
    claim = claims[0] if before[1] == after[1] else " → ".join(claims)
    match after[2] - before[2]:
        case 0:
            starts = "unchanged"
        case 1 | -1 as change if after[2]:
            starts = "+ 1" if change == 1 else "- 1"
        case _:
            starts = str(after[2])
    return [state, claim, starts]
