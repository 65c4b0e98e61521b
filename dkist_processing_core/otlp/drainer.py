"""
The threads that deliver the telemetry of this host: one per signal, and one process per signal at a time.

Each signal has its own thread, lock and pauses, so that an outage of one collector does not hold up another one. Not
here: the requests and the pauses (otlp.delivery).
"""

import contextlib
import logging
import math
import threading
import time
from pathlib import Path

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY

from dkist_processing_core.errors import JournalError, JournalLostError
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.otlp import OtlpJournal
from dkist_processing_core.otlp.delivery import Delivery
from dkist_processing_core.otlp.destination import (
    SIGNALS,
    Signal,
    destination_of,
    endpoint_of,
    is_exported,
    journal_path,
)
from dkist_processing_core.otlp.warnings import TelemetryWarnings
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text.internal_errors import log_internal_error_once

_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
logger = logging.getLogger(__name__)


def lock_of(path: Path, signal: Signal) -> FileLock:
    """Return the lock of the process that delivers a signal from a journal."""
    return FileLock(path.with_name(f"{path.stem}.{signal}.lock"))


class TelemetryDrainer:
    """Delivers the journal of the collectors of the settings, for as long as it is open."""

    def __init__(self, settings: Settings, *, path: Path | None = None, poll_seconds: float = _POLL_SECONDS) -> None:
        """
        Start no thread, and open no file.

        Args:
            settings: The settings that name the collectors.
            path: The journal, if it is not at the place for these settings.
            poll_seconds: How often to look for the telemetry of other processes.
        """
        signals = [signal for signal in SIGNALS if is_exported(settings, signal) or endpoint_of(settings, signal)]
        self.path = path or journal_path(settings)
        warnings = TelemetryWarnings(self.path, secrets_in(settings))
        self._threads = [
            _SignalThread(settings, signal, self.path, warnings, poll_seconds)
            for signal in signals
            if not settings.otel_sdk_disabled
        ]

    @property
    def problems(self) -> dict[Signal, str]:
        """Why a signal cannot be delivered at present, for each such signal."""
        return {each.signal: each.problem for each in self._threads if each.problem is not None}

    def start(self) -> None:
        """Start the threads. One that cannot be started leaves the telemetry in the journal."""
        for each in self._threads:
            # A RuntimeError: too many processes or threads, or an interpreter that is about to exit.
            with contextlib.suppress(RuntimeError):
                each.start()

    def finish(self, seconds: float, *, patience: float = math.inf) -> None:
        """
        Deliver what is pending now, and end.

        What another process is delivering is left to it.

        Args:
            seconds: The limit of the wait; what is not delivered by then stays in the journal.
            patience: How long to wait for a collector that neither accepts a connection nor answers, in seconds.
        """
        until = time.monotonic() + seconds
        for each in self._threads:
            each.finish()
        for each in self._threads:
            each.join(until, patience)
        self.stop(0.0)

    def stop(self, seconds: float) -> None:
        """End without delivering more, and wait at most `seconds` seconds for the end of a request."""
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
        self._warnings = warnings
        self._poll_seconds = poll_seconds
        self._delivery = Delivery(settings, signal, warnings, self._note_progress)
        self._lock = lock_of(path, signal)
        self._wake = SignalSafeFlag()
        self._is_finishing = False
        self._is_over = False
        self._progressed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"dkist-core-{signal}", daemon=True)
        self._disk_problem: str | None = None

    @property
    def problem(self) -> str | None:
        return self._disk_problem or self._delivery.problem

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._progressed_at = time.monotonic()
        self._is_finishing = True
        self._wake.raise_()

    def end(self) -> None:
        self._is_over = True
        self._wake.raise_()

    def cancel(self) -> None:
        if self._thread.is_alive():
            self._delivery.cancel()

    def join(self, until: float, patience: float) -> None:
        """Wait for the end of the thread until a time of `time.monotonic`, or for `patience` seconds of silence."""
        while self._thread.is_alive():
            left = min(until, self._progressed_at + patience) - time.monotonic()
            if left <= 0:
                return
            self._thread.join(left)

    def _note_progress(self) -> None:
        self._progressed_at = time.monotonic()

    def _run(self) -> None:
        # What this thread sends is not the work of the author's code, so it is not traced.
        for key in (_SUPPRESS_INSTRUMENTATION_KEY, _SUPPRESS_HTTP_INSTRUMENTATION_KEY):
            context.attach(context.set_value(key, True))  # noqa: FBT003 - the API's signature
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
            self._wake.wait(seconds)
            self._wake.lower()


def deliver_own(settings: Settings, path: Path, seconds: float) -> None:
    """
    Deliver the telemetry in a journal at the end of a process that no other one delivers for.

    This waits only for collectors that accept a connection, and leaves what another process is delivering to it.

    Args:
        settings: The settings that name the collectors.
        path: The journal.
        seconds: The limit of the wait; what is not delivered by then stays in the journal.
    """
    if seconds > 0 and path.exists():
        drainer = TelemetryDrainer(settings, path=path)
        drainer.start()
        drainer.finish(seconds)
