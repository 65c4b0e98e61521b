"""
The dead letters of consumers with an inbox: rows of a database.

Not here: the rows themselves (inbox.letters).
"""

from collections.abc import Collection

from dkist_processing_core.dead_letters.letter import DeadLetter, FormerFailure, Group, digest
from dkist_processing_core.dead_letters.place import Action, Changed
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.letters import DeadLetters, Letter, Life

_LETTER, _GROUP = "i", "gi"
# More digits than the number of any row.
_TOO_LONG = 19
_WITHOUT_EXCEPTION = {"killer", "undecodable"}


class InboxLetters:
    """The dead letters in one database, of all consumers or of some."""

    def __init__(self, database: Database, consumers: Collection[str]) -> None:
        """Store the open database, and the names of the consumers; without names, all are looked at."""
        self.where = f"the inbox {database.where}"
        self._database = database
        self._of = [DeadLetters(database, name) for name in consumers] or [DeadLetters(database)]

    def groups(self, *, archived: bool) -> list[Group]:
        """Return the groups, that with the newest failure first."""
        found = [group for each in self._of for group in each.groups(archived=archived)]
        return [
            Group(
                _group(group.consumer, group.family),
                group.consumer,
                group.count,
                group.first_failed_at,
                group.last_failed_at,
                _letter(group.newest),
            )
            for group in found
        ]

    def consumers(self) -> list[str]:
        """Return the names of the consumers that the database knows."""
        return DeadLetters(self._database).consumers()

    def letters(self, group: str, *, archived: bool, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters of a group, that which failed last first."""
        for consumer, family in self._families({group}):
            of = DeadLetters(self._database, consumer)
            return [_letter(letter) for letter in of.list(family, archived=archived, limit=limit)]
        return []

    def letter(self, name: str) -> DeadLetter | None:
        """Return the letter of this id, dead or archived; None if there is none here."""
        for seq in _numbers({name}):
            for each in self._of:
                if (found := each.show(seq)) is not None:
                    return _letter(found)
        return None

    def known(self, names: Collection[str]) -> set[str]:
        """Return those of the ids that name a letter or a group here."""
        groups = {_group(*family) for family in self._families(names)}
        return groups | {name for name in names if self.letter(name) is not None}

    def change(self, action: Action, names: Collection[str]) -> Changed:
        """Do something with the letters and groups of these ids, or without ids with all."""
        if not names:
            return Changed(sum(getattr(each, action)(every=True) for each in self._of))
        count = sum(
            getattr(DeadLetters(self._database, consumer), action)(family=family)
            for consumer, family in self._families(names)
        )
        seqs = _numbers(names)
        if seqs:
            count += sum(getattr(each, action)(*seqs) for each in self._of)
        return Changed(count)

    def _families(self, names: Collection[str]) -> list[tuple[str, str | None]]:
        """Return the consumer and the family of each group that is named."""
        if not any(name.startswith(_GROUP) for name in names):
            return []
        groups = {
            (group.consumer, group.family)
            for each in self._of
            for archived in (False, True)
            for group in each.groups(archived=archived)
        }
        return sorted((each for each in groups if _group(*each) in names), key=str)


def _numbers(names: Collection[str]) -> list[int]:
    texts = [name.removeprefix(_LETTER) for name in names if name.startswith(_LETTER)]
    return sorted({int(text) for text in texts if text.isascii() and text.isdecimal() and len(text) < _TOO_LONG})


def _group(consumer: str, family: str | None) -> str:
    return _GROUP + digest(consumer, family)


def _letter(letter: Letter) -> DeadLetter:
    # Such a row may have failed by an exception before, which is not why it is dead.
    is_exception = letter.family not in _WITHOUT_EXCEPTION
    return DeadLetter(
        id=f"{_LETTER}{letter.seq}",
        group=_group(letter.consumer, letter.family),
        consumer=letter.consumer,
        is_archived=letter.state == "archived",
        reason=letter.reason or "it was given up",
        event=letter.event,
        body=letter.body or b"",
        content_type=letter.content_type,
        headers=letter.headers,
        first_failed_at=letter.first_failed_at,
        last_failed_at=letter.last_failed_at,
        tries=letter.tries,
        error_type=letter.error_type if is_exception else None,
        error_message=letter.error_message,
        stack=letter.stack,
        history=tuple(map(_former, letter.history)),
    )


def _former(life: Life) -> FormerFailure:
    error = ": ".join(part for part in (life.error_type, life.error_message) if part)
    reason = "; ".join(part for part in (life.reason, error) if part)
    return FormerFailure(reason, life.last_failed_at, life.retried_at, life.error_type, life.stack)
