"""
The consumer that counts: it stores occurrences as they arrive, and each second issues the notices that are due.

An event's occurrence is stored in the transaction that marks the event as done. The groups of all routes, and the
notices as rows of the inbox, are stored in the transaction that removes the occurrences. So each event is counted once,
and no notice is lost or issued twice, whenever the process is killed. Nothing is sent here (delivery).
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import SQLAlchemyError

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.consumer.service import rules_of
from dkist_processing_core.errors import InboxError
from dkist_processing_core.events import CONTENT_TYPE, Event, encode
from dkist_processing_core.inbox import Arrival
from dkist_processing_core.inbox.arrivals import store
from dkist_processing_core.inbox.pruning import prune
from dkist_processing_core.notify.delivery import delivery
from dkist_processing_core.notify.grouping import Fold
from dkist_processing_core.notify.groups import Mutes, RouteState
from dkist_processing_core.notify.mutes import held_by, mutes_at
from dkist_processing_core.notify.notices import notice_of
from dkist_processing_core.notify.occurrences import COUNTED, Occurrence, occurrence_of
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.notify.store_facts import ended
from dkist_processing_core.notify.tables import OCCURRENCES, ROUTES
from dkist_processing_core.notify.turn import Turn, give_up_removed, put
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import redact

NAME = "dkist-core.notify"
"""The name of the consumer on the bus and in the inbox."""
FOLD_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0
_ASK_SECONDS = 10.0
_BATCH, _MOST, _STEP = 500, 5_000, 500
_to_json = msgspec.json.Encoder().encode
_to_occurrence = msgspec.json.Decoder(Occurrence).decode
_to_state = msgspec.json.Decoder(RouteState).decode
logger = logging.getLogger("dkist_processing_core.notify")


class Counting:
    """The counting of the routes; each method works in the transaction of its caller."""

    def __init__(
        self, settings: Settings, routes: Mapping[str, Route], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Store the routes and the clock. Nothing is opened."""
        self._routes = routes
        self._rules = {name: rules_of(delivery(settings, name, route)) for name, route in routes.items()}
        self._turn = Turn(routes)
        self._clock = clock
        self._asked_at = float("-inf")
        self._faults: dict[str, str] = {}

    def add(self, transaction: Connection, event: Event) -> None:
        """Store what is to be counted of an event; the routes that want it are known when it is counted."""
        if (occurrence := occurrence_of(event)) is not None:
            transaction.execute(OCCURRENCES.insert(), {"facts": _to_json(occurrence)})

    def fold(self, transaction: Connection) -> None:
        """Count what has arrived, and store the notices that are due."""
        now = self._clock()
        if not self._turn.take(transaction, now):
            return
        occurrences, mutes = _taken(transaction), held_by(mutes_at(transaction, now))
        stored = {row.name: row.state for row in transaction.execute(select(ROUTES)) if row.name in self._routes}
        asks = abs(now - self._asked_at) >= _ASK_SECONDS
        for name, route in self._routes.items():
            try:
                # The other routes go on if one fails.
                with transaction.begin_nested():
                    self._fold_route(transaction, name, stored.get(name), _Found(occurrences, mutes, now, asks))
            except (SQLAlchemyError, InboxError):
                raise
            except Exception as error:  # noqa: BLE001 - any error of one route
                self._log_fault(name, error, sum(map(route.wants, occurrences)))
            else:
                self._faults.pop(name, None)
        if asks:
            self._asked_at = now

    def _fold_route(self, transaction: Connection, name: str, before: bytes | None, found: "_Found") -> None:
        route, now = self._routes[name], found.now
        state = RouteState(f"{int(1000 * now):x}") if before is None else _to_state(before)
        alarms = [alarm for group in state.groups.values() for alarm in group.alarms.values()] if found.asks else []
        wanted = filter(route.wants, found.occurrences)
        drafts = Fold(state, route.rule, now, found.mutes).add(wanted, ended(transaction, alarms))
        arrivals = []
        for draft in drafts:
            state.notices += 1
            notice = notice_of(transaction, name, state, draft, datetime.fromtimestamp(now, UTC))
            arrivals.append(Arrival(notice, encode(notice), CONTENT_TYPE))
        if arrivals:
            store(transaction, self._rules[name], arrivals, now)
        if (after := _to_json(state)) != before:
            put(transaction, name, after)

    def _log_fault(self, name: str, error: Exception, lost: int) -> None:
        """Log an error of a route once, until another one follows or it is over."""
        line = redact(f"{type(error).__name__}: {error}")
        if self._faults.get(name) != line or lost:
            text = "the route %s cannot be counted: %s; %s not counted for it; the other routes go on"
            logger.error(text, name, line, "1 occurrence is" if lost == 1 else f"{lost} occurrences are")
        self._faults[name] = line

    def prune(self, transaction: Connection) -> None:
        """Delete old notices that were delivered, and give up those of routes that were removed."""
        now = self._clock()
        if self._turn.take(transaction, now):
            give_up_removed(transaction, self._routes, now)
        for rules in self._rules.values():
            prune(transaction, rules, 1000, now)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one fold has for all routes."""

    occurrences: list[Occurrence]
    mutes: Mutes
    now: float
    asks: bool
    """Whether the store is asked for alarms that have ended: not at each fold."""


def _taken(transaction: Connection) -> list[Occurrence]:
    """Remove the oldest occurrences, and return them."""
    rows = transaction.execute(select(OCCURRENCES).order_by(OCCURRENCES.c.number).limit(_MOST)).all()
    numbers = [row.number for row in rows]
    for first in range(0, len(numbers), _STEP):
        transaction.execute(delete(OCCURRENCES).where(OCCURRENCES.c.number.in_(numbers[first : first + _STEP])))
    return [_to_occurrence(row.facts) for row in rows]


def counting_consumer(
    settings: Settings, routes: Mapping[str, Route], *, clock: Callable[[], float] = time.time
) -> Consumer:
    """Return the consumer that counts for the routes."""
    counting = Counting(settings, routes, clock=clock)
    consumer = Consumer(NAME, batch_size=_BATCH, settings=settings)
    consumer.has_spans = False

    @consumer.on(*COUNTED)
    def count(event: Event, transaction: Connection) -> None:
        counting.add(transaction, event)

    @consumer.every(FOLD_SECONDS)
    def fold(transaction: Connection) -> None:
        counting.fold(transaction)

    @consumer.every(_PRUNE_SECONDS)
    def prune_notices(transaction: Connection) -> None:
        counting.prune(transaction)

    return consumer
