"""
The export of log records to OpenTelemetry.

Not here: the capture of the records (logs.capture), and the destination of the export (_setup).
"""

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from dkist_processing_core import semconv
from dkist_processing_core.logs.capture import capture
from dkist_processing_core.tracing._scope import current_scope

if TYPE_CHECKING:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

_EXPORTERS_LOGGERS = frozenset({"opentelemetry", "grpc", "urllib3", "requests"})


class LogExport:
    """Exports to OpenTelemetry, redacted, each log record of a run or attempt, with its attributes."""

    formats = True

    def __init__(self, provider: "LoggerProvider", secrets: list[str]) -> None:
        """Store the provider, and texts that are never exported."""
        self.secrets = secrets
        self._logger = provider.get_logger(semconv.SCOPE)
        self._severities = _severities()

    def exporting(self) -> contextlib.AbstractContextManager[None]:
        """Export each record of the block once, with the attributes of the run or attempt that it belongs to."""
        return capture.into(self)

    def wants(self, record: logging.LogRecord) -> bool:
        """Return True for a record of a run or attempt, unless exporters and their transports have logged it."""
        return current_scope() is not None and record.name.partition(".")[0] not in _EXPORTERS_LOGGERS

    def keep(self, record: logging.LogRecord, text: str, redacted: Callable[[str], str]) -> None:
        """Export a record."""
        scope = current_scope()
        if scope is not None:
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                context=scope.context_now(),
                severity_text=redacted(record.levelname),
                severity_number=self._severities(record.levelno),
                body=text,
                attributes={**scope.attributes, "logger.name": redacted(record.name)},
            )


def _severities() -> Callable[[int], "SeverityNumber"]:
    """Return a function from a level of `logging` to OpenTelemetry's number: the first of each range of four."""
    from opentelemetry._logs import SeverityNumber  # noqa: PLC0415 - as in _providers

    named = {10: SeverityNumber.DEBUG, 20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
    return lambda level: (
        SeverityNumber.FATAL if level >= logging.CRITICAL else named.get(level // 10 * 10, SeverityNumber.TRACE)
    )
