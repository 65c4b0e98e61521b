"""
The dead letters of named subscriptions to the embedded journal.

Their messages are read only of those that are shown: there may be very many. Not here: the file's tables
(journal.letters).
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import groupby, islice
from operator import attrgetter
from typing import TypeVar

from dkist_processing_core.bus import Bus
from dkist_processing_core.dead_letters.letter import (
    DeadLetter,
    FormerFailure,
    Group,
    digest,
    event_of,
    family_of_reason,
    latest_first,
)
from dkist_processing_core.dead_letters.place import Action, Changed, concerns
from dkist_processing_core.errors import JournalEmptyError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.letters import (
    Alike,
    Decision,
    Head,
    Key,
    StoredLetter,
    alike,
    decide,
    discard,
    heads,
    stored,
)

_Read = TypeVar("_Read")
_LETTER, _GROUP = "j", "gj"
_DECISIONS = {Action.RETRY: Decision.RETRIED, Action.ARCHIVE: Decision.ARCHIVED, Action.RESTORE: Decision.NONE}
_GONE = "the journal no longer has its message, which it keeps for seven days"


class JournalLetters:
    """The dead letters in the embedded journal, of all subscriptions or of some. The file need not exist."""

    def __init__(self, bus: Bus, consumers: Collection[str]) -> None:
        """Store the bus, and the names of the subscriptions; without names, all are looked at."""
        self.where = bus.where
        self._bus = bus
        self._consumers = frozenset(consumers)

    def consumers(self) -> set[str]:
        """Return the names of the subscriptions that the journal knows."""
        query = "SELECT name FROM subscription UNION SELECT subscription FROM dead_letter"
        return {name for (name,) in self._look(lambda journal: journal.rows(query))}

    def groups(self, *, archived: bool) -> list[Group]:
        """Return the groups, that with the newest failure first."""
        decision = Decision.ARCHIVED if archived else Decision.NONE

        def read(journal: Journal) -> list[Group]:
            counted = sorted(filter(self._includes, alike(journal, decision)), key=_group_of)
            found = [_group(journal, name, list(each)) for name, each in groupby(counted, _group_of)]
            return [group for group in found if group is not None]

        return latest_first(self._look(read))

    def letters(self, group: str, *, archived: bool, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters of a group, that which failed last first."""
        return self._some(lambda head: _group_of(head) == group and _is_archived(head) == archived, limit)

    def letter(self, name: str) -> DeadLetter | None:
        """Return the letter of this id, dead or archived; None if there is none here."""
        if not name.startswith(_LETTER):
            return None
        return next(iter(self._some(lambda head: _id_of(head) == name, 1)), None)

    def known(self, names: Collection[str]) -> set[str]:
        """Return those of the ids that name a letter or a group here, dead or archived."""
        if not any(name.startswith((_LETTER, _GROUP)) for name in names):
            return set()
        return set(names) & {name for head in self._heads() for name in (_id_of(head), _group_of(head))}

    def change(self, action: Action, names: Collection[str]) -> Changed:
        """Do something with the letters and groups of these ids, or without ids with all."""
        keys: list[Key] = []
        obstacles = {}
        for head in self._heads():
            name = _id_of(head)
            if not concerns(action, names, name, _group_of(head), is_archived=_is_archived(head)):
                continue
            if action is Action.RETRY and not head.has_message:
                obstacles[name] = _GONE
            else:
                keys.append((head.subscription, head.seq))
        if keys:
            with self._bus.open_journal() as journal:
                if action is Action.DISCARD:
                    discard(journal, keys)
                else:
                    decide(journal, keys, _DECISIONS[action])
        return Changed(len(keys), obstacles)

    def _heads(self) -> list[Head]:
        return [head for head in self._look(heads) if self._includes(head)]

    def _some(self, is_chosen: Callable[[Head], bool], limit: int) -> list[DeadLetter]:
        def read(journal: Journal) -> list[StoredLetter]:
            chosen = (head for head in heads(journal) if self._includes(head) and is_chosen(head))
            return stored(journal, [(head.subscription, head.seq) for head in islice(chosen, limit)])

        return [_letter(each) for each in self._look(read)]

    def _includes(self, each: Head | Alike) -> bool:
        return not self._consumers or each.subscription in self._consumers

    def _look(self, read: Callable[[Journal], list[_Read]]) -> list[_Read]:
        path = self._bus.journal_path
        if not path.exists():
            return []
        try:
            return Journal.look(path, read)
        except JournalEmptyError:
            return []


def _id_of(letter: Head | StoredLetter) -> str:
    return _LETTER + digest(letter.subscription, letter.seq)


def _group_of(each: Head | Alike | StoredLetter) -> str:
    return _group_id(each.subscription, each.reason)


@lru_cache(maxsize=1000)
def _group_id(subscription: str, reason: str) -> str:
    return _GROUP + digest(subscription, family_of_reason(reason))


def _is_archived(head: Head) -> bool:
    return head.decision == Decision.ARCHIVED


def _group(journal: Journal, name: str, counted: list[Alike]) -> Group | None:
    """Return a group of letters whose reasons are of the same kind; None if it exists no longer."""
    last = max(counted, key=attrgetter("last", "newest"))
    newest = stored(journal, [(last.subscription, last.newest)])
    if not newest:
        return None
    count, first = sum(each.letters for each in counted), min(each.first for each in counted)
    return Group(name, last.subscription, count, first, last.last, _letter(newest[0]))


def _letter(stored: StoredLetter) -> DeadLetter:
    properties = stored.properties
    content_type = None if properties is None else properties.content_type
    headers = {} if properties is None else properties.headers
    return DeadLetter(
        id=_id_of(stored),
        group=_group_of(stored),
        consumer=stored.subscription,
        is_archived=stored.note.decision is Decision.ARCHIVED,
        reason=stored.reason,
        event=event_of(stored.body, content_type, headers),
        body=stored.body,
        content_type=content_type,
        headers=headers,
        first_failed_at=stored.dead,
        last_failed_at=stored.dead,
        history=tuple(FormerFailure(each.reason, each.dead, each.retried) for each in stored.note.history),
        obstacle=_GONE if properties is None else None,
    )
