"""
Random histories of two consumers that share an inbox, compared with what was stored and what became of it.
"""

import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dkist_processing_core.events import Event, TaskFailed
from dkist_processing_core.inbox import Database, DeadLetters, Inbox, Row, Rules
from tests.facts import failed, finished, progressed
from tests.inbox.parts import Clock, arrival, die, effects, opened, take_effect

MAX_TRIES, MAX_STARTS, PROVISIONAL = 2, 3, 60.0
_runs, _tasks = st.sampled_from(["a", "b"]), st.sampled_from(["T", "U", "V"])
# Few different events, so that repetitions and contradictions are frequent.
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(lambda run, number: progressed("T", number, run_id=run), _runs, st.integers(0, 5)),
    st.builds(lambda task, run: finished(task, run_id=run), _tasks, _runs),
    st.builds(lambda task, run: failed(task, run_id=run), _tasks, _runs),
    st.builds(
        lambda task, run: failed(task, run_id=run, cause="lost", reported_by="engine", provisional=True), _tasks, _runs
    ),
)
_some_events = st.lists(_events, min_size=1, max_size=4)
_sides = st.integers(0, 1)


class Histories(RuleBasedStateMachine):
    """
    A bus, two processes of one consumer, a clock, and an operator.
    """

    database: Database
    ordered: bool

    def __init__(self) -> None:
        """
        Nothing has arrived.
        """
        super().__init__()
        self.clock = Clock()
        self.of_consumer = Rules(
            "consumer", ordered=self.ordered, max_tries=MAX_TRIES, max_starts=MAX_STARTS, provisional_after=PROVISIONAL
        )
        self.inboxes = [self.new_inbox(), self.new_inbox()]
        self.held: list[list[Row]] = [[], []]
        self.bus: list[Event] = []
        self.published_at: dict[str, float] = {}
        self.stored: dict[str, tuple[float, Event]] = {}
        self.handled: list[tuple[int, Event]] = []
        self.tries: Counter[int] = Counter()
        self.starts: Counter[int] = Counter()

    def new_inbox(self) -> Inbox:
        """
        Return the inbox of a new process.
        """
        return Inbox(self.database, self.of_consumer, clock=self.clock)

    @rule(events=_some_events)
    def publish(self, events: list[Event]) -> None:
        """
        Messages reach the bus, some of them again.
        """
        self.bus += events
        for event in events:
            if not getattr(event, "provisional", False):
                self.published_at.setdefault(event.id, self.clock.now)

    @rule(events=_some_events, side=_sides)
    def store(self, events: list[Event], side: int) -> None:
        """
        Everything on the bus arrives.
        """
        self.publish(events)
        events, self.bus = self.bus, []
        self.inboxes[side].store([arrival(event) for event in events])
        for event in events:
            known = self.stored.get(event.id)
            if known is None or (getattr(known[1], "provisional", False) and not getattr(event, "provisional", False)):
                self.stored[event.id] = (self.clock.now, event)

    @rule(side=_sides)
    def believe(self, side: int) -> None:
        """
        The process that receives stores everything, and has the proof of that.
        """
        self.store([], side)
        self.inboxes[side].believe(self.clock.now)

    @rule(side=_sides, limit=st.integers(1, 4))
    def claim(self, side: int, limit: int) -> None:
        """
        A process claims rows that it may have.
        """
        rows = self.inboxes[side].claim(limit)
        assert len(rows) <= limit
        held = {row.seq for each in self.held for row in each}
        for row in rows:
            assert row.seq not in held
            assert row.tries == self.tries[row.seq]
            assert row.starts == self.starts[row.seq] + 1 <= MAX_STARTS
            self.check_provisional(row)
        assert len(rows) == 1 or all(row.starts == 1 for row in rows)
        self.held[side] += rows

    def check_provisional(self, row: Row) -> None:
        """
        Check that a provisional report had its time, and that no firm one had come to the bus or the inbox.
        """
        event = row.event
        if isinstance(event, TaskFailed) and event.provisional:
            stored_at, known = self.stored[event.id]
            due_at, other = stored_at + PROVISIONAL, finished(event.task_name, run_id=event.run_id)
            assert known == event
            assert self.clock.now >= due_at
            assert other.id not in self.stored
            assert all(self.published_at.get(each.id, math.inf) >= due_at for each in (event, other))

    @precondition(lambda self: any(self.held))
    @rule(side=_sides)
    def handle(self, side: int) -> None:
        """
        A handler returns.
        """
        for row in self.held[side][:1]:
            with self.inboxes[side].handling([row]) as transaction:
                take_effect(transaction, row)
            self.held[side].remove(row)
            self.handled.append((row.seq, row.event))

    @precondition(lambda self: any(self.held))
    @rule(side=_sides)
    def fail(self, side: int) -> None:
        """
        A handler raises; what was claimed behind it in its run is given back.
        """
        for row in self.held[side][:1]:
            self.inboxes[side].fail(row, KeyError("missing"))
            self.tries[row.seq] += 1
            self.starts[row.seq] = 0
            self.held[side].remove(row)
            self.release(side)

    @precondition(lambda self: any(self.held))
    @rule(side=_sides)
    def release(self, side: int) -> None:
        """
        A process ends on request.
        """
        self.inboxes[side].release(self.held[side])
        self.held[side] = []

    @rule(side=_sides)
    def kill(self, side: int) -> None:
        """
        A process is killed, and another one begins.
        """
        die(self.inboxes[side])
        for row in self.held[side]:
            self.starts[row.seq] += 1
        self.held[side] = []
        self.inboxes[side] = self.new_inbox()

    @rule(seconds=st.sampled_from([0.5, 61.0]))
    def wait(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.clock.now += seconds

    @rule()
    def retry(self) -> None:
        """
        An operator retries all dead letters.
        """
        letters = DeadLetters(self.database, clock=self.clock)
        for letter in letters.list():
            assert letter.tries == self.tries[letter.seq]
            assert letter.tries == MAX_TRIES or letter.starts == MAX_STARTS
            self.tries[letter.seq] = self.starts[letter.seq] = 0
        letters.retry(every=True)

    @invariant()
    def effects_are_those_of_handled_rows(self) -> None:
        """
        Each effect is there once, and no other.
        """
        assert effects(self.database) == sorted(seq for seq, _ in self.handled)
        assert len({seq for seq, _ in self.handled}) == len(self.handled)

    @invariant()
    def rows_of_a_run_are_handled_in_order(self) -> None:
        """
        If the consumer asks for it.
        """
        for run in ("a", "b") if self.ordered else ():
            seqs = [seq for seq, event in self.handled if event.run_id == run]
            assert seqs == sorted(seqs)

    def teardown(self) -> None:
        """
        At last everything is handled that was not contradicted.
        """
        try:
            self.finish()
        finally:
            for inbox in self.inboxes:
                inbox.close()

    def finish(self) -> None:
        """
        Kill both processes, and let another one handle all the rest.
        """
        self.store([], 0)
        for side in (0, 1):
            self.kill(side)
        last = self.inboxes[0]
        for _ in range(MAX_STARTS + 1):
            self.clock.now += 10_000
            self.retry()
            self.believe(0)
            while rows := last.claim(4):
                self.held[0] += rows
                while self.held[0]:
                    self.handle(0)
        counts = last.counts()
        assert (counts.waiting, counts.claimed, counts.parked, counts.dead) == (0, 0, 0, 0)
        handled = Counter(event.id for _, event in self.handled)
        for key, (_, event) in self.stored.items():
            if isinstance(event, TaskFailed) and event.provisional:
                contradicted = finished(event.task_name, run_id=event.run_id).id in self.stored
                assert handled[key] == 1 or (contradicted and not handled[key])
            else:
                assert handled[key] == 1
        self.effects_are_those_of_handled_rows()
        self.rows_of_a_run_are_handled_in_order()


@pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
def test_whatever_happens_each_event_has_its_effect_once(
    request: pytest.FixtureRequest, database: Database, *, ordered: bool
) -> None:
    """
    Over arrivals, failures, kills, releases and retries, in any order, by two processes.
    """
    url, examples = (request.getfixturevalue("inbox_url"), 8) if database.dialect == "postgresql" else (None, 20)
    database.close()

    class OfDatabase(Histories):
        def __init__(self) -> None:
            self._opened = opened(url)
            type(self).database = self._opened.__enter__()
            type(self).ordered = ordered
            with self.database.transaction() as transaction:
                transaction.exec_driver_sql("DELETE FROM dkist_core_inbox")
            super().__init__()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                self._opened.__exit__(None, None, None)

    run_state_machine_as_test(
        OfDatabase, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )
