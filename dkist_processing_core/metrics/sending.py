"""
Sending the metrics of a process over OTLP, each time as one snapshot of cumulative values.

A lost snapshot is harmless, since the next one has all values. So it is neither kept nor repeated. Not here: one
request to a collector (otlp), and a task's own metrics (tracing).
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dkist_processing_core.errors import ConfigurationError, DKISTProcessingCoreError
from dkist_processing_core.journal.otlp import LONGEST_REQUESTED_SECONDS
from dkist_processing_core.metrics.snapshot import Snapshot
from dkist_processing_core.otlp import endpoint_of, is_exported
from dkist_processing_core.otlp.delivery import Exporter, exporter_of
from dkist_processing_core.otlp.destination import collector_of, hidden_parts
from dkist_processing_core.otlp.options import CONNECT_SECONDS
from dkist_processing_core.otlp.outcome import Delivered, Unavailable
from dkist_processing_core.process.uninstrumented import uninstrumented
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_INTERVAL_MILLISECONDS = 60_000
# How long the end of a process waits for the last snapshot.
_LAST_SECONDS = 0.5
logger = logging.getLogger(__name__)


def is_sent(settings: Settings) -> bool:
    """Return True if the settings name a collector of metrics."""
    return is_exported(settings, "metrics") and endpoint_of(settings, "metrics") is not None


@contextmanager
def sent(snapshot: Snapshot) -> Iterator[None]:
    """
    Send a snapshot to the collector of its settings from time to time, and once at the end; nothing without one.

    Raises:
        ConfigurationError: The interval is no number of milliseconds.
    """
    if not is_sent(snapshot.settings):
        yield
        return
    seconds = _interval_of(snapshot.settings) / 1000
    end = threading.Event()
    sender = _Sender(snapshot)

    def run() -> None:
        while not end.wait(seconds):
            sender.send()
        sender.send()
        sender.close()

    thread = threading.Thread(target=run, name="dkist-core-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_LAST_SECONDS)
        sender.cancel()


def _interval_of(settings: Settings) -> int:
    text = settings.core_origin.environ.get(INTERVAL, "").strip()
    if not text:
        return _INTERVAL_MILLISECONDS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        msg = f"{INTERVAL} is {text!r}, expected a number of milliseconds from 1 on, for example 60000"
        raise ConfigurationError(msg)
    return int(text)


class _Sender:
    """The connection to the collector, and the log of its outages."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._exporter: Exporter | None = None
        self._is_out = False
        self._resumes_at = 0.0

    def send(self) -> None:
        """Send the present values, unless the collector requests a pause; one warning is logged for an outage."""
        if time.monotonic() < self._resumes_at:
            return
        from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics  # noqa: PLC0415 - 0.1 s

        from dkist_processing_core.metrics.sdk_values import data_of  # noqa: PLC0415 - as above

        snapshot = self._snapshot
        try:
            body = encode_metrics(data_of(snapshot.measurements(to_send=True), snapshot.resource, snapshot.began_at))
            with uninstrumented():
                problem = self._problem(body.SerializeToString())
        except Exception as error:  # noqa: BLE001 - the next snapshot has all values
            is_ours = isinstance(error, DKISTProcessingCoreError)
            problem = str(error) if is_ours else f"{type(error).__name__}: {error}"
        if problem is None:
            self._is_out = False
            return
        self.close()
        if not self._is_out:
            self._is_out = True
            secrets = [*secrets_in(snapshot.settings), *hidden_parts(snapshot.settings, "metrics")]
            reason = redact(problem, also=secrets)
            logger.warning("the metrics of this process are not sent, and are tried again: %s", reason)

    def _problem(self, body: bytes) -> str | None:
        if self._exporter is None:
            collector = collector_of(self._snapshot.settings, "metrics")
            problem = None if collector is None else collector.problem(CONNECT_SECONDS)
            if problem is not None:
                return problem
            self._exporter = exporter_of(self._snapshot.settings, "metrics")
        outcome = self._exporter.send(body)
        if isinstance(outcome, Unavailable) and outcome.after is not None:
            self._resumes_at = time.monotonic() + min(outcome.after, LONGEST_REQUESTED_SECONDS)
        if not isinstance(outcome, Delivered):
            return outcome.reason
        return outcome.message or None

    def cancel(self) -> None:
        """End a request that has no answer yet; its own thread closes the connection."""
        exporter = self._exporter
        if exporter is not None:
            exporter.cancel()

    def close(self) -> None:
        """Close the connection; the next snapshot opens another one."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()
