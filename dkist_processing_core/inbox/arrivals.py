"""
Arrivals: received messages become rows, each key once, before they are acknowledged to the bus.

It is long because a firm report and a provisional one have each an effect on the other. Not here: receiving them
(consumer), and inserting many rows (bulk).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, select, text, update

from dkist_processing_core.events import Event, TaskEnd, TaskEvent, TaskFailed, attribute_headers
from dkist_processing_core.inbox import bulk
from dkist_processing_core.inbox.order import RunKey, let_go_on
from dkist_processing_core.inbox.provisional import cancel
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import CLEAR, UNFINISHED, State, inbox, indexed
from dkist_processing_core.text import clean, clean_line

_STRUCTURED = "application/cloudevents"


class Arrival(NamedTuple):
    """One received message: its event, or the reason why it is none."""

    event: Event | None
    body: bytes
    content_type: str | None = None
    headers: Mapping[str, Any] | None = None
    reason: str | None = None
    """Why the message is no event; it is stored as a dead letter."""
    is_wanted: bool = True
    """Whether a handler wants the event; another one is stored only if it may contradict a provisional report."""
    family: str = "undecodable"
    """The kind of the reason."""

    def refused(self, reason: str) -> "Arrival":
        """Return the message as one that the database refuses as an event."""
        return self._replace(event=None, reason=reason, family="refused")


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of storing a batch of arrivals."""

    new: int
    """Rows that were not there before."""
    repeated: int
    """Arrivals whose key was known."""
    dead: int
    """Arrivals that are no events; they are among the others too."""
    is_handled: bool = False
    """Whether the events were handled in the same transaction."""


class RepeatedError(Exception):
    """An arrival that was to be handled at once is known."""


def store(connection: Connection, rules: Rules, arrivals: Sequence[Arrival], now: float) -> Stored:
    """Store arrivals in their order."""
    rows = [row for arrival in arrivals if (row := _row(arrival, rules, now)) is not None]
    return _store(connection, rules, rows, now, _insert)


def store_handled(connection: Connection, rules: Rules, arrivals: Sequence[Arrival], now: float) -> Stored:
    """
    Store arrivals whose events are handled in the same transaction, by a consumer of every report.

    Raises:
        RepeatedError: One of them is known, so that the transaction must be rolled back.
    """
    # Nothing but the key of a handled event is needed again.
    handled = [
        (rules.name, key_of(each.event, each.body, rules), each.event.name, 0, 0, 0, now, _DONE, _AT_ONCE, now)
        for each in arrivals
        if each.event is not None
    ]
    others = [row for each in arrivals if each.event is None and (row := _row(each, rules, now)) is not None]
    new = bulk.insert(
        connection, inbox, _OF_HANDLED, handled, unless_known=_UNIQUE, often_equal=_OFTEN_EQUAL
    ) + _insert(connection, others)
    if new < len(handled) + len(others):
        raise RepeatedError
    return Stored(new, 0, len(others), is_handled=True)


def identify(connection: Connection, rules: Rules, row: RowMapping, event: Event, now: float) -> None:
    """Store the event of a row that was none when it arrived: in that row, or nowhere if the event's key is known."""
    new = _row(Arrival(event, row["body"], row["content_type"]), rules, now)
    assert new is not None, "it is wanted"

    def put(connection: Connection, _: Sequence[_New]) -> int:
        if not _insert(connection, [new]):
            connection.execute(_repetition, {"seq": row["seq"], "now": now})
            return 0
        # No other process can insert this key until the end of the transaction.
        connection.execute(_removal, {"consumer": new.consumer, "key": new.key})
        values = {name: getattr(new, name) for name in _IDENTIFIED} | {
            name: bool(getattr(new, name)) for name in _TRUTHS
        }
        connection.execute(update(inbox).where(inbox.c.seq == row["seq"]).values(values))
        return 1

    _store(connection, rules, [new], now, put)


class _New(NamedTuple):
    """The values of a new row, in the order of the statements' columns."""

    consumer: str
    key: str
    name: str | None
    workflow: str | None
    version: str | None
    run_id: str | None
    task: str | None
    attempt: int | None
    reporter: str | None
    # Numbers: the driver of SQLite takes longer for truth values.
    provisional: int
    is_end: int
    is_final: int
    body: bytes | None
    content_type: str | None
    headers: str | None
    received_at: float
    state: str
    due_at: float
    # From here on for rows that are not to be handled.
    done_at: float | None = None
    # From here on for rows that are no events.
    first_failed_at: float | None = None
    last_failed_at: float | None = None
    family: str | None = None
    reason: str | None = None


def _store(
    connection: Connection,
    rules: Rules,
    rows: Sequence[_New],
    now: float,
    insert: Callable[[Connection, Sequence[_New]], int],
) -> Stored:
    ends = [] if rules.every_report else [row for row in rows if row.is_end]
    if firm := [row for row in ends if row.state == _WAITING and not row.provisional]:
        connection.execute(_withdrawal, {"consumer": rules.name, "keys": [row.key for row in firm]})
    new = insert(connection, rows) if rows else 0
    if ends:
        runs = [RunKey(str(row.run_id), str(row.workflow), str(row.version)) for row in ends]
        changed = 0
        if firm and new < len(rows):
            values = {"consumer": rules.name, "keys": [row.key for row in firm]}
            provisional = set(connection.scalars(_provisional, values))
            changed = sum(_replace(connection, row) for row in firm if row.key in provisional)
        changed += cancel(connection, rules, runs, now)
        if changed and rules.ordered:
            let_go_on(connection, rules.name, runs)
    return Stored(new, len(rows) - new, sum(row.state == State.DEAD for row in rows))


def _row(arrival: Arrival, rules: Rules, now: float) -> _New | None:
    """Return the row of an arrival; None for an event that needs none."""
    event, body = arrival.event, arrival.body
    content_type = None if arrival.content_type is None else clean_line(arrival.content_type)
    if event is None:
        return _undecodable(arrival, rules, now, content_type)
    is_end = is_final = is_provisional = False
    if isinstance(event, TaskEnd):
        is_end, is_provisional = True, event.provisional
        is_final = not isinstance(event, TaskFailed) or event.final is True
    state, due_at = _WAITING, _AT_ONCE
    if not arrival.is_wanted:
        if is_provisional or not is_end:
            return None
        state = _UNWANTED
    elif is_provisional and event.name in rules.doubted and not rules.every_report:
        due_at = now + rules.provisional_after
    # In structured mode the body alone is the event.
    is_structured = content_type is not None and content_type.startswith(_STRUCTURED)
    task, attempt = (event.task_name, event.attempt) if isinstance(event, TaskEvent) else (None, None)
    return _New(
        rules.name,
        key_of(event, body, rules),
        event.name,
        event.workflow_name,
        event.workflow_version,
        indexed(event.run_id),
        None if task is None else indexed(task),
        attempt,
        event.reported_by.value,
        int(is_provisional),
        int(is_end),
        int(is_final),
        body if arrival.is_wanted else None,
        content_type,
        None if is_structured else _to_json(arrival.headers),
        now,
        state,
        due_at,
        done_at=None if arrival.is_wanted else now,
    )


def _undecodable(arrival: Arrival, rules: Rules, now: float, content_type: str | None) -> _New:
    return _New(
        rules.name,
        _key_of_message(arrival),
        name=None,
        workflow=None,
        version=None,
        run_id=None,
        task=None,
        attempt=None,
        reporter=None,
        provisional=0,
        is_end=0,
        is_final=0,
        body=arrival.body,
        content_type=content_type,
        headers=_to_json(arrival.headers),
        received_at=now,
        state=State.DEAD.value,
        due_at=_AT_ONCE,
        first_failed_at=now,
        last_failed_at=now,
        family=arrival.family,
        reason=clean(arrival.reason or "the message is no event"),
    )


def _key_of_message(arrival: Arrival) -> str:
    """Return the key of a message without an event: in binary mode, equal bodies may have different headers."""
    attributes = attribute_headers(arrival.content_type, arrival.headers)
    return f"undecodable {hashlib.sha256(arrival.body + (_to_json(attributes) or '').encode()).hexdigest()}"


def seq_of_refused(connection: Connection, rules: Rules, arrival: Arrival) -> int | None:
    """Return the number of the row of a message that was stored as refused; None if an operator has deleted it."""
    is_of_message = (inbox.c.consumer == rules.name, inbox.c.key == _key_of_message(arrival))
    return connection.scalar(select(inbox.c.seq).where(*is_of_message))


def key_of(event: Event, body: bytes, rules: Rules) -> str:
    """
    Return what makes a row unique: the id of the occurrence, or one report of it.

    If events are handled on arrival, the key begins with the event's time, an attribute of the same report: the keys of
    events that arrive together are then neighbours in the index, and a transaction writes a few of its pages.
    """
    if not rules.every_report:
        return event.id
    key = f"{event.id} {event.reported_by} {hashlib.sha256(body).hexdigest()}"
    return f"{event.time.isoformat()} {key}" if rules.handles_on_arrival else key


def _to_json(headers: Mapping[str, Any] | None) -> str | None:
    if not headers:
        return None
    plain = {str(name): _plain(value) for name, value in headers.items()}
    return clean(msgspec.json.encode(plain, enc_hook=str).decode())


def _plain(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_WAITING, _UNWANTED, _DONE = State.WAITING.value, State.UNWANTED.value, State.DONE.value
_AT_ONCE = 0.0
_USUAL = _New._fields[: _New._fields.index("done_at")]
_UNIQUE = ("consumer", "key")
_OFTEN_EQUAL = frozenset(_New._fields) - {"key", "body"}
_OF_EVENTS = _New._fields[: _New._fields.index("first_failed_at")]
_TRUTHS = ("provisional", "is_end", "is_final")
_OF_HANDLED = (*_UNIQUE, "name", *_TRUTHS, "received_at", "state", "due_at", "done_at")


def _insert(connection: Connection, rows: Sequence[_New]) -> int:
    """Insert the rows whose keys are new, and return their number."""
    # A column without a value takes as long as another one.
    states = {row.state for row in rows}
    columns = _USUAL if states == {_WAITING} else _New._fields if State.DEAD in states else _OF_EVENTS
    return bulk.insert(
        connection,
        inbox,
        columns,
        [row[: len(columns)] for row in rows],
        unless_known=_UNIQUE,
        often_equal=_OFTEN_EQUAL,
    )


# A firm report that is wanted arrives anew if its key is that of a row without effect.
_withdrawal = text(
    """
    DELETE FROM dkist_core_inbox WHERE consumer = :consumer AND key IN :keys AND state IN ('cancelled', 'unwanted')
    """
).bindparams(bindparam("keys", expanding=True))
_removal = text("DELETE FROM dkist_core_inbox WHERE consumer = :consumer AND key = :key")
_IDENTIFIED = ("key", "name", "workflow", "version", "run_id", "task", "attempt", "reporter", "due_at", *_TRUTHS)
_repetition = text(
    f"UPDATE dkist_core_inbox SET state = 'done', {CLEAR}, done_at = :now WHERE seq = :seq"  # noqa: S608 - constants
)
# A dead letter is replaced as well: what an operator retries is then the firm report.
_provisional = text(
    f"SELECT key FROM dkist_core_inbox WHERE consumer = :consumer AND key IN :keys AND provisional AND {UNFINISHED}"  # noqa: S608
).bindparams(bindparam("keys", expanding=True))
_REPLACED = ("body", "content_type", "headers", "reporter", "due_at")
_replacement = text(
    f"""
    UPDATE dkist_core_inbox
    SET provisional = FALSE, is_final = :is_final, {", ".join(f"{name} = :new_{name}" for name in _REPLACED)}
    WHERE consumer = :consumer AND key = :key AND provisional AND {UNFINISHED}
    """  # noqa: S608 - names of columns, and a constant
)


def _replace(connection: Connection, row: _New) -> int:
    """Put a firm report in the place of a provisional one of its key, and return 1 if there is one."""
    values = {f"new_{name}": getattr(row, name) for name in _REPLACED} | {"is_final": bool(row.is_final)}
    return connection.execute(_replacement, values | {"consumer": row.consumer, "key": row.key}).rowcount
