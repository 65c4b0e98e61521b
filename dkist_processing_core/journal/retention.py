"""
The age of a journal's rows, by a clock that the file keeps, and the removal of the oldest rows.

The system's clock may be wrong by days, in one process or in all, and a folder may move to a host that has run for a
year. Therefore the file's clock advances by the smaller of two differences: of the host's uptime, and of the system's
time. From time to time the file records the number of its last row (a mark). Not here: the tables (_format).
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal.letters import NOTES
from dkist_processing_core.journal.message import topic_matches
from dkist_processing_core.journal.subscription import POSITION
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text.internal_errors import log_internal_error_once

MARK_SECONDS = 600.0
"""How often the file records the number of its last row."""
_MARGIN_SECONDS = 1.0
"""By how much two readings of the clocks may differ."""
MOST_AT_ONCE = 500
"""The highest number of rows that one transaction removes, or one opening of the journal if few rows are appended."""
MAX_UNREAD = 100_000
"""How many unread events a bus keeps for a name."""
FORGOTTEN_TIMES = 10
"""A name is removed when it was not used for this many times the period for which events are kept."""


class HostTime(NamedTuple):
    """The seconds since the host was started, and the time by its clock."""

    seconds: float
    wall: float

    @classmethod
    def now(cls) -> "HostTime":
        """Return the time of this host."""
        return cls(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def keep(journal: Journal, kept_seconds: float, *, limit: int = MAX_UNREAD, host: HostTime | None = None) -> None:
    """
    Advance the clock of a journal, and remove some of the rows that are older than `kept_seconds` by that clock.

    Rows that a named subscription in use has not read stay, up to the newest `limit` rows. Other subscriptions lose
    their unread rows, and the loss is counted. If the file cannot be written to at the moment, this does nothing, and
    the next process does it.
    """
    patience, journal.patience = journal.patience, 0.0
    with signals_deferred():
        try:
            _keep(journal, kept_seconds, limit, HostTime.now() if host is None else host)
        except JournalError:
            pass
        except Exception as error:  # noqa: BLE001 - the journal can be used without it
            log_internal_error_once(f"old events stay in {journal.path}", error)
        finally:
            journal.patience = patience


def _keep(journal: Journal, kept_seconds: float, limit: int, host: HostTime) -> None:
    clock = _Clock.of(journal.value_of("clock"))
    if clock is not None:
        # Set the clock before the mark: the mark fails if the file is busy.
        _set_clock(journal, clock.at(host))
    if clock is None or clock.is_due(host):
        _set_clock(journal, journal.transact(lambda connection: _mark(connection, kept_seconds, host)))
    boundary = journal.value_of("prune_to")
    if isinstance(boundary, int) and boundary > 0:
        first = journal.first()
        if first is not None and first <= boundary:
            unused = journal.clock() - kept_seconds
            # Remove twice the number of rows appended lately: a process may open the journal seldom, and append much.
            for _ in range(1 + 2 * _appended_lately(journal) // MOST_AT_ONCE):
                if not journal.transact(lambda connection: _remove(connection, boundary, limit, unused)):
                    break


def _appended_lately(journal: Journal) -> int:
    """Return how many rows were appended since the mark before the last one."""
    marks = _marks(journal.value_of("marks"))[-2:]
    return journal.last() - marks[0][1] if marks else 0


def _set_clock(journal: Journal, now: float) -> None:
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    journal.clock = lambda: now + time.clock_gettime(time.CLOCK_BOOTTIME) - began


class _Clock(NamedTuple):
    """The time that the file's clock showed, in seconds, at a time of the host."""

    shown: float
    host: HostTime

    @classmethod
    def of(cls, value: object) -> "_Clock | None":
        """Return the stored clock; None if there is none, or if it cannot be read."""
        with contextlib.suppress(ValueError, TypeError):
            shown, seconds, wall = json.loads(str(value))
            return cls(float(shown), HostTime(float(seconds), float(wall)))
        return None

    def at(self, host: HostTime) -> float:
        """Return the time that the clock shows at another time of this host, or at a time of another host."""
        # A host with a shorter uptime was restarted since, or is another host.
        ran = host.seconds if host.seconds < self.host.seconds else host.seconds - self.host.seconds
        return self.shown + max(0.0, min(ran, host.wall - self.host.wall))

    def is_due(self, host: HostTime) -> bool:
        """Return True if it is time for the next mark, or if one of the two clocks was set back."""
        is_behind = host.seconds < self.host.seconds or host.wall < self.host.wall
        return is_behind or self.at(host) >= self.shown + MARK_SECONDS


def _mark(connection: sqlite3.Connection, kept_seconds: float, host: HostTime) -> float:
    """Record the number of the last row, and the row up to which all are too old; return the file's time."""
    values = dict(connection.execute("SELECT name, value FROM fact WHERE name IN ('clock', 'marks')"))
    clock = _Clock.of(values.get("clock"))
    if clock is not None and not clock.is_due(host):
        return clock.at(host)
    now = _beginning(connection) if clock is None else clock.at(host)
    last = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message'").fetchone()[0]
    marks = _marks(values.get("marks"))
    # A clock that is set back repeatedly must not increase the number of marks.
    if not marks or now >= marks[-1][0] + MARK_SECONDS:
        marks.append((now, last))
    old = [seq for moment, seq in marks if moment < now - kept_seconds]
    kept = marks[max(0, len(old) - 1) :]
    changed = {
        "clock": json.dumps([now, host.seconds, host.wall]),
        "marks": json.dumps(kept),
        "prune_to": max(old, default=0),
    }
    connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", changed.items())
    connection.execute("DELETE FROM subscription WHERE used < ?", (now - FORGOTTEN_TIMES * kept_seconds,))
    connection.execute(
        "DELETE FROM fact WHERE (name GLOB 'wanted *' OR name GLOB 'missed *')"
        " AND substr(name, 8) NOT IN (SELECT name FROM subscription)"
    )
    connection.execute("DELETE FROM dead_letter WHERE dead < ?", (now - kept_seconds,))
    connection.execute(
        "DELETE FROM fact WHERE name GLOB ?"
        " AND name NOT IN (SELECT 'letter ' || seq || ' ' || subscription FROM dead_letter)",
        (NOTES,),
    )
    return now


def _beginning(connection: sqlite3.Connection) -> float:
    """Return the first time of a file's clock: the host's time, but not after the last use of its subscriptions."""
    (used,) = connection.execute("SELECT max(used) FROM subscription WHERE typeof(used) = 'real'").fetchone()
    return time.time() if used is None else min(time.time(), used)


def _marks(value: object) -> list[tuple[float, int]]:
    """Return the marks of a file: pairs of a time by its clock and the number of the last row at that time."""
    with contextlib.suppress(ValueError, TypeError):
        return [(float(moment), int(seq)) for moment, seq in json.loads(str(value))]
    return []


def last_before(journal: Journal, moment: float, *, host: HostTime | None = None) -> int:
    """
    Return the number after which all rows count as appended at `moment` (seconds since 1970) or later.

    This is the number before the first row that was appended since then by the system's clock; rows after it may have
    any time. If there is no such row, the marks of the file decide: a slow clock does not hide recent rows.
    """
    clock = _Clock.of(journal.value_of("clock"))
    before, within = 0, journal.last()
    if clock is not None:
        then = clock.at(HostTime.now() if host is None else host) - (time.time() - moment)
        marks = _marks(journal.value_of("marks"))
        before = max((seq for at, seq in marks if at <= then - _MARGIN_SECONDS), default=0)
        within = min((seq for at, seq in marks if at >= then + _MARGIN_SECONDS), default=within)
    since = "SELECT seq FROM message WHERE seq > ? AND appended >= ? ORDER BY seq LIMIT 1"
    rows = journal.rows(since, before, moment)
    return int(rows[0][0]) - 1 if rows else within


def _remove(connection: sqlite3.Connection, boundary: int, limit: int, unused: float) -> int:
    """Remove the oldest rows up to `boundary`, not those that names used since `unused` need; count lost events."""
    last = connection.execute("SELECT max(seq) FROM message").fetchone()[0] or 0
    places = connection.execute(
        f"SELECT name, {POSITION}, used >= ? FROM subscription",  # noqa: S608 - a constant
        (unused,),
    ).fetchall()
    for _, position, is_used in places:
        if is_used:
            boundary = min(boundary, max(position, last - limit))
    rows = connection.execute(
        "SELECT seq, exchange, routing_key FROM message WHERE seq <= ? ORDER BY seq LIMIT ?", (boundary, MOST_AT_ONCE)
    ).fetchall()
    if not rows:
        return 0
    for name, position, _ in places:
        _count_lost(connection, name, [row for row in rows if row[0] > position])
    removed = connection.execute("DELETE FROM message WHERE seq <= ?", (rows[-1][0],)).rowcount
    connection.execute("UPDATE fact SET value = value + ? WHERE name = 'pruned'", (removed,))
    return removed


def _count_lost(connection: sqlite3.Connection, name: str, rows: Sequence[tuple[int, str, str]]) -> None:
    """Count the events among removed rows that a subscription selects, as lost to it."""
    if not rows:
        return
    found = connection.execute("SELECT value FROM fact WHERE name = ?", (f"wanted {name}",)).fetchone()
    exchange, patterns = _wanted(found[0] if found else None)
    lost = sum(
        exchange in (None, row[1]) and any(topic_matches(pattern, row[2]) for pattern in patterns) for row in rows
    )
    connection.execute(
        "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (f"missed {name}", lost),
    )


def _wanted(value: object) -> tuple[str | None, list[str]]:
    """Return the exchange and the patterns that a subscription has stored; all events if they cannot be read."""
    with contextlib.suppress(ValueError, TypeError):
        exchange, patterns = json.loads(str(value))
        return exchange, [str(pattern) for pattern in patterns]
    return None, ["#"]
