"""
The consumer that counts: it stores occurrences as they arrive, and each second issues the notices that are due.

An event's occurrence is stored in the transaction that marks the event as done. The groups of all routes, and the
notices as rows of the inbox, are stored in the transaction that removes the occurrences. So each event is counted once,
and no notice is lost or issued twice, whenever the process is killed. Nothing is sent here (delivery).
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection, delete, select

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.consumer.service import rules_of
from dkist_processing_core.events import CONTENT_TYPE, Event, encode
from dkist_processing_core.inbox import Arrival
from dkist_processing_core.inbox.arrivals import store
from dkist_processing_core.inbox.pruning import prune
from dkist_processing_core.notify.delivery import delivery
from dkist_processing_core.notify.grouping import Fold, RouteState
from dkist_processing_core.notify.mutes import held_by, mutes_at
from dkist_processing_core.notify.notices import notice_of
from dkist_processing_core.notify.occurrences import COUNTED, Alarm, Occurrence, occurrence_of
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.notify.store_facts import ended
from dkist_processing_core.notify.tables import OCCURRENCES, ROUTES
from dkist_processing_core.settings.interface import Settings

NAME = "dkist-core.notify"
"""The name of the consumer on the bus and in the inbox."""
FOLD_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0
_BATCH, _MOST, _MOST_CHECKED = 500, 5_000, 100
_to_json = msgspec.json.Encoder().encode
_to_occurrence = msgspec.json.Decoder(Occurrence).decode
_to_state = msgspec.json.Decoder(RouteState).decode


class Counting:
    """The counting of the routes; each method works in the transaction of its caller."""

    def __init__(
        self, settings: Settings, routes: Mapping[str, Route], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Store the routes and the clock. Nothing is opened."""
        self._routes = routes
        self._rules = {name: rules_of(delivery(settings, name, route)) for name, route in routes.items()}
        self._clock = clock

    def add(self, transaction: Connection, event: Event) -> None:
        """Store what is to be counted of an event that a route wants."""
        occurrence = occurrence_of(event)
        if occurrence is not None and any(route.wants(occurrence) for route in self._routes.values()):
            transaction.execute(OCCURRENCES.insert(), {"facts": _to_json(occurrence)})

    def fold(self, transaction: Connection) -> None:
        """Count what has arrived, and store the notices that are due."""
        now = self._clock()
        oldest = select(OCCURRENCES.c.number).order_by(OCCURRENCES.c.number).limit(_MOST)
        taken = delete(OCCURRENCES).where(OCCURRENCES.c.number.in_(oldest)).returning(OCCURRENCES)
        rows = sorted(transaction.execute(taken).all(), key=lambda row: int(row.number))
        occurrences = [_to_occurrence(row.facts) for row in rows]
        mutes = held_by(mutes_at(transaction, now))
        for name, route in self._routes.items():
            before = transaction.scalar(select(ROUTES.c.state).where(ROUTES.c.name == name))
            state = RouteState(f"{int(1000 * now):x}") if before is None else _to_state(before)
            wanted = filter(route.wants, occurrences)
            drafts = Fold(state, route.rule, now, mutes).add(wanted, ended(transaction, _checked(state, now)))
            arrivals = []
            for draft in drafts:
                state.notices += 1
                notice = notice_of(transaction, name, state, draft, datetime.fromtimestamp(now, UTC))
                arrivals.append(Arrival(notice, encode(notice), CONTENT_TYPE))
            if arrivals:
                store(transaction, self._rules[name], arrivals, now)
            if (after := _to_json(state)) != before:
                transaction.execute(delete(ROUTES).where(ROUTES.c.name == name))
                transaction.execute(ROUTES.insert(), {"name": name, "state": after})

    def prune(self, transaction: Connection) -> None:
        """Delete old notices that were delivered."""
        for rules in self._rules.values():
            prune(transaction, rules, 1000, self._clock())


def _checked(state: RouteState, now: float) -> list[Alarm]:
    """Return the open alarms to ask the store about: others each second if there are many."""
    alarms = [alarm for group in state.groups.values() for alarm in group.open_alarms]
    first = int(now) * _MOST_CHECKED % max(1, len(alarms))
    return [*alarms[first:], *alarms[:first]][:_MOST_CHECKED]


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
