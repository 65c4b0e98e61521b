"""
The named subscriptions of an embedded journal: positions, lost events and dead letters, which the file stores by name.

Not here: reading the events (bus.embedded), an operator's decisions about dead letters (letters), and the removal of
names that are unused (retention).
"""

import math
import sqlite3
import time

from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._rows import Entry, number
from dkist_processing_core.journal.letters import NOTES, Decision, Note, note_of, remove_letter, store_note, to_note

# A damaged row may hold another type. Then the subscription receives some events twice, and loses none.
POSITION = "CASE typeof(position) WHEN 'integer' THEN position ELSE 0 END"
_RENEWAL_SECONDS = 3600.0


class NamedSubscription:
    """The stored state of one named subscription."""

    def __init__(self, journal: Journal, name: str) -> None:
        """Store the open journal and the name. Nothing is read."""
        self._journal = journal
        self._name = name
        self._renewed = -math.inf

    def position(self, default: int, wanted: str | None = None) -> int:
        """
        Return the number up to which the subscription has settled its messages; a new name gets `default`.

        `wanted` names the events that the subscription selects. Processes that remove old events use it.
        """

        def take(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name)"  # noqa: S608 - a constant
                f" DO UPDATE SET used = excluded.used, position = {POSITION}",
                (self._name, default, self._journal.clock()),
            )
            if wanted is not None:
                value = (f"wanted {self._name}", wanted)
                connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", value)
            row = connection.execute("SELECT position FROM subscription WHERE name = ?", (self._name,)).fetchone()
            return int(row[0])

        return self._journal.transact(take)

    @property
    def is_position_lost(self) -> bool:
        """Whether damage may have lost the position of this unknown name while older rows remain."""
        lost, first = self._journal.value_of("places_lost"), self._journal.first()
        if not isinstance(lost, int) or first is None or first > lost + 1:
            return False
        return not self._journal.rows("SELECT 1 FROM subscription WHERE name = ?", self._name)

    def advance(self, position: int) -> None:
        """Store that the subscription has settled its messages up to `position`."""
        self._journal.write(
            "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET position = max(position, excluded.position), used = excluded.used",
            self._name,
            position,
            self._journal.clock(),
        )

    def renew(self) -> None:
        """Store that the name is in use, so that pruning keeps its events. This writes at most once an hour."""
        now = time.monotonic()
        if now < self._renewed + _RENEWAL_SECONDS:
            return
        self._journal.write("UPDATE subscription SET used = ? WHERE name = ?", self._journal.clock(), self._name)
        self._renewed = now

    @property
    def missed(self) -> int:
        """How many lost events of the subscription are still unreported."""
        return int(number(self._journal.value_of(f"missed {self._name}")) or 0)

    def record_reported(self, missed: int) -> None:
        """Subtract `missed` reported events from the unreported lost events."""
        self._journal.write("UPDATE fact SET value = value - ? WHERE name = ?", missed, f"missed {self._name}")

    def dead_letter(self, entry: Entry, reason: str) -> None:
        """Dead-letter a message that the subscription cannot use, with the reason; also one that was retried."""
        message, seq, now = entry.message, entry.seq, self._journal.clock()

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (subscription, seq)"
                " DO UPDATE SET dead = excluded.dead, reason = excluded.reason",
                (self._name, seq, now, reason, message.properties.message_id, message.body),
            )
            note = note_of(connection, self._name, seq)
            if note.decision is Decision.RETRIED:
                store_note(connection, self._name, seq, Note(history=note.history))

        self._journal.transact(store)

    def retried(self) -> list[Entry]:
        """Return the dead letters that an operator wants to be received once more, the oldest first."""
        notes = self._journal.rows("SELECT name, value FROM fact WHERE name GLOB ?", NOTES)
        entries: list[Entry] = []
        for name, value in notes:
            _, seq, subscription = name.split(" ", 2)
            if subscription == self._name and to_note(value).decision is Decision.RETRIED:
                # Reading begins after a number.
                entries += [entry for entry in self._journal.read(int(seq) - 1, 1) if entry.seq == int(seq)]
        return sorted(entries, key=lambda entry: entry.seq)

    def end_retry(self, entry: Entry) -> None:
        """Remove the letter of a message that was retried and is acknowledged now."""
        self._journal.transact(lambda connection: remove_letter(connection, self._name, entry.seq))

    def dead_letters(self) -> list[tuple[str, bytes]]:
        """Return the reason and the body of each dead letter of the subscription."""
        return self._journal.rows(
            "SELECT reason, body FROM dead_letter WHERE subscription = ? ORDER BY seq", self._name
        )
