"""
The dead letters of named subscriptions to the embedded journal.

Not here: the file's tables (journal.letters).
"""

from collections.abc import Callable, Collection
from typing import TypeVar

from dkist_processing_core.bus import Bus
from dkist_processing_core.dead_letters.letter import DeadLetter, FormerFailure, digest, event_of, family_of_reason
from dkist_processing_core.dead_letters.place import Action, Changed, WholePlace, concerns
from dkist_processing_core.errors import JournalEmptyError
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.letters import Decision, Key, StoredLetter, decide, discard, letters

_Read = TypeVar("_Read")
_LETTER, _GROUP = "j", "gj"
_DECISIONS = {Action.RETRY: Decision.RETRIED, Action.ARCHIVE: Decision.ARCHIVED, Action.RESTORE: Decision.NONE}
_GONE = "the journal no longer has its message, which it keeps for seven days"


class JournalLetters(WholePlace):
    """The dead letters in the embedded journal, of all subscriptions or of some."""

    def __init__(self, bus: Bus, consumers: Collection[str]) -> None:
        """Store the bus, and the names of the subscriptions; without names, all are looked at."""
        self.where = bus.where
        self._bus = bus
        self._consumers = frozenset(consumers)

    def consumers(self) -> set[str]:
        """Return the names of the subscriptions that the journal knows."""
        names = {name for (name,) in self._look(lambda journal: journal.rows("SELECT name FROM subscription"))}
        return names | {stored.subscription for stored in self._look(letters)}

    def read(self) -> list[DeadLetter]:
        """Return all letters, dead and archived. The file is only read, and need not exist."""
        return [_letter(stored) for stored in self._stored()]

    def change(self, action: Action, names: Collection[str]) -> Changed:
        """Do something with the letters and groups of these ids, or without ids with all."""
        keys: list[Key] = []
        obstacles = {}
        for stored in self._stored():
            letter = _letter(stored)
            if not concerns(action, names, letter):
                continue
            if action is Action.RETRY and letter.obstacle is not None:
                obstacles[letter.id] = letter.obstacle
            else:
                keys.append((stored.subscription, stored.seq))
        if keys:
            with self._bus.open_journal() as journal:
                if action is Action.DISCARD:
                    discard(journal, keys)
                else:
                    decide(journal, keys, _DECISIONS[action])
        return Changed(len(keys), obstacles)

    def _stored(self) -> list[StoredLetter]:
        return [each for each in self._look(letters) if not self._consumers or each.subscription in self._consumers]

    def _look(self, read: Callable[[Journal], list[_Read]]) -> list[_Read]:
        path = self._bus.journal_path
        if not path.exists():
            return []
        try:
            return Journal.look(path, read)
        except JournalEmptyError:
            return []


def _letter(stored: StoredLetter) -> DeadLetter:
    properties = stored.properties
    content_type = None if properties is None else properties.content_type
    headers = {} if properties is None else properties.headers
    return DeadLetter(
        id=_LETTER + digest(stored.subscription, stored.seq),
        group=_GROUP + digest(stored.subscription, family_of_reason(stored.reason)),
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
