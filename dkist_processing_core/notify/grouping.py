"""
The storm control: occurrences become groups, and groups and time become drafts of notices, without a clock or files.

The first occurrence of a group is reported at once. What follows is counted, and reported once per window for all
groups together. When groups are over, one all-clear names them. Not here: the text and the facts of the store in a
notice (notices), and storing the state (counting).
"""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from dkist_processing_core.notify.occurrences import Alarm, Occurrence

MOST_RUNS = 10_000
"""The most runs of a group that are distinguished between two notices."""
MOST_GROUPS = 500
"""The most groups of a route; what belongs to further ones is counted in one group for each type of event."""
_MOST_NAMES, _MOST_IDS = 20, 3


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

    def hold(self, occurrence: Occurrence) -> bool:
        """Return True if an occurrence is counted without a notice."""
        return occurrence.family in self.families or occurrence.workflow in self.workflows


class Tally(msgspec.Struct):
    """What was counted of a group since the last notice about it."""

    count: int = 0
    muted: int = 0
    """How many of them were muted."""
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
    began_at: float
    last_at: float
    total: int = 0
    is_reported: bool = False
    pending: Tally = msgspec.field(default_factory=Tally)
    alarms: dict[str, Alarm] = msgspec.field(default_factory=dict)
    """Of what is overdue: the last alarm about each subject that has not ended."""

    @property
    def open_alarms(self) -> list[Alarm]:
        """The alarms that are not withdrawn."""
        return [alarm for alarm in self.alarms.values() if alarm.is_open]

    def over_at(self, rule: Rule) -> float | None:
        """Return the time at which the group is over if nothing more occurs; None while something is overdue."""
        if self.latest.alarm is None:
            return self.last_at + rule.clear_after
        return None if self.open_alarms else self.last_at

    def is_muted(self, mutes: Mutes) -> bool:
        """Return True if it has muted occurrences, and their mute still lasts."""
        return self.pending.muted > 0 and (
            self.latest.family in mutes.families or any(name in mutes.workflows for name in self.pending.workflows)
        )

    def is_due(self, rule: Rule, mutes: Mutes) -> bool:
        """Return True if it has something to report."""
        return self.has_reached(rule) or (self.pending.muted > 0 and not self.is_muted(mutes))

    def has_reached(self, rule: Rule) -> bool:
        """Return True if enough has occurred that was not muted."""
        return self.pending.count - self.pending.muted >= (1 if self.is_reported else rule.smallest_group)


class RouteState(msgspec.Struct):
    """The groups of a route, and its notices so far."""

    series: str
    notices: int = 0
    groups: dict[str, Group] = msgspec.field(default_factory=dict)
    window_ends_at: float = 0.0
    firsts: int = 0
    """The number of first notices in this window."""
    is_held: bool = False
    """Whether it was within the quiet hours at the last fold."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A group as a notice reports it."""

    group: Group
    tally: Tally
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of a notice."""

    kind: Literal["first", "summary", "all_clear"]
    groups: list[Counted]
    after_quiet_hours: bool = False


@dataclass(slots=True)
class Fold:
    """One fold of a route's state, which it changes; `drafts` has the notices to issue."""

    state: RouteState
    rule: Rule
    now: float
    mutes: Mutes = field(default_factory=Mutes)
    drafts: list[Draft] = field(default_factory=list)

    def add(self, occurrences: Iterable[Occurrence], ended: Collection[str] = ()) -> list[Draft]:
        """
        Count occurrences, and return the notices that are due now.

        Args:
            occurrences: Those that the route wants, in the order of their arrival.
            ended: The keys of alarms whose subjects have ended.
        """
        for group in self.state.groups.values():
            for key in ended:
                if group.alarms.pop(key, None) is not None:
                    group.last_at = self.now
        for occurrence in occurrences:
            self._count(occurrence)
        is_quiet = self.rule.is_quiet(self.now)
        is_released, self.state.is_held = self.state.is_held and not is_quiet, is_quiet
        free = [
            group for group in self.state.groups.values() if not is_quiet or group.latest.event in self.rule.never_held
        ]
        if is_released:
            self._release(free)
        else:
            self._report(free)
        self._clear([group for group in free if group.key in self.state.groups])
        return self.drafts

    def _count(self, occurrence: Occurrence) -> None:
        is_muted = self.mutes.hold(occurrence)
        if occurrence.group not in self.state.groups and len(self.state.groups) >= MOST_GROUPS:
            # Fingerprints that differ for each failure would give a group each.
            occurrence = msgspec.structs.replace(occurrence, group=f"any {occurrence.event}", family=None)
        group, alarm = self.state.groups.get(occurrence.group), occurrence.alarm
        if alarm is not None:
            known = None if group is None else group.alarms.get(alarm.key)
            if (known is not None and known.sequence >= alarm.sequence) or (group is None and not alarm.is_open):
                return
            if group is not None and not alarm.is_open:
                group.alarms[alarm.key], group.last_at = alarm, self.now
                return
        if group is None:
            group = self.state.groups[occurrence.group] = Group(occurrence.group, occurrence, self.now, self.now)
        group.latest, group.last_at = occurrence, self.now
        group.total += 1
        group.pending.add(occurrence, is_muted=is_muted)
        if alarm is not None:
            group.alarms[alarm.key] = alarm

    def _is_over(self, group: Group) -> bool:
        over_at = group.over_at(self.rule)
        return over_at is not None and over_at <= self.now and not group.is_muted(self.mutes)

    def _report(self, groups: list[Group]) -> None:
        """Report new groups at once, and at the end of a window what was counted in it."""
        # It cannot end later, unless the clock was set back or the window was shortened.
        self.state.window_ends_at = min(self.state.window_ends_at, self.now + self.rule.window)
        is_window_over = self.now >= self.state.window_ends_at
        if is_window_over:
            self.state.firsts = 0
        due = [group for group in groups if group.is_due(self.rule, self.mutes)]
        new = [group for group in due if not group.is_reported and group.has_reached(self.rule)]
        firsts = new[: max(0, self.rule.most_at_once - self.state.firsts)]
        self.state.firsts += len(firsts)
        for group in firsts:
            self._issue("first", [group])
        if rest := [group for group in due if not group.is_reported or group.pending.count] if is_window_over else []:
            self._issue("summary", rest)
        if is_window_over and self.drafts:
            self.state.window_ends_at = self.now + self.rule.window

    def _release(self, groups: list[Group]) -> None:
        """Report in one summary what was held, and which groups are over meanwhile."""
        held = [
            group
            for group in groups
            if group.is_due(self.rule, self.mutes) or (group.is_reported and self._is_over(group))
        ]
        self.state.firsts = 0
        if held:
            over = {group.key for group in held if self._is_over(group)}
            self._issue("summary", held, over, after_quiet_hours=True)
            self.state.window_ends_at = self.now + self.rule.window

    def _clear(self, groups: list[Group]) -> None:
        """Report groups that are over in one all-clear, which waits up to a window for those that will be soon."""
        over = [group for group in groups if self._is_over(group)]
        for group in over:
            if not group.is_reported and not group.is_due(self.rule, self.mutes):
                del self.state.groups[group.key]
        reported = [group for group in over if group.is_reported]
        if not reported:
            return
        oldest = min(group.over_at(self.rule) or self.now for group in reported)
        if self.now >= oldest + self.rule.window or not any(
            group.is_reported and not self._is_over(group) for group in groups
        ):
            self._issue("all_clear", reported, {group.key for group in reported})

    def _issue(
        self,
        kind: Literal["first", "summary", "all_clear"],
        groups: list[Group],
        over: Collection[str] = (),
        *,
        after_quiet_hours: bool = False,
    ) -> None:
        counted = []
        for group in sorted(groups, key=lambda group: group.pending.count, reverse=True):
            # A muted group that is over when its mute ends needs no second notice.
            is_over = group.key in over or (not group.is_reported and self._is_over(group))
            counted.append(Counted(group, group.pending, is_over))
            group.pending, group.is_reported = Tally(), True
            if is_over:
                del self.state.groups[group.key]
        self.drafts.append(Draft(kind, counted, after_quiet_hours))


def _note(names: list[str], name: str, most: int) -> None:
    if name not in names and len(names) < most:
        names.append(name)


def _digest(occurrence: Occurrence) -> str:
    text = f"{occurrence.workflow}\0{occurrence.version}\0{occurrence.run_id}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
