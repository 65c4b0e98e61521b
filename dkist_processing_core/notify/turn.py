"""
Which process counts: processes with different files of routes do not count at the same time, and removed routes end.

The routes that count are known by their digest. Not here: the counting (counting).
"""

import hashlib
import logging
from collections.abc import Container, Mapping

import msgspec
from sqlalchemy import Connection, delete, select

from dkist_processing_core.inbox.outcomes import mark_dead
from dkist_processing_core.inbox.tables import State, inbox
from dkist_processing_core.notify.delivery import PREFIX
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.notify.tables import ROUTES

ROW_OF_TURN = ""
"""The name of the row of the routes that count now; no route has it."""
_LIVE_SECONDS, _RENEW_SECONDS = 30.0, 5.0
_REMOVED = "its route is no longer in the file of the routes"
logger = logging.getLogger("dkist_processing_core.notify")


class Counter(msgspec.Struct):
    """The routes for which was counted last, by their digest, and when."""

    digest: str
    at: float


class Turn:
    """The turn of a process to count for its routes."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Store the routes."""
        self._routes = routes
        content = msgspec.json.encode({name: route.model_dump(mode="json") for name, route in sorted(routes.items())})
        self._digest = hashlib.sha256(content).hexdigest()
        self._is_refused = False

    def take(self, transaction: Connection, now: float) -> bool:
        """Return False while another process counts for other routes; it is logged once."""
        row = transaction.scalar(select(ROUTES.c.state).where(ROUTES.c.name == ROW_OF_TURN))
        last = None if row is None else msgspec.json.decode(row, type=Counter)
        is_same = last is not None and last.digest == self._digest
        # The clocks of two hosts may differ.
        if last is not None and not is_same and abs(now - last.at) < _LIVE_SECONDS:
            if not self._is_refused:
                logger.error(
                    "another process counts notices for other routes: expected the same file of routes in each; this "
                    "process counts nothing until %g s after the end of the other",
                    _LIVE_SECONDS,
                )
            self._is_refused = True
            return False
        self._is_refused = False
        if not is_same:
            give_up_removed(transaction, self._routes, now)
        if last is None or not is_same or abs(now - last.at) >= _RENEW_SECONDS:
            put(transaction, ROW_OF_TURN, msgspec.json.encode(Counter(self._digest, now)))
        return True


def give_up_removed(transaction: Connection, routes: Container[str], now: float) -> None:
    """Drop the groups of routes that are not given, and make dead letters of their notices."""
    for name in transaction.scalars(select(ROUTES.c.name).where(ROUTES.c.name != ROW_OF_TURN)).all():
        if name not in routes:
            transaction.execute(delete(ROUTES).where(ROUTES.c.name == name))
    of_routes = inbox.c.consumer.startswith(PREFIX, autoescape=True)
    waiting = select(inbox.c.seq, inbox.c.consumer).where(of_routes, inbox.c.state == State.WAITING)
    for row in transaction.execute(waiting).all():
        if row.consumer.removeprefix(PREFIX) not in routes:
            mark_dead(transaction, row.seq, reason=_REMOVED, family="removed", now=now)
            logger.error("the notice i%s is a dead letter: %s", row.seq, _REMOVED)


def put(transaction: Connection, name: str, state: bytes) -> None:
    """Store a row of the routes in the place of the former one."""
    transaction.execute(delete(ROUTES).where(ROUTES.c.name == name))
    transaction.execute(ROUTES.insert(), {"name": name, "state": state})
