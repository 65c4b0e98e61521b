"""
The storm control: what is reported when, and that nothing is lost or reported twice.

Not here: storing it (test_counting), and the texts (test_wording).
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dkist_processing_core.notify.grouping import MOST_GROUPS, Draft, Fold
from dkist_processing_core.notify.groups import Mutes, RouteState, Rule
from dkist_processing_core.notify.occurrences import Alarm, Occurrence

WINDOW, CLEAR_AFTER = 300.0, 900.0
RULE = Rule(window=WINDOW, clear_after=CLEAR_AFTER)
NOTHING = Mutes()


def failure(family: str | None = "A", **facts: Any) -> Occurrence:
    """
    Return a failure of a family.
    """
    given: dict[str, Any] = {"event": "task.failed", "group": f"task.failed {family}", "family": family, "at": 0.0}
    given |= {"workflow": "W", "version": "1", "run_id": "r", "task": "T", "summary": "it failed"}
    return Occurrence(**given | facts)


def overdue(sequence: int, run_id: str = "r") -> Occurrence:
    """
    Return an alarm about an attempt, or with an odd sequence its withdrawal.
    """
    alarm = Alarm(key=run_id, sequence=sequence, workflow="W", version="1", run_id=run_id, task="T", attempt=1)
    return failure(event="task.overdue", group="task.overdue T", family=None, run_id=run_id, alarm=alarm)


class Route:
    """
    A route whose clock the test moves.
    """

    def __init__(self, rule: Rule = RULE) -> None:
        """
        Begin without groups.
        """
        self.state, self.rule, self.now, self.mutes = RouteState("s"), rule, 1000.0, NOTHING

    def fold(self, *occurrences: Occurrence, after: float = 0.0, ended: tuple[Occurrence, ...] = ()) -> list[Draft]:
        """
        Return the notices that are due when so much time has passed; the state is stored in between.
        """
        self.now += after
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=RouteState)
        return Fold(self.state, self.rule, self.now, self.mutes).add(
            occurrences, [each.alarm for each in ended if each.alarm is not None]
        )

    def shown(self, *occurrences: Occurrence, **options: Any) -> list[tuple[str, list[tuple[str, int, bool]]]]:
        """
        Return the kind of each notice with the name, the count and the end of its groups.
        """
        return [
            (draft.kind, [(each.group.key.split()[-1], each.tally.count, each.is_over) for each in draft.groups])
            for draft in self.fold(*occurrences, **options)
        ]


def test_the_first_is_reported_at_once_and_what_follows_once_per_window() -> None:
    """
    All groups share a summary, and groups that end together an all-clear.
    """
    route = Route()

    assert route.shown(failure("A"), failure("A"), failure("B")) == [
        ("first", [("A", 2, False)]),
        ("first", [("B", 1, False)]),
    ]
    assert route.shown(*[failure("A")] * 5, failure("B"), after=1) == []
    assert route.shown(failure("A"), after=WINDOW - 2) == []
    assert route.shown(after=1) == [("summary", [("A", 6, False), ("B", 1, False)])]
    assert route.shown(after=CLEAR_AFTER - 2) == []
    assert route.shown(after=WINDOW + 1) == [("all_clear", [("A", 0, True), ("B", 0, True)])]
    assert route.state.groups == {}


def test_an_all_clear_waits_no_longer_than_a_window_for_other_groups() -> None:
    """
    A group that goes on does not hold it up for ever.
    """
    route = Route()
    route.fold(failure("A"), failure("B"))
    kinds = []

    for _ in range(int((CLEAR_AFTER + WINDOW) / 60)):
        kinds += [draft.kind for draft in route.fold(failure("B"), after=60)]

    assert kinds == ["summary"] * 4 + ["all_clear"]
    assert list(route.state.groups) == ["task.failed B"]


def test_many_new_groups_share_a_summary() -> None:
    """
    Ten of them are reported one by one in a window.
    """
    route = Route()

    drafts = route.fold(*[failure(f"F{number}") for number in range(200)])
    later = route.fold(failure("G"), after=1)
    at_end = route.shown(after=WINDOW)

    assert [draft.kind for draft in drafts] == ["first"] * 10 + ["summary"]
    assert len(drafts[-1].groups) == 190
    assert later == []
    assert at_end == [("first", [("G", 1, False)])]


def test_a_group_is_reported_when_it_is_large_enough() -> None:
    """
    A smaller one that is quiet is forgotten.
    """
    route = Route(replace(RULE, smallest_group=3))

    assert route.shown(failure(), failure()) == []
    assert route.shown(failure(), after=CLEAR_AFTER - 1) == [("first", [("A", 3, False)])]
    assert route.shown(after=CLEAR_AFTER) == [("all_clear", [("A", 0, True)])]
    assert route.shown(failure(), failure()) == []
    assert route.shown(after=CLEAR_AFTER) == []
    assert route.state.groups == {}


def test_quiet_hours_end_with_one_summary() -> None:
    """
    It has the groups that began and ended in them; an event of an excepted kind is reported at once.
    """
    night = replace(RULE, is_quiet=lambda now: 2000 <= now < 20000, never_held=frozenset(["task.overdue"]))
    route = Route(night)
    route.fold(failure("A"))

    assert route.shown(failure("B"), failure("C"), after=1500) == []
    assert route.shown(overdue(2000)) == [("first", [("T", 1, False)])]
    assert route.shown(overdue(2001), after=10) == [("all_clear", [("T", 0, True)])]
    assert route.shown(failure("C"), after=15000) == []
    released = route.fold(after=5000)

    assert [(draft.kind, draft.after_quiet_hours) for draft in released] == [("summary", True)]
    assert {each.group.latest.family: (each.tally.count, each.is_over) for each in released[0].groups} == {
        "A": (0, True),
        "B": (1, True),
        "C": (2, True),
    }
    assert route.state.groups == {}


def test_what_is_muted_is_counted_and_stated_afterwards() -> None:
    """
    By its family or its workflow, also if nothing follows the mute.
    """
    route = Route()
    route.mutes = Mutes({"A"}, {"V"})

    muted = route.shown(failure("A"), failure("B", workflow="V"), failure("C"))
    during = route.shown(failure("A"), after=2 * CLEAR_AFTER)
    route.mutes = NOTHING
    afterwards = route.fold(after=1)

    assert muted == [("first", [("C", 1, False)])]
    assert during == [("all_clear", [("C", 0, True)])]
    assert [(draft.kind, [each.tally.muted for each in draft.groups]) for draft in afterwards] == [("summary", [2, 1])]


def test_a_mute_holds_what_was_pending_before_and_the_all_clear() -> None:
    """
    Of a family, and of a workflow by a pattern, also of the 30th workflow of a group.
    """
    route = Route()
    route.fold(failure("A"), failure("B", workflow="l0_x"))
    route.fold(failure("A"), *[failure("B", workflow=f"l0_{number}") for number in range(30)], after=1)
    route.mutes = Mutes({"A"}, {"l0_*"})

    during = route.shown(after=WINDOW)
    quiet = route.shown(after=2 * CLEAR_AFTER)
    heard = route.shown(failure("B", workflow="V"))
    route.mutes = NOTHING
    afterwards = route.shown(after=WINDOW)

    assert during == quiet == []
    assert heard == [("summary", [("B", 31, False)])]
    assert afterwards == [("summary", [("A", 1, False)]), ("all_clear", [("A", 0, True)])]


def test_a_mute_changes_no_limit_of_the_size() -> None:
    """
    A group that is too small after its mute is forgotten.
    """
    route = Route(replace(RULE, smallest_group=3))
    route.mutes = Mutes({"A", "B"})
    route.fold(failure("A"), failure("A"), failure("B"), failure("B"), failure("B"))
    route.mutes = NOTHING

    assert route.shown(after=1) == [("summary", [("B", 3, False)])]
    route.fold(after=2 * CLEAR_AFTER)
    assert route.state.groups == {}


def test_a_withdrawal_may_arrive_before_its_alarm() -> None:
    """
    Also of a group that is not known; then the alarm is not raised, and a later one is.
    """
    route = Route()

    assert route.shown(overdue(1001)) == []
    assert route.shown(overdue(1000), after=3600) == []
    assert route.shown(overdue(2000)) == [("first", [("T", 1, False)])]


def test_withdrawals_are_forgotten() -> None:
    """
    After a day, and the oldest if there are many.
    """
    route = Route()
    for number in range(3000):
        route.state.withdraw(f"key {number}", 1, route.now)
    route.fold()
    kept = list(route.state.withdrawn)
    route.fold(after=90_000)

    assert kept == [f"key {number}" for number in range(2000, 3000)]
    assert route.state.withdrawn == {}


def test_a_clock_that_is_set_back_delays_an_all_clear_by_its_time_at_most() -> None:
    """
    Instead of by the time that the clock has lost.
    """
    route = Route()
    route.fold(failure())
    route.fold(after=-86400)

    assert route.shown(after=CLEAR_AFTER) == [("all_clear", [("A", 0, True)])]


def test_what_is_overdue_is_clear_when_all_of_it_is_withdrawn_or_ended() -> None:
    """
    Time alone does not end it; a withdrawal that overtakes its alarm holds it back.
    """
    route = Route()

    assert route.shown(overdue(1000, "a"), overdue(1000, "b")) == [("first", [("T", 2, False)])]
    assert route.shown(after=10 * CLEAR_AFTER) == []
    assert route.shown(overdue(1001, "a"), overdue(1000, "a")) == []
    assert route.shown(overdue(2001, "a"), overdue(2000, "a")) == []
    assert route.shown(ended=(overdue(1000, "b"),)) == [("all_clear", [("T", 0, True)])]
    assert route.shown(overdue(3001, "c")) == []


def test_runs_are_counted_once_each() -> None:
    """
    The names of workflows, versions and tasks as well.
    """
    route = Route()
    drafts = route.fold(*[failure(run_id=f"r{n % 7}", version=str(n % 2), task=f"T{n % 3}") for n in range(42)])

    (counted,) = drafts[0].groups
    assert counted.tally.count == 42
    assert len(counted.tally.runs) == 14
    assert counted.tally.workflows == {"W": ["0", "1"]}
    assert counted.tally.tasks == ["T0", "T1", "T2"]


def test_a_clock_that_is_set_back_delays_a_summary_by_a_window_at_most() -> None:
    """
    Instead of by the time that the clock has lost.
    """
    route = Route()
    route.fold(failure())

    assert route.shown(failure(), after=-86400) == []
    assert route.shown(after=WINDOW) == [("summary", [("A", 1, False)])]


def test_groups_have_a_limit() -> None:
    """
    What belongs to further ones is counted together, and forgotten by none.
    """
    route = Route()
    failures = [failure(f"F{number}") for number in range(3 * MOST_GROUPS)]

    drafts = route.fold(*failures)

    assert len(route.state.groups) == MOST_GROUPS + 1
    assert sum(each.tally.count for draft in drafts for each in draft.groups) == len(failures)
    assert max(each.tally.count for draft in drafts for each in draft.groups) == 2 * MOST_GROUPS


class Histories(RuleBasedStateMachine):
    """
    Failures, alarms, mutes, nights and time in any order.
    """

    def __init__(self) -> None:
        """
        Nothing has occurred.
        """
        super().__init__()
        self.night = range(0)
        self.route = Route()
        self.occurred: Counter[str] = Counter()
        self.reported: Counter[str] = Counter()
        self.forgotten: Counter[str] = Counter()
        self.issued: list[tuple[float, str]] = []
        self.open: set[str] = set()

    @initialize(smallest=st.integers(1, 3), most=st.integers(1, 3), night=st.integers(0, 4000))
    def choose(self, smallest: int, most: int, night: int) -> None:
        """
        Choose the rule of the route.
        """
        self.night = range(1000 + night, 1000 + night + 3000)
        self.route = Route(replace(RULE, smallest_group=smallest, most_at_once=most, is_quiet=self.is_night))

    def is_night(self, now: float) -> bool:
        """
        Return True within the quiet hours of this history.
        """
        return self.night.start <= now < self.night.stop

    def fold(self, *occurrences: Occurrence, after: float = 0.0) -> None:
        """
        Fold, and compare what was issued with the promises.
        """
        before = dict(self.route.state.groups)
        new = Counter(each.group for each in occurrences if self.is_new(each))
        self.occurred.update(new)
        drafts, named = self.route.fold(*occurrences, after=after), dict[str, bool]()
        for draft in drafts:
            assert not self.is_night(self.route.now)
            assert draft.groups
            self.issued.append((self.route.now, draft.kind))
            for each in draft.groups:
                key = each.group.key
                named[key] = each.is_over
                self.reported[key] += each.tally.count
                assert each.tally.muted <= each.tally.count
                if draft.kind == "first":
                    assert key not in self.open
                    assert each.tally.count - each.tally.muted >= self.route.rule.smallest_group
                assert each.is_over or draft.kind != "all_clear"
                (self.open.discard if each.is_over else self.open.add)(key)
        assert {key for key, is_over in named.items() if not is_over} <= self.route.state.groups.keys()
        assert self.route.state.groups.keys().isdisjoint(key for key, is_over in named.items() if is_over)
        for key, group in before.items():
            if key not in self.route.state.groups and key not in named:
                # Only a group that was never reported and is too small is forgotten.
                count = group.pending.count + new[key]
                assert key not in self.open
                assert count < self.route.rule.smallest_group
                self.forgotten[key] += count

    def is_new(self, occurrence: Occurrence) -> bool:
        """
        Return True for an occurrence that counts: of alarms only those that are raised, and later than the known one.
        """
        if (alarm := occurrence.alarm) is None:
            return True
        state = self.route.state
        group = state.groups.get(occurrence.group)
        known = [state.withdrawn.get(alarm.key), None if group is None else group.alarms.get(alarm.key)]
        return alarm.is_open and all(each is None or each.sequence < alarm.sequence for each in known)

    @rule(families=st.lists(st.sampled_from("ABCD"), min_size=1, max_size=6), after=st.integers(0, 400))
    def fail(self, families: list[str], after: int) -> None:
        """
        Tasks fail.
        """
        self.fold(*[failure(family, workflow=f"W{family}") for family in families], after=after)

    @rule(run_id=st.sampled_from("xy"), sequence=st.integers(0, 9), after=st.integers(0, 400))
    def be_overdue(self, run_id: str, sequence: int, after: int) -> None:
        """
        An alarm is raised or withdrawn.
        """
        self.fold(overdue(sequence, run_id), after=after)

    @rule(families=st.sets(st.sampled_from("ABCD")), workflows=st.sets(st.sampled_from(["WA", "WB", "W"])))
    def mute(self, families: set[str], workflows: set[str]) -> None:
        """
        What is muted changes.
        """
        self.route.mutes = Mutes(families, workflows)

    @rule(after=st.integers(1, 2000))
    def wait(self, after: int) -> None:
        """
        Nothing occurs.
        """
        self.fold(after=after)

    @invariant()
    def nothing_is_lost(self) -> None:
        """
        Each occurrence was reported, waits, or was too few.
        """
        waiting = Counter({key: group.pending.count for key, group in self.route.state.groups.items()})
        assert self.occurred == self.reported + self.forgotten + waiting

    @invariant()
    def a_window_has_few_notices(self) -> None:
        """
        Any span of its length touches two windows: each has first notices up to their limit, and a summary.
        """
        for begin, _ in self.issued:
            kinds = Counter(kind for at, kind in self.issued if begin <= at < begin + WINDOW)
            assert kinds["first"] <= 2 * self.route.rule.most_at_once
            assert kinds["summary"] <= 2

    def teardown(self) -> None:
        """
        In the end all failures are over, and reported.
        """
        self.route.mutes, self.night = NOTHING, range(0)
        for _ in range(3):
            self.fold(after=CLEAR_AFTER + WINDOW)
        assert self.open <= set(self.route.state.groups) <= {"task.overdue T"}


TestHistories = Histories.TestCase


@pytest.mark.soak
def test_a_storm_of_an_hour_keeps_a_small_state() -> None:
    """
    Ten thousand failures a minute of seven families, each of another run.
    """
    route = Route()
    largest, notices = 0, 0

    for second in range(3600):
        notices += len(route.fold(*[failure(f"F{n % 7}", run_id=f"{second} {n}") for n in range(166)], after=1))
        if second % 60 == 0:
            largest = max(largest, len(msgspec.json.encode(route.state)))

    assert notices == 7 + 11
    assert largest < 2_000_000
