"""
Open a subscription: check its arguments, and keep at most one subscription of each name in a thread.

Not here: the iteration over its events (_subscription).
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer._names import check_name
from dkist_processing_core.consumer._selection import Selection
from dkist_processing_core.consumer._subscription import Subscription
from dkist_processing_core.consumer.since import in_utc, moment_of
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 3.0
logger = logging.getLogger("dkist_processing_core.consumer")


class _Named(threading.local):
    """The named subscriptions of each thread."""

    def __init__(self) -> None:
        self.subscriptions: weakref.WeakValueDictionary[tuple[str, str | None], Subscription]
        self.subscriptions = weakref.WeakValueDictionary()


_named = _Named()


def subscribe(
    *names: str,
    workflow: str | None = None,
    task: str | None = None,
    name: str | None = None,
    replay: bool | datetime = False,
    since: str | timedelta | datetime | None = None,
    timeout: float | None = None,
    every_report: bool = False,
    connect: Literal["wait", "fail"] = "wait",
    settings: Settings | None = None,
) -> Subscription:
    """
    Subscribe to events, from RabbitMQ or the embedded journal, depending on the settings.

    Args:
        names: the wanted events, as in `subscribe("task.failed", "task.finished")`; all events if none is named.
        workflow: the name of the only wanted workflow, or a pattern: `*` matches any text, `?` one character. The names
            of events and tasks may be patterns as well.
        task: the name of the only wanted task.
        name: the subscription's name, under which its position is stored: events that arrive while it is closed
            are delivered later, and unacknowledged events are delivered again. On RabbitMQ it is a queue. A thread has
            one subscription of a name: opening another ends the previous one.
        replay: begin with the oldest event that the bus still has, up to seven days ago, or, for a time, with the first
            event that reached the bus at that time or later; not allowed with a name. A time without a zone is local,
            as everywhere in Python. An event that happened before that time and reached the bus later, for example
            from an outbox, is included. On RabbitMQ, events that reached it in the few seconds before that time may
            also be included.
        since: the same in the forms of the command line: `2h` or another duration with s, m, h or d, `today`, a time by
            ISO 8601, or `first` for the oldest event; a `timedelta` or a `datetime` as well.
        timeout: end the iteration when no event came for this many seconds; None waits without a limit. In a replay,
            the time counts from the moment when it has read everything that the bus held when it began. With 0, exactly
            those events are yielded. It also limits the wait for a broker that cannot be reached now.
        every_report: yield each reporter's report of an occurrence. By default each occurrence is yielded once,
            independent of the number of its reports and their repetitions. If that was a provisional report of an
            engine, the first firm report of the occurrence is yielded as well.
        connect: what to do if the broker cannot be reached now: `wait` logs one warning and waits for it, at most for
            `timeout` seconds if that is given, `fail` raises a `BusUnreachableError`. After a later interruption the
            subscription connects again by itself in both cases.
        settings: read from the environment if they are not given.

    Raises:
        ValueError: There is no such event, the subscription cannot have that name, `replay` or `since` is no time, both
            are given, or `connect` is another text.
        ConfigurationError, BusError, JournalError: The settings are wrong, the broker refuses the subscription or, with
            `connect="fail"` or within the `timeout`, cannot be reached.
    """
    if connect not in ("wait", "fail"):
        msg = f"connect is {connect!r}, expected 'wait' or 'fail'"
        raise ValueError(msg)
    selection = Selection(names, workflow, task)
    replay = _start(replay, since)
    if name is not None:
        check_name(name, replay=replay)
    with signals_deferred():
        settings = settings or read_settings()

    def open_once() -> Subscription:
        with signals_deferred():
            bus = open_bus(settings)
            key = (bus.where, name)
            if name is not None and (abandoned := _named.subscriptions.get(key)) is not None:
                # Its loop was left, and a reference to it remains, for example in a notebook's last traceback.
                abandoned.close()
            receiver = bus.subscribe(selection.patterns, name=name, replay=replay)
            subscription = Subscription(
                receiver,
                selection,
                timeout=timeout,
                every_report=every_report,
                replay=replay,
                is_named=name is not None,
            )
            if name is not None:
                _named.subscriptions[key] = subscription
        return subscription

    return open_once() if connect == "fail" else _when_reachable(open_once, timeout)


def _when_reachable(open_once: Callable[[], Subscription], timeout: float | None) -> Subscription:
    """Open a subscription when the broker can be reached, at most until a timeout. Pauses let signals be handled."""
    pause = _FIRST_PAUSE_SECONDS
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            subscription = open_once()
        except BusUnreachableError as error:
            rest = pause if deadline is None else deadline - time.monotonic()
            if rest <= 0:
                raise
            if pause == _FIRST_PAUSE_SECONDS:
                logger.warning("%s. The subscription waits for the broker", error)
        else:
            if pause > _FIRST_PAUSE_SECONDS:
                logger.info("the broker can be reached; the subscription begins")
            return subscription
        time.sleep(min(pause, rest))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _start(replay: bool | datetime, since: str | timedelta | datetime | None) -> bool | datetime:  # noqa: FBT001 - as `subscribe` gets it
    """Return the start of a replay, for either bus."""
    if since is not None:
        if replay is not False:
            msg = f"found replay={replay!r} and since={since!r}, expected one of them"
            raise ValueError(msg)
        return moment_of(since) or True
    if isinstance(replay, bool):
        return replay
    if not isinstance(replay, datetime):
        msg = f"replay is {replay!r}, expected True, False or a datetime"
        raise ValueError(msg)  # noqa: TRY004 - as every other wrong argument
    return in_utc(replay) or True
