"""
A worker of a consumer: it claims rows of the inbox, calls their handlers, and records the outcome.

Each step is one call that several threads make. It is long because each outcome is recorded, also after
an outage. Not here: the threads (service), and the statements (inbox).
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.consumer.event_loop import EventLoop
from dkist_processing_core.consumer.handlers import Called, line_of
from dkist_processing_core.consumer.measures import Measures
from dkist_processing_core.consumer.outage import Outage
from dkist_processing_core.consumer.process_spans import ProcessSpans
from dkist_processing_core.errors import ClaimLostError, InboxError, InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Inbox, Row
from dkist_processing_core.inbox.order import RunKey

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FEWEST, _MOST = 1, 500
# The size of a claim follows the time that handlers take: other workers should find work as well.
_FAST_SECONDS, _SLOW_SECONDS = 0.2, 1.0
_NOTHING = nullcontext()
logger = logging.getLogger("dkist_processing_core.consumer")


@dataclass(slots=True)
class Handled:
    """The numbers of events since the start of a consumer, for its log and its health."""

    done: int = 0
    failed: int = 0
    dead: int = 0


class _HandlerFailedError(Exception):
    """A handler raised an exception, which is the cause of this one."""

    def __init__(self, row: Row, called: Called, error: Exception, within: Context) -> None:
        # Its text is not asked for: an author's exception may have none.
        super().__init__()
        self.row = row
        self.called = called
        self.error = error
        self.within = within
        """The context of the call, in which the failure is logged."""


class Worker:
    """Handles rows; of several workers each has its own."""

    def __init__(
        self,
        inbox: Inbox,
        wanting: Callable[[Event], Sequence[Called]],
        *,
        batch_size: int,
        database: Outage,
        handled: Handled,
        steps: Callable[[str], None],
        loop: EventLoop,
        secrets: Sequence[str],
        spans: ProcessSpans | None,
        measures: Measures | None,
    ) -> None:
        """
        Store the inbox, the choice of the handlers of an event, and what a log of their failures may not show.

        Without spans and identified log records, `spans` is None; without metrics, `measures` is None.
        """
        self._inbox = inbox
        self._wanting = wanting
        self._batch_size = batch_size
        self._database = database
        self._handled = handled
        self._steps = steps
        self._loop = loop
        self._secrets = secrets
        self._spans = spans
        self._measures = measures
        self._limit = _FEWEST
        self._claimed_at = 0.0
        self._claimed = 0
        self._rows: deque[Row] = deque()
        # Claimed rows that it will not handle, until the inbox has recorded that.
        self._leaving: list[Row] = []
        # The rows that are being handled. If a handler exits, it is the one of that handler: its start counts.
        self._in_hand: frozenset[int] = frozenset()
        # Whether the handlers of the next row have ended outside of a transaction, and the failure of one of them: if
        # the inbox cannot record that, they are not called again.
        self._has_ended = False
        self._failure: _HandlerFailedError | None = None
        # How many rows are handled one by one, since a batch has failed.
        self._singly = 0
        self.idle_at: float | None = None
        """When (`time.monotonic`) it began its last look for rows, if it found none; None while it has some."""
        self._calls: tuple[Called, Event] | None = None
        self.finished_at = 0.0
        """When it last finished a row, which may allow later ones of its run."""

    @property
    def call(self) -> str | None:
        """The function that it calls now, and its event; None if it calls none."""
        calls = self._calls
        return None if calls is None else f"{calls[0].name} for {calls[1].name} {calls[1].subject}"

    def step(self) -> float | None:
        """
        Give back claimed rows that it will not handle; then claim rows, or handle the next of those that are claimed.

        Returns:
            How many seconds to wait before the next step; None until rows arrive, become due or are released.
        """
        try:
            self._give_back()
            if not self._rows:
                return self._claim()
            self._handle(self._next_rows())
        except InboxUnavailableError as error:
            self._in_hand = frozenset()
            return self._database.begin(error)
        self._database.end()
        return 0.0

    def _claim(self) -> float | None:
        if self._claimed:
            self._adapt(time.monotonic() - self._claimed_at)
        now, self.idle_at, self._claimed = time.monotonic(), None, 0
        rows = self._inbox.claim(self._limit)
        self._steps("claimed")
        self._database.end()
        if not rows:
            self.idle_at = now
            return None
        self._claimed, self._claimed_at = len(rows), time.monotonic()
        self._rows.extend(rows)
        return 0.0

    def _adapt(self, seconds: float) -> None:
        if seconds > _SLOW_SECONDS:
            self._limit = max(_FEWEST, self._limit // 2)
        elif seconds < _FAST_SECONDS and self._claimed == self._limit:
            self._limit = min(_MOST, 2 * self._limit)

    def _next_rows(self) -> list[tuple[Row, Sequence[Called]]]:
        """
        Return the rows of the next transaction: several only if all their handlers join it.

        Another handler would be called again for all of them when the transaction is rolled back for one.
        """
        found: list[tuple[Row, Sequence[Called]]] = []
        size = 1 if self._singly else self._batch_size
        for row in self._rows:
            handlers = self._wanting(row.event)
            joins = bool(handlers) and all(called.takes_transaction for called in handlers)
            if found and not joins:
                break
            found.append((row, handlers))
            if not joins or len(found) >= size:
                break
        return found

    def _handle(self, batch: list[tuple[Row, Sequence[Called]]]) -> None:
        name = ", ".join(called.name for called in batch[0][1])
        self._in_hand = frozenset(row.seq for row, _ in batch)
        try:
            self._call(batch)
        except InboxUnavailableError:
            raise
        except ClaimLostError as error:
            # Its outcome was recorded before, or another process handles it.
            logger.info("%s; its effect was rolled back here", error)
            self._let_go([row for row, _ in batch])
        except _HandlerFailedError as failed:
            # `isinstance` would read `__class__` of the author's class.
            if issubclass(type(failed.error), InboxUnavailableError) and failed.called.takes_transaction:
                # The handler has met the outage of the database first. Without the transaction, it used another one.
                raise failed.error from None
            self._fail(batch, failed.called.name, failed.error, failed.within)
        except InboxError as error:
            # A handler has ignored the error of a statement, and left the transaction unusable.
            self._fail(batch, name, error, copy_context())
        else:
            self._handled.done += len(batch)
            self._finish(len(batch))
        self._in_hand = frozenset()
        self._has_ended, self._failure = False, None

    def _call(self, batch: list[tuple[Row, Sequence[Called]]]) -> None:
        rows = [row for row, _ in batch]
        if any(called.takes_transaction for called in batch[0][1]):
            has_async = any(called.is_async for _, handlers in batch for called in handlers)
            turn = self._loop.transaction_turn if has_async else nullcontext()
            with turn, self._inbox.handling(rows) as connection:
                if batch[0][1][0].takes_batch:
                    self._call_batch(rows, batch[0][1][0], connection)
                else:
                    for row, handlers in batch:
                        self._call_all(row, handlers, connection)
                self._steps("called")
            self._steps("committed")
        else:
            if not self._has_ended:
                self._call_outside(*batch[0])
            if self._failure is not None:
                raise self._failure
            self._inbox.mark_done(rows)
            self._steps("marked")

    def _call_outside(self, row: Row, handlers: Sequence[Called]) -> None:
        try:
            self._call_all(row, handlers, None)
        except _HandlerFailedError as failed:
            self._failure = failed
        else:
            self._steps("called")
        self._has_ended = True

    def _call_batch(self, rows: Sequence[Row], called: Called, connection: "Connection") -> None:
        events = [row.event for row in rows]
        self._calls = called, events[0]
        within = copy_context()
        try:
            with self._measured(called):
                called.call(events, transaction=connection, loop=self._loop, secrets=self._secrets)
        except Exception as error:
            raise _HandlerFailedError(rows[0], called, error, within) from error
        finally:
            self._calls = None

    def _call_all(self, row: Row, handlers: Sequence[Called], connection: "Connection | None") -> None:
        event = row.event.with_acknowledgement(_nothing, datetime.fromtimestamp(row.received_at, UTC))
        for called in handlers:
            self._calls = called, event
            within = copy_context()
            try:
                with self._span(called, event, row), self._measured(called):
                    within = copy_context()
                    called.call(event, transaction=connection, loop=self._loop, secrets=self._secrets)
            except Exception as error:
                raise _HandlerFailedError(row, called, error, within) from error
            except BaseException:
                self._in_hand = frozenset([row.seq])
                raise
            finally:
                self._calls = None

    def _span(self, called: Called, event: Event, row: Row) -> AbstractContextManager[None]:
        return _NOTHING if self._spans is None else self._spans.span(called, event, row.tries + 1)

    def _measured(self, called: Called) -> AbstractContextManager[None]:
        return _NOTHING if self._measures is None else self._measures.calling(called)

    def _fail(self, batch: list[tuple[Row, Sequence[Called]]], name: str, error: Exception, within: Context) -> None:
        if len(batch) > 1:
            # All were rolled back. One by one, only the one that fails is tried again later.
            self._singly = len(batch)
            return
        row = batch[0][0]
        try:
            failed = self._inbox.fail(row, error)
        except ClaimLostError as lost:
            logger.info("%s; its failure is not recorded", lost)
            self._let_go([row])
            return
        what = f"{name} has failed for {row.event.name} {row.event.subject}: {line_of(error, self._secrets)}"
        if failed.due_at is None:
            self._handled.dead += 1
            text = "%s; the event is the dead letter i%d after %d tries"
            within.run(logger.error, text, what, row.seq, failed.tries)
        else:
            self._handled.failed += 1
            within.run(logger.warning, "%s; try %d of %d", what, failed.tries, self._inbox.rules.max_tries)
        self._finish(1)
        self._let_go([row])

    def _finish(self, count: int) -> None:
        for _ in range(count):
            self._rows.popleft()
        self._singly = max(0, self._singly - count)
        self.finished_at = time.monotonic()

    def _let_go(self, rows: Sequence[Row]) -> None:
        """Handle rows no more, nor, in an order, those behind them in their runs: the next step gives them back."""
        key = _run_of if self._inbox.rules.ordered else _seq_of
        gone = set(map(key, rows))
        self._leaving.extend(row for row in self._rows if key(row) in gone)
        self._rows = deque(row for row in self._rows if key(row) not in gone)

    def _give_back(self) -> None:
        if self._leaving:
            self._inbox.release(self._leaving)
            self._leaving.clear()

    def release(self) -> None:
        """Give claimed rows back that were not handled; the one of a handler that has exited counts as started."""
        self._leaving.extend(row for row in self._rows if row.seq not in self._in_hand)
        self._rows.clear()
        self._give_back()


def _seq_of(row: Row) -> object:
    return row.seq


def _run_of(row: Row) -> object:
    return RunKey.of(row.event)


def _nothing() -> None:
    """Acknowledge nothing: the event was acknowledged to the bus when it was stored."""
