"""
A reader of a workflow's events on the bus, with a limit on the time that holds in every state of the bus.

The callbacks of a process share a reader if it begins early enough. Not here: the search in the events (_unreported).
"""

import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dkist_processing_core.airflow._waiting_time import at_most
from dkist_processing_core.budget import LOOK
from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_leniently

if TYPE_CHECKING:
    from dkist_processing_core.events import Event

# The limit for the connection and for reading everything that the bus holds. With a broker that is silent, connecting
# ends earlier.
_READING_SECONDS = 12.0
# The next run that the same process handles may have begun earlier.
_BEFORE_START = timedelta(minutes=10)
_POLL_SECONDS = 0.1


class BusReader:
    """A thread that reads one workflow's events from the bus since a given time; callers need not wait for it."""

    def __init__(self, settings: Settings, workflow_name: str, since: datetime | None) -> None:
        """Start reading."""
        self.since = since - _BEFORE_START if since is not None else None
        self.reports: list[Event] = []
        self._settings = settings
        self._workflow_name = workflow_name
        self._deadline = time.monotonic() + _READING_SECONDS
        self._has_caught_up = False
        self._is_over = False
        self._is_replaced = False
        self._is_settled = threading.Event()
        try:
            threading.Thread(target=self._read, name="dkist-core-bus-reader", daemon=True).start()
        except RuntimeError:
            # No thread can be started. Reading here would have no time limit, so proceed as if the bus did not answer.
            self._is_over = True
            self._is_settled.set()

    def _read(self) -> None:
        with errors_logged("failures are announced without reading the bus"):
            self._follow(only_once=not open_bus(self._settings).is_remote)
        self._is_over = True
        self._is_settled.set()

    def _follow(self, *, only_once: bool) -> None:
        with subscribe(
            workflow=self._workflow_name,
            replay=self.since or True,
            timeout=0.0 if only_once else _POLL_SECONDS,
            every_report=True,
            connect="fail",
            settings=self._settings,
        ) as events:
            while not self._is_replaced:
                for event in events:
                    self.reports.append(event)
                    if events.has_caught_up:
                        # The backlog ends even on a bus that is never quiet: new events come after it.
                        self._catch_up()
                self._catch_up()
                if only_once:
                    return

    def _catch_up(self) -> None:
        self._has_caught_up = True
        self._is_settled.set()

    def replace(self) -> None:
        """Stop reading: another reader, which begins earlier, replaces this one."""
        self._is_replaced = True

    def covers(self, since: datetime | None) -> bool:
        """Return True if this reader begins early enough for `since`."""
        return self.since is None or (since is not None and self.since <= since)

    def has_read_backlog(self) -> bool:
        """Wait until the backlog of the bus is read, and return True if that succeeded in time."""
        if self._has_caught_up:
            # The backlog was read before, for another run: events since then arrive within a moment.
            time.sleep(_POLL_SECONDS)
        else:
            with at_most(max(0.0, self._deadline - time.monotonic()), LOOK) as seconds:
                self._is_settled.wait(seconds)
        return self._has_caught_up

    def can_wait_longer(self) -> bool:
        """Wait a moment for further events and return True; return False if reading or the time to wait is over."""
        with at_most(0.0 if self._is_over else _POLL_SECONDS, LOOK) as seconds:
            time.sleep(seconds)
        return seconds > 0


_readers: dict[str, BusReader] = {}


def reader_since(workflow_name: str, since: datetime | None) -> BusReader:
    """
    Return a reader of a workflow's reports from `since` on.

    It connects although another process of this host has just failed to: a task on a busy host waits only briefly for
    its connection.
    """
    settings, _ = read_leniently()
    reader = _readers.get(workflow_name)
    if reader is None or not reader.covers(since) or not open_bus(settings).is_remote:
        if reader is not None:
            reader.replace()
        reader = _readers[workflow_name] = BusReader(settings, workflow_name, since)
    return reader
