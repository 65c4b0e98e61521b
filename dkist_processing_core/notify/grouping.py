"""
The storm control: occurrences become groups, and groups and time become drafts of notices, without a clock or files.

The first occurrence of a group is reported at once. What follows is counted, and reported once per window for all
groups together. When groups are over, one all-clear names them. Not here: the groups (groups), the text and the facts
of the store in a notice (notices), and storing the state (counting).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from dkist_processing_core.notify.groups import Group, Mutes, RouteState, Rule, Tally
from dkist_processing_core.notify.occurrences import Alarm, Occurrence

MOST_GROUPS = 500
"""The most groups of a route; what belongs to further ones is counted in one group for each type of event."""


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

    def add(self, occurrences: Iterable[Occurrence], ended: Iterable[Alarm] = ()) -> list[Draft]:
        """
        Count occurrences, and return the notices that are due now.

        Args:
            occurrences: Those that the route wants, in the order of their arrival.
            ended: Alarms whose subjects have ended.
        """
        self.state.forget(self.now)
        for alarm in ended:
            self.state.withdraw(alarm.key, alarm.sequence + 1, self.now)
        for occurrence in occurrences:
            self._count(occurrence)
        is_quiet = self.rule.is_quiet(self.now)
        is_released, self.state.is_held = self.state.is_held and not is_quiet, is_quiet
        free = [
            group
            for group in self.state.groups.values()
            if not group.is_muted(self.mutes) and (not is_quiet or group.latest.event in self.rule.never_held)
        ]
        if is_released:
            self._release(free)
        else:
            self._report(free)
        self._clear([group for group in free if group.key in self.state.groups])
        return self.drafts

    def _count(self, occurrence: Occurrence) -> None:
        groups, alarm = self.state.groups, occurrence.alarm
        if alarm is not None:
            if not alarm.is_open:
                self.state.withdraw(alarm.key, alarm.sequence, self.now)
                return
            known = [self.state.withdrawn.get(alarm.key), *(group.alarms.get(alarm.key) for group in groups.values())]
            if any(each is not None and each.sequence >= alarm.sequence for each in known):
                return
        if occurrence.group not in groups and len(groups) >= MOST_GROUPS:
            # Fingerprints that differ for each failure would give a group each.
            occurrence = msgspec.structs.replace(occurrence, group=f"any {occurrence.event}", family=None)
        key, now = occurrence.group, self.now
        if key not in groups:
            groups[key] = Group(key, occurrence, occurrence.at, occurrence.version, now, now)
        groups[key].count(occurrence, now, is_muted=self.mutes.hold(occurrence.family, occurrence.workflow))

    def _is_over(self, group: Group) -> bool:
        over_at = group.over_at(self.rule)
        return over_at is not None and over_at <= self.now

    def _report(self, groups: list[Group]) -> None:
        """Report new groups at once, and at the end of a window what was counted in it."""
        # It cannot end later, unless the clock was set back or the window was shortened.
        self.state.window_ends_at = min(self.state.window_ends_at, self.now + self.rule.window)
        is_window_over = self.now >= self.state.window_ends_at
        if is_window_over:
            self.state.firsts = 0
        due = [group for group in groups if group.is_due(self.rule, self.mutes)]
        new = [group for group in due if group.is_new(self.rule)]
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
            # What a mute holds of it may be enough when the mute ends.
            if not group.is_reported and group.pending.count < self.rule.smallest_group:
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
