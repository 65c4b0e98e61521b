"""
The log lines of a delivery of telemetry: one for each outage, and one for each reason of a refusal.

Not here: the reasons themselves (over_http, over_grpc, options).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from dkist_processing_core.otlp.destination import Signal
from dkist_processing_core.text import redact

# By journal and signal: several deliveries of one process, one after the other, log an outage and a refusal only once.
_outages: dict[tuple[Path, Signal], str] = {}
_refusals: set[tuple[Path, Signal, str]] = set()
_MOST_REFUSALS = 100
logger = logging.getLogger(__name__)


class TelemetryWarnings:
    """The log lines about the journal of some collectors."""

    def __init__(self, path: Path, secrets: Sequence[str]) -> None:
        """Store the path of the journal, and the texts that must not be shown."""
        self._path = path
        self._secrets = secrets

    def report_outage(self, signal: Signal, reason: str) -> None:
        """Log why a signal is not delivered, once for all signals for as long as that lasts."""
        reason = redact(reason, also=self._secrets)
        is_known = any(path == self._path and known == reason for (path, _), known in _outages.items())
        _outages[self._path, signal] = reason
        if not is_known:
            logger.warning(
                "%s. Telemetry is kept in %s until it can be delivered; if no process does this then, run "
                "`dkist-core outbox drain`.",
                reason,
                self._path,
            )

    def report_recovery(self, signal: Signal) -> None:
        """Log that a signal is delivered again, if an outage was logged before."""
        reason = _outages.pop((self._path, signal), None)
        if reason is not None and reason not in _outages.values():
            logger.info("telemetry is delivered again from %s", self._path)

    def report_refusal(self, signal: Signal, count: int, reason: str) -> None:
        """Log that a collector refused items of a signal, or with 0 that it warned; a repeated reason is not logged."""
        reason = redact(reason, also=self._secrets)
        key = self._path, signal, reason
        if key in _refusals or len(_refusals) >= _MOST_REFUSALS:
            return
        _refusals.add(key)
        if count:
            logger.warning("the collector of %s refused some, which are dropped (%s so far): %s", signal, count, reason)
        else:
            logger.warning("the collector of %s accepted them with a remark: %s", signal, reason)
