"""
The state of the bus, read again every few seconds in a thread, so that no page waits for a broker.

Not here: what is read (bus.facts), and the page about it (pages.bus).
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.dashboard.bus.facts import OfBus, OfHost, of_broker, of_host, of_journal
from dkist_processing_core.dead_letters import Group
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.outbox import OutboxState
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text.internal_errors import log_internal_error_once

REFRESH_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_REFRESHED_SECONDS = 3.0
_MINUTES = 60
logger = logging.getLogger("dkist_processing_core.dashboard")


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of the bus; the parts have their own times."""

    host: OfHost | None = None
    bus: OfBus | None = None
    """None until it was read for the first time."""
    problem: str | None = None
    """Why the bus cannot be read now."""
    away_since: datetime | None = None
    """When it could not be read for the first time since it was read last."""
    host_problem: str | None = None
    """Why this host, its inbox or an outbox, cannot be read now."""
    rates: tuple[tuple[datetime, int], ...] = ()
    """The messages that reached the archive in each of the last minutes, since the dashboard began to count."""

    @property
    def part_problem(self) -> str | None:
        """Why a part of what is shown is older than the rest, although the bus can be read."""
        return self.host_problem or (None if self.bus is None else self.bus.problem)

    @property
    def groups(self) -> list[Group]:
        """The groups of dead letters, that with the newest failure first."""
        found = [group for part in (self.host, self.bus) if part is not None for group in part.groups]
        return sorted(found, key=lambda group: group.last_failed_at or 0.0, reverse=True)

    @property
    def pending(self) -> int:
        """The number of messages that wait in the outboxes of this host."""
        return sum(each.waiting for each in self._outboxes())

    @property
    def set_aside(self) -> int:
        """The number of messages in them that their brokers have refused."""
        return sum(each.books.set_aside for each in self._outboxes() if each.books is not None)

    @property
    def dead(self) -> int:
        """The number of dead letters."""
        return sum(group.count for group in self.groups) + sum(self.left_out.values())

    @property
    def left_out(self) -> dict[str, int]:
        """The numbers of dead letters that the broker keeps and that are in no group, by the names of the consumers."""
        letters = {} if self.bus is None else self.bus.letters
        return {name: each.left_out for name, each in letters.items() if each.left_out}

    def _outboxes(self) -> list[OutboxState]:
        return [] if self.host is None else [each for each in self.host.outboxes if not each.is_embedded]


class BusStatus:
    """The state of the bus of the settings, kept up to date by the thread of `kept`."""

    def __init__(self, settings: Settings) -> None:
        """Store the settings. Nothing is read."""
        self._settings = settings
        self._bus = open_bus(settings)
        self._link: AmqpLink | None = None
        self._status = Status()
        self._rates = Rates()
        self._wanted = threading.Event()
        self._was_read = threading.Condition()
        self._is_ending = False
        self._began_at = datetime.fromtimestamp(0, UTC)
        """When the last reading began."""

    def latest(self) -> Status:
        """Return the status that was read last, without waiting for another one."""
        return self._status

    def refresh(self) -> None:
        """Request another reading after a change, and wait for it for a limited time."""
        changed_at = datetime.now(UTC)
        self._wanted.set()
        with self._was_read:
            self._was_read.wait_for(lambda: self._began_at >= changed_at, _REFRESHED_SECONDS)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it up to date during the block."""
        thread = threading.Thread(target=self._run, name="dkist-core-bus-status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_ending = True
            self._wanted.set()
            thread.join(2 * _CONNECT_SECONDS)

    def _run(self) -> None:
        while not self._is_ending:
            is_changed = self._wanted.is_set()
            self._wanted.clear()
            now = datetime.now(UTC)
            self._try_to_read(now, is_changed=is_changed)
            with self._was_read:
                self._began_at = now
                self._was_read.notify_all()
            self._wanted.wait(REFRESH_SECONDS)
        self._close()

    def _try_to_read(self, now: datetime, *, is_changed: bool) -> None:
        try:
            self._read(now, is_changed=is_changed)
        except DKISTProcessingCoreError as error:
            self._lose(str(error), now)
        except Exception as error:  # noqa: BLE001 - the next reading may succeed
            log_internal_error_once("the state of the bus is not read", error)
            self._lose("an error of this package, which the log of the dashboard has", now)

    def _lose(self, problem: str, now: datetime) -> None:
        self._close()
        self._status = replace(self._status, problem=problem, away_since=self._status.away_since or now)

    def _read(self, now: datetime, *, is_changed: bool) -> None:
        if self._bus.is_remote:
            # What the host has is known also if the broker is away, and the other way round.
            self._read_host(now)
            host, bus = self._status.host, self._status.bus
            names = [] if host is None else list(host.inboxes)
            before = {} if bus is None else bus.letters
            found = of_broker(self._settings, self._linked(), names, before, now, is_changed=is_changed)
        else:
            # While it is open for writing here, the readers of dead letters in this process share it.
            with self._bus.open_journal() as journal:
                self._read_host(now)
                found = of_journal(self._bus, journal, now)
        if found.archive is not None:
            self._rates.note(now, found.archive.newest_number)
        elif self._bus.is_remote:
            # A broker that refuses to let the archive be read has closed the channel.
            self._close()
        else:
            self._rates.note(now, 0)
        rates = self._rates.by_minute(now)
        self._status = replace(self._status, bus=found, problem=None, away_since=None, rates=rates)

    def _read_host(self, now: datetime) -> None:
        try:
            self._status = replace(self._status, host=of_host(self._settings, now), host_problem=None)
        except DKISTProcessingCoreError as error:
            self._status = replace(self._status, host_problem=str(error))

    def _linked(self) -> AmqpLink:
        if self._link is None:
            self._link = AmqpLink.open(self._settings, _CONNECT_SECONDS)
        return self._link

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            try:
                link.close()
            except DKISTProcessingCoreError:
                logger.debug("the connection of the bus page was lost already", exc_info=True)


class Rates:
    """How many messages reached the archive in each of the last minutes."""

    def __init__(self) -> None:
        """Begin without a number."""
        self._last: int | None = None
        self._minutes: deque[tuple[int, int]] = deque(maxlen=_MINUTES)

    def note(self, now: datetime, number: int) -> None:
        """Note the number of the newest message."""
        grown = 0 if self._last is None else max(0, number - self._last)
        self._last = number
        minute = int(now.timestamp()) // 60
        if self._minutes and self._minutes[-1][0] == minute:
            self._minutes[-1] = minute, self._minutes[-1][1] + grown
        else:
            self._minutes.append((minute, grown))

    def by_minute(self, now: datetime) -> tuple[tuple[datetime, int], ...]:
        """Return the count of each minute since the first one that was noted, at most of an hour."""
        counts: dict[int, int] = dict(self._minutes)
        last = int(now.timestamp()) // 60
        minutes: Sequence[int] = range(max(min(counts, default=last), last - _MINUTES + 1), last + 1)
        return tuple((datetime.fromtimestamp(minute * 60, UTC), counts.get(minute, 0)) for minute in minutes)
