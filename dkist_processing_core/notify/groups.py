"""
The groups of a route: what is alike among its occurrences, what was counted of it, and what is muted of it.

Not here: which notices they make (grouping), and storing them (counting).
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from dkist_processing_core.consumer import matches
from dkist_processing_core.notify.occurrences import Alarm, Occurrence

MOST_RUNS = 10_000
"""The most runs of a group that are distinguished between two notices."""
_MOST_NAMES, _MOST_IDS, _MOST_WORKFLOWS = 20, 3, 500
_WITHDRAWN_SECONDS, _MOST_WITHDRAWN = 86400.0, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a route groups; times are in seconds."""

    window: float
    """How long what follows a notice is counted before it is reported."""
    clear_after: float
    """How long a group of failures must be quiet to be over."""
    smallest_group: int = 1
    """The number of occurrences from which a group is reported."""
    most_at_once: int = 10
    """The most first notices per window; further groups wait for its end."""
    is_quiet: Callable[[float], bool] = lambda _: False
    """Whether a time is within the quiet hours, in which notices are held."""
    never_held: frozenset[str] = frozenset()
    """The names of the events that quiet hours do not hold."""


@dataclass(frozen=True, slots=True)
class Mutes:
    """The families and workflows that are muted now."""

    families: Collection[str] = ()
    workflows: Collection[str] = ()
    """Names or patterns."""

    def hold(self, family: str | None, workflow: str) -> bool:
        """Return True if what occurs in a family or a workflow is counted without a notice."""
        return family in self.families or any(matches(pattern, workflow) for pattern in self.workflows)


class Tally(msgspec.Struct):
    """What was counted of a group since the last notice about it."""

    count: int = 0
    muted: int = 0
    """How many of them were muted when they occurred."""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """How many of them were in each workflow; in further ones together under an empty name."""
    first_at: float | None = None
    last_at: float | None = None
    workflows: dict[str, list[str]] = msgspec.field(default_factory=dict)
    tasks: list[str] = msgspec.field(default_factory=list)
    runs: set[str] = msgspec.field(default_factory=set)
    """The digests of the runs."""
    run_ids: list[str] = msgspec.field(default_factory=list)

    def add(self, occurrence: Occurrence, *, is_muted: bool) -> None:
        """Count an occurrence."""
        self.count += 1
        self.muted += is_muted
        is_known = occurrence.workflow in self.counts or len(self.counts) < _MOST_WORKFLOWS
        workflow = occurrence.workflow if is_known else ""
        self.counts[workflow] = self.counts.get(workflow, 0) + 1
        self.first_at = occurrence.at if self.first_at is None else min(self.first_at, occurrence.at)
        self.last_at = occurrence.at if self.last_at is None else max(self.last_at, occurrence.at)
        if occurrence.workflow in self.workflows or len(self.workflows) < _MOST_NAMES:
            _note(self.workflows.setdefault(occurrence.workflow, []), occurrence.version, _MOST_NAMES)
        if occurrence.task is not None:
            _note(self.tasks, occurrence.task, _MOST_NAMES)
        if occurrence.run_id and len(self.runs) < MOST_RUNS:
            self.runs.add(_digest(occurrence))
            _note(self.run_ids, occurrence.run_id, _MOST_IDS)


class Group(msgspec.Struct):
    """Occurrences that are alike, from the first one to the all-clear; times are those at which they were counted."""

    key: str
    latest: Occurrence
    first_at: float
    """The time of the first of them, by its event."""
    first_version: str
    began_at: float
    last_at: float
    total: int = 0
    is_reported: bool = False
    pending: Tally = msgspec.field(default_factory=Tally)
    alarms: dict[str, Alarm] = msgspec.field(default_factory=dict)
    """Of what is overdue: the alarms that stand."""

    def count(self, occurrence: Occurrence, now: float, *, is_muted: bool) -> None:
        """Count an occurrence."""
        if occurrence.at < self.first_at:
            self.first_at, self.first_version = occurrence.at, occurrence.version
        self.latest, self.last_at = occurrence, now
        self.total += 1
        self.pending.add(occurrence, is_muted=is_muted)
        if occurrence.alarm is not None:
            self.alarms[occurrence.alarm.key] = occurrence.alarm

    def over_at(self, rule: Rule) -> float | None:
        """Return the time at which the group is over if nothing more occurs; None while something is overdue."""
        if self.latest.alarm is None:
            return self.last_at + rule.clear_after
        return None if self.alarms else self.last_at

    def heard(self, mutes: Mutes) -> int:
        """Return how many of what is pending no mute holds now."""
        family = self.latest.family
        return sum(count for workflow, count in self.pending.counts.items() if not mutes.hold(family, workflow))

    def is_muted(self, mutes: Mutes) -> bool:
        """Return True if neither what is pending nor its end is reported now."""
        return mutes.hold(self.latest.family, self.latest.workflow) and not self.heard(mutes)

    def is_due(self, rule: Rule, mutes: Mutes) -> bool:
        """Return True if enough is pending."""
        return self.heard(mutes) >= (1 if self.is_reported else rule.smallest_group)

    def is_new(self, rule: Rule) -> bool:
        """Return True if it was not reported, and enough has occurred that was not muted."""
        return not self.is_reported and self.pending.count - self.pending.muted >= rule.smallest_group


class Withdrawal(msgspec.Struct, array_like=True):
    """The last withdrawal of an alarm, or the end of its subject, which an earlier alarm may follow."""

    sequence: int
    at: float


class RouteState(msgspec.Struct):
    """The groups of a route, and its notices so far."""

    series: str
    notices: int = 0
    groups: dict[str, Group] = msgspec.field(default_factory=dict)
    withdrawn: dict[str, Withdrawal] = msgspec.field(default_factory=dict)
    """By the keys of alarms: the last ones of a day."""
    window_ends_at: float = 0.0
    firsts: int = 0
    """The number of first notices in this window."""
    is_held: bool = False
    """Whether it was within the quiet hours at the last fold."""

    def withdraw(self, key: str, sequence: int, now: float) -> None:
        """End an alarm that is not later than a withdrawal, which may arrive before it."""
        known = self.withdrawn.pop(key, None)
        # The latest withdrawal stands at the end.
        self.withdrawn[key] = Withdrawal(sequence if known is None else max(sequence, known.sequence), now)
        for group in self.groups.values():
            if (alarm := group.alarms.get(key)) is not None and alarm.sequence < sequence:
                del group.alarms[key]
                group.last_at = now

    def forget(self, now: float) -> None:
        """Drop old withdrawals, and correct times that are in the future since the clock was set back."""
        keys = [key for key, each in self.withdrawn.items() if each.at < now - _WITHDRAWN_SECONDS]
        for key in {*keys, *list(self.withdrawn)[:-_MOST_WITHDRAWN]}:
            del self.withdrawn[key]
        for group in self.groups.values():
            group.last_at = min(group.last_at, now)


def _note(names: list[str], name: str, most: int) -> None:
    if name not in names and len(names) < most:
        names.append(name)


def _digest(occurrence: Occurrence) -> str:
    text = f"{occurrence.workflow}\0{occurrence.version}\0{occurrence.run_id}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
