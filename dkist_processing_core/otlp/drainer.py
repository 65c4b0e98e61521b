"""
The threads that deliver the telemetry of this host: one per signal, and one process per signal at a time.

Each signal has its own thread, lock and pauses, so that an outage of one collector does not hold up another one. Not
here: the requests and the pauses (otlp.delivery).
"""

import contextlib
import logging
import math
import os
import threading
import time
from pathlib import Path

from dkist_processing_core.errors import JournalError, JournalLostError
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.otlp import OtlpJournal
from dkist_processing_core.otlp.delivery import Delivery
from dkist_processing_core.otlp.destination import (
    SIGNALS,
    Signal,
    destination_of,
    endpoint_of,
    exports_telemetry,
    is_exported,
    journal_path,
    lock_path,
    shown_endpoint,
)
from dkist_processing_core.otlp.warnings import TelemetryWarnings
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text.internal_errors import log_internal_error_once

_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.05
logger = logging.getLogger(__name__)


_running: dict[tuple[int, Path], "TelemetryDrainer"] = {}
"""The drainers by their process and journal: at the end of the process, they deliver what is left."""


class TelemetryDrainer:
    """Delivers the journal of the collectors of the settings, for as long as it is open."""

    def __init__(
        self,
        settings: Settings,
        *,
        path: Path | None = None,
        poll_seconds: float = _POLL_SECONDS,
        patience: float = math.inf,
        outlives_tasks: bool = False,
    ) -> None:
        """
        Start no thread, and open no file.

        Args:
            settings: The settings that name the collectors.
            path: The journal, if it is not at the place for these settings.
            poll_seconds: How often to look for the telemetry of other processes.
            patience: How long `finish` waits for a collector that does not answer, in seconds.
            outlives_tasks: Whether it goes on after a task that this process calls, as in a consumer's handler.
        """
        self._patience = patience
        self.outlives_tasks = outlives_tasks
        signals = [signal for signal in SIGNALS if is_exported(settings, signal) or endpoint_of(settings, signal)]
        self.path = path or journal_path(settings)
        warnings = TelemetryWarnings(self.path, secrets_in(settings))
        self._threads = [
            _SignalThread(settings, signal, self.path, warnings, poll_seconds)
            for signal in signals
            if not settings.otel_sdk_disabled
        ]

    @property
    def signals(self) -> list[Signal]:
        """The signals that have a collector."""
        return [each.signal for each in self._threads]

    @property
    def problems(self) -> dict[str, str]:
        """Why a signal cannot be delivered at present, for each such signal."""
        return {each.signal: each.problem for each in self._threads if each.problem is not None}

    def start(self) -> None:
        """Start the threads. One that cannot be started leaves the telemetry in the journal."""
        _running[os.getpid(), self.path] = self
        for each in self._threads:
            # A RuntimeError: too many processes or threads, or an interpreter that is about to exit.
            with contextlib.suppress(RuntimeError):
                each.start()

    def finish(self, seconds: float) -> None:
        """
        Deliver what is pending now, and end; leave to another process what that is delivering.

        Args:
            seconds: The limit of the wait; what is not delivered by then stays in the journal.
        """
        until = time.monotonic() + seconds
        for each in self._threads:
            each.finish()
        for each in self._threads:
            each.join(until, self._patience)
            each.report_rest()
        self.stop(0.0)

    def stop(self, seconds: float) -> None:
        """End without delivering more, and wait at most `seconds` seconds for the end of a request."""
        if _running.get((os.getpid(), self.path)) is self:
            del _running[os.getpid(), self.path]
        until = time.monotonic() + seconds
        for each in self._threads:
            each.end()
        for each in self._threads:
            each.join(until, math.inf)
            each.cancel()


class _SignalThread:
    """The thread that delivers one signal."""

    def __init__(
        self, settings: Settings, signal: Signal, path: Path, warnings: TelemetryWarnings, poll_seconds: float
    ) -> None:
        self.signal = signal
        self._path = path
        self._destination = destination_of(settings)
        self._where = shown_endpoint(settings, signal)
        self._warnings = warnings
        self._poll_seconds = poll_seconds
        self._delivery = Delivery(settings, signal, warnings)
        self._lock = FileLock(lock_path(path, signal))
        self._wake = SignalSafeFlag()
        self._is_finishing = False
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=f"dkist-core-{signal}", daemon=True)
        self._disk_problem: str | None = None

    @property
    def problem(self) -> str | None:
        return self._disk_problem or self._delivery.problem

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._is_finishing = True
        self._wake.raise_()

    def end(self) -> None:
        self._is_over = True
        self._wake.raise_()

    def cancel(self) -> None:
        if self._thread.is_alive():
            self._delivery.cancel()

    def report_rest(self) -> None:
        """Log that not everything was delivered, if this thread is still running."""
        if self._thread.is_alive():
            self._warnings.report_outage(self.signal, f"{self._where} has not accepted everything in time")

    def join(self, until: float, patience: float) -> None:
        """Wait for the end of the thread until a time of `time.monotonic`, or until its patience is over."""
        while self._thread.is_alive():
            now = time.monotonic()
            left = min(until, self._delivery.waits_since + patience) - now
            if left <= 0:
                return
            self._thread.join(min(left, _LOOK_SECONDS))

    def _run(self) -> None:
        while not self._is_over:
            try:
                self._deliver()
                self._disk_problem = None
            except JournalLostError as error:
                # The author's code has closed the journal's descriptors: it is opened again.
                logger.debug("the journal is opened again: %s", error)
            except JournalError as error:
                self._disk_problem = str(error)
                self._warnings.report_outage(self.signal, str(error))
                self._rest(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - without the thread, nothing would be delivered
                log_internal_error_once("telemetry is not delivered", error)
                self._rest(_PAUSE_SECONDS)

    def _deliver(self) -> None:
        """Deliver one file, until the end, or until another file has its name."""
        if not self._path.exists():
            self._rest(self._poll_seconds)
            return
        with OtlpJournal.open(self._path, destination=self._destination) as journal:
            try:
                while not self._is_over and journal.is_there:
                    is_pending = journal.books()[self.signal].pending > 0
                    if is_pending and not self._delivery.is_paused and self._lock.acquire():
                        self._delivery.run(journal, lambda: self._is_over)
                        if self._is_finishing or self._delivery.is_paused:
                            # A process that appends after this finds the lock free. The next look finds what another
                            # process has appended before, and has left to this one.
                            self._lock.release()
                    else:
                        if not is_pending:
                            # Another process may have delivered it in the meantime.
                            self._delivery.problem = None
                            self._delivery.close()
                        self._rest(self._poll_seconds)
            finally:
                self._delivery.close()
                self._lock.release()

    def _rest(self, seconds: float) -> None:
        """Wait for the next look; at the end of the process, nothing more can be done."""
        if self._is_finishing:
            self._is_over = True
        elif not self._is_over:
            self._delivery.prepare()
            self._wake.wait(seconds)
            self._wake.lower()


def start_delivery(
    settings: Settings,
    *,
    poll_seconds: float = _POLL_SECONDS,
    patience: float = math.inf,
    outlives_tasks: bool = False,
) -> TelemetryDrainer | None:
    """Return a drainer that delivers from now on, with the arguments of its class; None if nothing is exported."""
    if not exports_telemetry(settings):
        return None
    drainer = TelemetryDrainer(settings, poll_seconds=poll_seconds, patience=patience, outlives_tasks=outlives_tasks)
    drainer.start()
    return drainer


def deliver_own(settings: Settings, path: Path, seconds: float) -> None:
    """
    Deliver what is pending in the journal of telemetry, at the end of a process.

    A drainer of this process ends by this, unless it outlives tasks: then it delivers, and nothing waits for it. What
    another process is delivering is left to that one.

    Args:
        settings: The settings that name the collectors.
        path: The journal.
        seconds: The limit of the wait; what is not delivered by then stays in the journal.
    """
    drainer = _running.get((os.getpid(), path))
    if drainer is None and seconds > 0 and path.exists():
        drainer = TelemetryDrainer(settings, path=path)
        drainer.start()
    if drainer is not None and not drainer.outlives_tasks:
        drainer.finish(seconds)
