"""
Log records on their way to OpenTelemetry.

Not here: where they are exported to (_setup).
"""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dkist_processing_core import forks, semconv
from dkist_processing_core.text import redact

if TYPE_CHECKING:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

log_attributes: ContextVar[Mapping[str, Any] | None] = ContextVar("log_attributes", default=None)
_EXPORTERS_LOGGERS = frozenset({"opentelemetry", "grpc", "urllib3", "requests"})


class LogExport:
    """
    Hands what is logged to OpenTelemetry, redacted.

    By the factory of log records, and not by a handler: one on the root logger would change what the author sees, since
    `logging.basicConfig` and the handler of last resort only work while there is none.
    """

    def __init__(self, provider: "LoggerProvider", secrets: list[str]) -> None:
        self._logger = provider.get_logger(semconv.SCOPE)
        self._secrets = secrets
        self._severities = _severities()
        self._formatter = logging.Formatter()
        self._lock = forks.Lock()
        self._scopes: list[Mapping[str, Any]] = []
        self._inner: Callable[..., logging.LogRecord] = logging.LogRecord
        self._factory: Callable[..., logging.LogRecord] | None = None

    @contextlib.contextmanager
    def scope(self, attributes: Mapping[str, Any]) -> Iterator[None]:
        """Export each record made meanwhile, once: with the attributes of its context, else of the last scope."""
        token = log_attributes.set(attributes)
        with self._lock:
            if not self._scopes:
                self._install()
            self._scopes.append(attributes)
        try:
            yield
        finally:
            log_attributes.reset(token)
            with self._lock:
                self._scopes.remove(attributes)
                if not self._scopes:
                    self._uninstall()

    def _install(self) -> None:
        inner = logging.getLogRecordFactory()

        def factory(*values: Any, **named: Any) -> logging.LogRecord:
            record = inner(*values, **named)
            if self._factory is factory:
                self._export(record)
            return record

        self._inner, self._factory = inner, factory
        logging.setLogRecordFactory(factory)

    def _uninstall(self) -> None:
        # Where the author has put a factory around this one, it stays inside, and does nothing any more.
        if logging.getLogRecordFactory() is self._factory:
            logging.setLogRecordFactory(self._inner)
        self._factory = None

    def _export(self, record: logging.LogRecord) -> None:
        # Without a name it is no new record, but a copy that is being filled in (logging.makeLogRecord). What exporters
        # and their transports log must not feed them.
        if not isinstance(record.name, str) or record.name.partition(".")[0] in _EXPORTERS_LOGGERS:
            return
        author = logging.getLogger(record.name)
        # A copy: formatting leaves its marks on a record, and the author's filters will see the record itself.
        kept = copy.copy(record)
        verdict = None if author.disabled else author.filter(kept)
        if not verdict:
            return
        kept = verdict if isinstance(verdict, logging.LogRecord) else kept
        # A record that cannot be formatted is its author's to hear of, from the handlers; none must end the program.
        with contextlib.suppress(Exception):
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=self._severities(record.levelno),
                body=redact(self._formatter.format(kept), also=self._secrets),
                attributes={**(log_attributes.get() or self._scopes[-1]), "logger.name": record.name},
            )


def _severities() -> Callable[[int], "SeverityNumber"]:
    """Return what gives OpenTelemetry's number for a level of `logging`: the first of each of its ranges of four."""
    from opentelemetry._logs import SeverityNumber  # noqa: PLC0415 - as in _resource

    named = {10: SeverityNumber.DEBUG, 20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
    return lambda level: (
        SeverityNumber.FATAL if level >= logging.CRITICAL else named.get(level // 10 * 10, SeverityNumber.TRACE)
    )
