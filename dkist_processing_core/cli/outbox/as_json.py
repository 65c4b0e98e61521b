"""
The journals of this host, and the messages that are set aside in them, as JSON.

Not here: the data (outbox).
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.events import format_time
from dkist_processing_core.journal import Books, SetAside
from dkist_processing_core.outbox import OutboxState, SpareState


def as_json(state: OutboxState, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a journal's state as JSON values, with secrets hidden; unknown values are null."""
    destination = None
    if state.destination is not None:
        found = {
            name: hide(value) if isinstance(value, str) else value for name, value in asdict(state.destination).items()
        }
        exchanges = {"eventExchange": found.pop("event_exchange"), "failureExchange": found.pop("failure_exchange")}
        destination = found | exchanges
    return {
        "file": hide(str(state.path)),
        "kind": "embedded" if state.is_embedded else "outbox",
        "current": state.is_current,
        "destination": destination,
        **_books(state.books),
        "oldestPending": time_of(state.oldest),
        "deliveredBy": state.deliverer,
        "unreachableUntil": time_of(state.unreachable_until),
        "spares": [_spare(spare, hide) for spare in state.spares],
        "damaged": [
            {"file": hide(str(each.path)), "takenOver": each.taken_over, "done": each.is_done} for each in state.damaged
        ],
        "problem": hide(problem) if (problem := state.problem or state.lock_problem) else None,
    }


def _spare(spare: SpareState, hide: Callable[[str], str]) -> dict[str, Any]:
    return {
        "file": hide(str(spare.path)),
        "owner": spare.owner,
        **_books(spare.books),
        "problem": None if spare.problem is None else hide(spare.problem),
    }


def _books(books: Books | None) -> dict[str, int | None]:
    names = {"published": "published", "confirmed": "confirmed", "pending": "pending", "setAside": "set_aside"}
    return {key: None if books is None else getattr(books, name) for key, name in names.items()}


def set_aside_as_json(entry: SetAside, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a message that is set aside as JSON values, without its body."""
    properties = entry.message.properties
    return {
        "number": entry.seq,
        "type": properties.type and hide(properties.type),
        "exchange": hide(entry.message.exchange),
        "routingKey": hide(entry.message.routing_key),
        "id": hide(properties.message_id),
        "publishedAt": time_of(entry.appended),
        "tries": entry.tries,
        "refusedAt": time_of(entry.refused),
        "reason": hide(entry.reason),
    }


def time_of(seconds: float | None) -> str | None:
    """Return a time in the format of the events."""
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))
