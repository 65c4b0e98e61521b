"""
The delivery of one signal: read what is pending, send it, remove what the collector has answered.

The rules are those of https://opentelemetry.io/docs/specs/otlp/: which answers are final, and how long to wait before
the next request. A pause that a collector requests is in the journal, so that all processes of the host keep it. Not
here: one request (over_http, over_grpc), and the thread and the lock (otlp.drainer).
"""

import contextlib
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.journal.otlp import LONGEST_REQUESTED_SECONDS, Chunk, OtlpJournal
from dkist_processing_core.otlp.destination import Signal, collector_of, hidden_parts, protocol_of, shown_endpoint
from dkist_processing_core.otlp.options import CONNECT_SECONDS
from dkist_processing_core.otlp.outcome import Delivered, Denied, Outcome, Refused, Unavailable
from dkist_processing_core.otlp.warnings import TelemetryWarnings
from dkist_processing_core.process.own_random import own_random
from dkist_processing_core.process.uninstrumented import uninstrumented
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import redact

# A gRPC server accepts 4 MiB by default, and an HTTP server of the OpenTelemetry Collector 20 MiB.
_MOST_BYTES = 2 * 1024**2
_MOST_ITEMS = 8192
_LONGEST_PAUSE_SECONDS = 30.0
# An operator has to correct something first.
_LONGEST_DENIED_SECONDS = 300.0


class Exporter(Protocol):
    """Sends the requests of one signal over one protocol."""

    def send(self, body: bytes) -> Outcome:
        """Send one serialized request, and return its outcome."""

    def cancel(self) -> None:
        """End a request that another thread is sending, if the protocol can do this."""

    def close(self) -> None:
        """Close the connection."""


class Delivery:
    """Delivers one signal from its journal; it belongs to one thread, except for `cancel`."""

    def __init__(self, settings: Settings, signal: Signal, warnings: TelemetryWarnings) -> None:
        """
        Open no connection.

        Args:
            settings: The settings that name the collector.
            signal: The signal.
            warnings: Logs outages and refusals.
        """
        self._settings = settings
        self._signal = signal
        self._warnings = warnings
        self._exporter: Exporter | None = None
        self._is_imported = self._is_prepared = False
        self._most_bytes = _MOST_BYTES
        self._failures = 0
        self._is_cancelled = False
        # How many of the next chunks are sent alone, one in each request.
        self._alone = 0
        self._answered: tuple[list[Chunk], int, tuple[int, int] | None] | None = None
        self._requested: float | None = None
        self.problem: str | None = None
        """Why nothing can be delivered at present; None if no problem is known."""
        self.resumes_at = 0.0
        """The time of `time.monotonic` before which no request is sent."""
        self.waits_since = math.inf
        """The time since which the collector has not answered; infinite if nothing is expected from it."""

    @property
    def is_paused(self) -> bool:
        """Whether no request is sent at present, after a failure."""
        return time.monotonic() < self.resumes_at

    def prepare(self) -> None:
        """Import what a request needs, once and if the collector accepts a connection: an end need not wait for it."""
        if self._is_prepared:
            return
        self._is_prepared = True
        # What is wrong with the settings is reported when there is something to deliver.
        with contextlib.suppress(ConfigurationError):
            self._reach()

    def run(self, journal: OtlpJournal, is_over: Callable[[], bool]) -> None:
        """Deliver until nothing is pending, until a failure, or until `is_over`."""
        self._remove_answered(journal)
        self._keep_requested_pause(journal)
        while not (is_over() or self.is_paused):
            most_bytes = 0 if self._alone else self._most_bytes
            chunks = journal.pending(self._signal, most_bytes=most_bytes, most_items=_MOST_ITEMS)
            if not chunks:
                return
            refused = self._deliver(chunks)
            if refused is not None:
                # Kept until it is done: an error of the disk must not cause a second delivery.
                self._answered = chunks, refused, journal.file
                self._remove_answered(journal)
            elif self._requested is not None:
                journal.pause(self._signal, self._requested)
                self._requested = None

    def _keep_requested_pause(self, journal: OtlpJournal) -> None:
        """Pause if the collector has requested this from another process; also one that a person has started."""
        seconds = journal.pause_left(self._signal)
        if seconds <= 0:
            return
        self.resumes_at = max(self.resumes_at, time.monotonic() + seconds)
        if self.problem is None:
            until = datetime.fromtimestamp(time.time() + seconds, UTC)
            where = shown_endpoint(self._settings, self._signal)
            self.problem = f"{where} has requested a pause until {until:%Y-%m-%d %H:%M:%S} UTC (Retry-After)"
            self._warnings.report_outage(self._signal, self.problem)

    def _remove_answered(self, journal: OtlpJournal) -> None:
        if self._answered is not None:
            chunks, refused, file = self._answered
            if file == journal.file:
                journal.remove(chunks, delivered=sum(chunk.items for chunk in chunks) - refused, refused=refused)
            self._answered = None

    def _deliver(self, chunks: list[Chunk]) -> int | None:
        """Send chunks in one request; return how many items were refused, or None if they have to be sent again."""
        # Serialized requests of one signal, one after the other, are one serialized request: their fields repeat.
        body = b"".join(chunk.body for chunk in chunks)
        items = sum(chunk.items for chunk in chunks)
        outcome = self._send(body)
        if len(chunks) > 1 and isinstance(outcome, Refused):
            if outcome.is_too_large:
                self._most_bytes = len(body) // 2
            else:
                # The content of one process may be the reason, and must not cost the others theirs.
                self._alone = len(chunks)
            return None
        refused = self._settle(outcome, body, items)
        if refused is None:
            return None
        self._alone = max(0, self._alone - 1)
        self._failures, self.problem = 0, None
        self._warnings.report_recovery(self._signal)
        return min(refused, items)

    def _settle(self, outcome: Outcome, body: bytes, items: int) -> int | None:
        """Return how many items of an answered request were refused; None if it has to be sent again."""
        match outcome:
            case Unavailable(reason, after):
                self._pause(reason, after)
                return None
            case Denied(reason):
                advice = "check the endpoint, its protocol and OTEL_EXPORTER_OTLP_HEADERS"
                self._pause(f"{reason}; {advice}", None, longest=_LONGEST_DENIED_SECONDS)
                return None
            case Delivered(rejected, message):
                if rejected or message:
                    shown = self._redacted(message) or "no reason given"
                    self._warnings.report_refusal(self._signal, rejected, shown)
                return rejected
            case Refused(reason, is_too_large):
                from dkist_processing_core.otlp.messages import halves  # noqa: PLC0415 - it imports protobuf

                parts = halves(self._signal, body) if is_too_large else []
                if not parts:
                    self._warnings.report_refusal(self._signal, items, self._redacted(reason))
                    return items
                refused = 0
                for count, part in parts:
                    of_part = self._settle(self._send(part), part, count)
                    if of_part is None:
                        return None
                    refused += of_part
                return refused

    def _send(self, body: bytes) -> Outcome:
        try:
            exporter = self._exporter or self._open()
            if isinstance(exporter, Unavailable):
                return exporter
            self._exporter = exporter
            self.waits_since = time.monotonic()
            with uninstrumented():
                return exporter.send(body)
        except ConfigurationError as error:
            return Unavailable(str(error))
        except Exception as error:  # noqa: BLE001 - a provider of credentials may raise anything
            return Unavailable(f"{self._signal} cannot be sent: {type(error).__name__}: {error}")
        finally:
            self.waits_since = math.inf

    def _open(self) -> Exporter | Unavailable:
        problem = self._reach()
        return exporter_of(self._settings, self._signal) if problem is None else Unavailable(problem)

    def _reach(self) -> str | None:
        """Import the exporter, and return None; return the problem if the collector accepts no connection."""
        if self._is_imported:
            return None
        collector = collector_of(self._settings, self._signal)
        self.waits_since = time.monotonic()
        problem = None if collector is None else collector.problem(CONNECT_SECONDS)
        self.waits_since = math.inf
        if problem is None:
            exporter_class(self._settings, self._signal)
            self._is_imported = True
        return problem

    def _pause(self, reason: str, after: float | None, *, longest: float = _LONGEST_PAUSE_SECONDS) -> None:
        """Pause after a failure: for as long as the collector requests, or else longer each time, with jitter."""
        self._failures += 1
        # A float has no larger power of two.
        longest = min(longest, 2.0 ** min(self._failures - 1, 1000))
        seconds = longest * own_random.uniform(0.5, 1.0)
        if after is not None:
            seconds = self._requested = min(after, LONGEST_REQUESTED_SECONDS)
        self.resumes_at = time.monotonic() + seconds
        self.problem = self._redacted(reason)
        if not self._is_cancelled:
            self._warnings.report_outage(self._signal, self.problem)
        self.close()

    def _redacted(self, text: str) -> str:
        return redact(text, also=hidden_parts(self._settings, self._signal))

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()

    def cancel(self) -> None:
        """End the request that another thread is sending, if the protocol can do this; its failure is not logged."""
        self._is_cancelled = True
        exporter = self._exporter
        if exporter is not None:
            exporter.cancel()


def exporter_of(settings: Settings, signal: Signal) -> Exporter:
    """
    Return an exporter, whose modules are imported now: the collector should have accepted a connection.

    Raises:
        ConfigurationError: A variable has an unusable value.
    """
    return exporter_class(settings, signal)(settings, signal)


def exporter_class(settings: Settings, signal: Signal) -> Callable[[Settings, Signal], Exporter]:
    """Return the class of exporters for the protocol of a signal, whose modules are imported now."""
    if protocol_of(settings, signal) == "grpc":
        from dkist_processing_core.otlp.over_grpc import GrpcExporter  # noqa: PLC0415 - see the docstring

        return GrpcExporter
    from dkist_processing_core.otlp.over_http import HttpExporter  # noqa: PLC0415 - see the docstring

    return HttpExporter
