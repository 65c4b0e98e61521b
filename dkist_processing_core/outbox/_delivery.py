"""
Delivering the pending messages in the outbox of the settings once, until none is pending.

Not here: the relay, which delivers until it is stopped (_relay).
"""

import copy
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.delivery.drainer import Drainer
from dkist_processing_core.errors import JournalError
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.place import check_place
from dkist_processing_core.journal.spare import left_behind, remove_if_empty, spares_of, take_over_spares
from dkist_processing_core.settings.interface import Settings

POLL_SECONDS = 0.1
STOP_SECONDS = 1.0
"""How long to wait for the end of the thread that delivers: the whole shutdown takes less than the 2 s of a service."""
_COUNT_SECONDS = 0.5
_GRACE_SECONDS = 1.0
_STUCK_SECONDS = 30.0
# No task waits here, so the first connection may take longer.
_UNHURRIED_SECONDS = 10.0
_TIME_IS_OVER = "the time is over"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a delivery; the counts cover everything since it began, by this process or another."""

    pending: int
    confirmed: int = 0
    set_aside: int = 0
    set_aside_before: int = 0
    """How many messages had been set aside before the delivery began; they are not delivered either."""
    deliverer: int | None = None
    """The id of another process that is delivering at present; None if there is none."""
    reason: str | None = None
    """Why delivery has stopped while messages are still pending, in words for an operator."""


def unhurried(settings: Settings) -> AmqpBus:
    """Return the broker of the settings, with longer timeouts, for callers that may wait for it."""
    check_place(settings)
    longer = max(_UNHURRIED_SECONDS, settings.event_flush_timeout)
    patient = copy.copy(settings)
    patient.event_flush_timeout = longer
    return AmqpBus(patient)


def drain(settings: Settings, *, timeout: float | None = None) -> Iterator[Progress]:
    """
    Deliver the pending messages of the settings' outbox; yield the progress from time to time, and finally at the end.

    At the end nothing is pending, or `Progress.reason` gives the reason: the broker's answer, the end of `timeout`
    seconds, or a long time without progress. The broker is tried even if it could not be reached a moment ago.

    Raises:
        JournalError: The outbox cannot be used.
    """
    bus = unhurried(settings)
    until = math.inf if timeout is None else time.monotonic() + timeout
    so_far, problem = Progress(pending=0), None
    if bus.journal_path.exists() or spares_of(bus.journal_path):
        try:
            for found in _drain_one(bus, until):
                yield found
                so_far = found
        except JournalError as error:
            if not left_behind(bus.journal_path):
                raise
            problem = str(error)
    # Spare journals that the outbox could not take over are delivered to the broker one by one.
    for path in left_behind(bus.journal_path):
        try:
            if so_far.reason is not None:
                # The broker does not accept messages now, so they are only counted.
                waiting = Journal.look(path, Journal.books).pending
                so_far = replace(so_far, pending=so_far.pending + waiting)
                continue
            for found in _drain_one(bus.with_journal(path), until):
                yield _sum(so_far, found)
            so_far = _sum(so_far, found)
            remove_if_empty(path)
        except JournalError as error:
            problem = problem or str(error)
    yield so_far if problem is None else replace(so_far, reason=problem)


def _drain_one(bus: AmqpBus, until: float) -> Iterator[Progress]:
    """Deliver the pending messages of one journal, and yield the progress."""
    changed = threading.Event()
    with bus.open_journal() as journal:
        take_over_spares(journal)

        def record_progress() -> None:
            changed.set()
            if not drainer.is_running and (drainer.failure is not None or journal.oldest is None):
                drainer.end_here()

        drainer = Drainer(bus, record_progress, heeds_mark=False, poll_seconds=POLL_SECONDS)
        drainer.start()
        if not drainer.is_running and journal.oldest is not None:
            # No thread can be started for it.
            drainer.deliver_here(until)
        try:
            yield from _watched(journal, drainer, changed, max(0.0, until - time.monotonic()))
        finally:
            drainer.stop(STOP_SECONDS)


def _sum(first: Progress, second: Progress) -> Progress:
    """Return the combined progress of two deliveries."""
    return Progress(
        pending=first.pending + second.pending,
        confirmed=first.confirmed + second.confirmed,
        set_aside=first.set_aside + second.set_aside,
        set_aside_before=first.set_aside_before + second.set_aside_before,
        deliverer=second.deliverer or first.deliverer,
        reason=first.reason or second.reason,
    )


def _watched(journal: Journal, drainer: Drainer, changed: threading.Event, limit: float) -> Iterator[Progress]:
    """Yield the progress until nothing is pending or there is a reason to stop."""
    began = counted_at = moved_at = time.monotonic()
    before = books = journal.books()
    lock = FileLock(journal.path.with_suffix(".lock"))
    while journal.oldest is not None:
        yield _progress(before, books, lock)
        changed.wait(POLL_SECONDS)
        changed.clear()
        now = time.monotonic()
        if now >= counted_at + _COUNT_SECONDS:
            # Counting reads every pending row, so it is not done each time.
            counted, counted_at = journal.books(), now
            moved_at, books = (now if counted != books else moved_at), counted
        reason = _reason(drainer.failure, lock, still=now - moved_at, timed_out=now - began > limit)
        if reason is not None:
            books = journal.books()
            if reason == _TIME_IS_OVER and books.confirmed == before.confirmed:
                reason = f"{reason}, and the broker has not answered so far"
            yield _progress(before, books, lock, reason)
            return
    yield _progress(before, journal.books(), lock)


def _progress(before: Books, books: Books, lock: FileLock, reason: str | None = None) -> Progress:
    set_aside = max(0, books.set_aside - before.set_aside)
    return Progress(
        pending=books.pending,
        confirmed=books.confirmed - before.confirmed,
        set_aside=set_aside,
        set_aside_before=books.set_aside - set_aside,
        deliverer=_other(lock),
        reason=reason if books.pending else None,
    )


def _other(lock: FileLock) -> int | None:
    holder = lock.holder()
    return None if holder == os.getpid() else holder


def _reason(failure: str | None, lock: FileLock, *, still: float, timed_out: bool) -> str | None:
    """Return the reason to stop waiting; None to go on."""
    if failure is not None and still >= _GRACE_SECONDS:
        return failure
    if not timed_out and still < _STUCK_SECONDS:
        return None
    why = _TIME_IS_OVER if timed_out else f"no message was delivered for {_STUCK_SECONDS:.0f} s"
    other = _other(lock)
    if other is not None:
        return f"{why}, and process {other} delivers"
    return why if failure is None else f"{why}; {failure}"
