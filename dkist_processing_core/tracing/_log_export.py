"""
The export of log records to OpenTelemetry.

Not here: the destination of the export (_setup).
"""

import contextlib
import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dkist_processing_core import semconv
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.text import redact
from dkist_processing_core.text.exception_text import class_name, stack_of
from dkist_processing_core.tracing._log_fields import replace_method
from dkist_processing_core.tracing._scope import current_scope

if TYPE_CHECKING:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

_EXPORTERS_LOGGERS = frozenset({"opentelemetry", "grpc", "urllib3", "requests"})
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""The types that are formatted without any of the author's code: an exception during that comes from a signal."""


class LogExport:
    """
    Exports to OpenTelemetry, redacted, each log record that its author's logger passes on to handlers.

    It replaces `Logger.callHandlers` while a task runs, and adds no handler: a handler on the root logger would change
    what the author sees, since `logging.basicConfig` and the handler of last resort only work while there is none. The
    results of the author's filters, formatters and values are taken from their own run and never computed again.
    """

    def __init__(self, provider: "LoggerProvider", secrets: list[str]) -> None:
        self._logger = provider.get_logger(semconv.SCOPE)
        self._secrets = secrets
        self._severities = _severities()
        self._lock = forks.Lock()
        self._open = 0
        self._restore: list[Callable[[], None]] = []
        self._current: object = None
        # The key is a record's id: a filter may format a record before it is passed on, and a record may have no hash.
        self._messages: dict[int, tuple[weakref.ref[logging.LogRecord], str, object, object]] = {}
        self._of_thread = threading.local()

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Export each record of the block once, with the attributes of the run or attempt that it belongs to."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._install()
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._uninstall()

    def _install(self) -> None:
        call_handlers, get_message = logging.Logger.callHandlers, logging.LogRecord.getMessage

        # If the author has wrapped one of these in a method, it stays inside the wrapper, and has no effect.
        current = self._current = object()

        def call_and_export(logger: logging.Logger, record: logging.LogRecord) -> None:
            try:
                call_handlers(logger, record)
            finally:
                if self._current is current:
                    with signals_deferred():
                        self._export(record, logger)

        def get_and_keep_message(record: logging.LogRecord) -> str:
            message = None
            try:
                message = get_message(record)
            finally:
                if self._current is current:
                    self._keep(record, message)
            return message

        self._restore = [
            replace_method(logging.Logger, "callHandlers", call_and_export),
            replace_method(logging.LogRecord, "getMessage", get_and_keep_message),
        ]

    def _uninstall(self) -> None:
        for restore in self._restore:
            restore()
        self._restore, self._current = [], None
        self._messages.clear()

    def _keep(self, record: logging.LogRecord, message: str | None) -> None:
        """Keep the formatted text of a record, or with None that formatting failed, as long as the record lives."""
        key = id(record)
        # Signals are delivered with the export: a handler of logs treats an exception raised in it as its own error.
        # Any attribute may be missing from a record of the author's own class.
        with signals_deferred(delivers=False), contextlib.suppress(Exception):
            # The callback executes no Python code: an exception of a signal handler in a callback of weakref is lost.
            reference = weakref.ref(record, functools.partial(self._messages.pop, key))
            text = _template_of(record) if message is None else message
            self._messages[key] = reference, text, record.msg, record.args

    def _export(self, record: logging.LogRecord, logger: logging.Logger) -> None:
        scope = current_scope()
        is_nested = getattr(self._of_thread, "is_exporting", False)
        # A signal handler may log during this call. The author's values may also log while they are formatted, then
        # endlessly.
        if scope is None or (is_nested and not self._is_formatted(record)):
            return
        self._of_thread.is_exporting = True
        # The handlers report a record that cannot be formatted; such a record must not end the program.
        try:
            # Records that exporters and their transports log must not be exported by them again.
            if record.name.partition(".")[0] in _EXPORTERS_LOGGERS:
                return
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                context=scope.context_now(),
                severity_text=record.levelname,
                severity_number=self._severities(record.levelno),
                body=redact(self._text_of(record, logger), also=self._secrets),
                attributes={**scope.attributes, "logger.name": record.name},
            )
        except Exception:  # noqa: BLE001 - as above
            return
        finally:
            self._of_thread.is_exporting = is_nested

    def _is_formatted(self, record: logging.LogRecord) -> bool:
        """Return True if the text of a record can be obtained without any of the author's code."""
        return id(record) in self._messages or _is_plain(record)

    def _text_of(self, record: logging.LogRecord, logger: logging.Logger) -> str:
        """Return message, exception and stack of a record, as they were formatted, or as they would be."""
        now = record.msg, record.args
        _, message, *formatted_of = self._messages.pop(id(record), (None, vars(record).get("message"), *now))
        # A filter may have formatted the record, and changed its text afterwards.
        if message is None or any(a is not b for a, b in zip(formatted_of, now, strict=True)):
            # A handler may have formatted the record in its own way.
            asks_again = not _is_plain(record) and _is_handled(record, logger)
            message = _template_of(record) if asks_again else _message_of(record)
        error = record.exc_info[1] if record.exc_info else None
        stack = record.exc_text or (None if error is None else stack_of(error).rstrip("\n"))
        return "\n".join(str(part) for part in (message, stack, record.stack_info) if part or part is message)


def _is_handled(record: logging.LogRecord, logger: logging.Logger) -> bool:
    """Return True if a record was passed to a handler that does something."""
    handlers: list[logging.Handler] = []
    each: logging.Logger | None = logger
    while each is not None:
        handlers += each.handlers
        each = each.parent if each.propagate else None
    if not handlers and logging.lastResort is not None:
        handlers = [logging.lastResort]
    return any(record.levelno >= each.level and not isinstance(each, logging.NullHandler) for each in handlers)


def _template_of(record: logging.LogRecord) -> str:
    """Return a text for a record that is not formatted, without any of the author's code."""
    return record.msg if type(record.msg) is str else f"<{class_name(type(record.msg))}>"


def _is_plain(record: logging.LogRecord) -> bool:
    return (
        type(record).getMessage is logging.LogRecord.getMessage
        and {type(record.msg), *(map(type, record.args) if type(record.args) is tuple else ())} <= _PLAIN
    )


def _message_of(record: logging.LogRecord) -> str:
    """Format a record that no handler has formatted."""
    if _is_plain(record):
        return record.getMessage()
    try:
        return record.getMessage()
    except (KeyboardInterrupt, TerminationError):
        raise
    except BaseException:  # noqa: BLE001
        # The author's values raised this: without an export they would not have been formatted, so it must not end the
        # task.
        return _template_of(record)


def _severities() -> Callable[[int], "SeverityNumber"]:
    """Return a function from a level of `logging` to OpenTelemetry's number: the first of each range of four."""
    from opentelemetry._logs import SeverityNumber  # noqa: PLC0415 - as in _providers

    named = {10: SeverityNumber.DEBUG, 20: SeverityNumber.INFO, 30: SeverityNumber.WARN, 40: SeverityNumber.ERROR}
    return lambda level: (
        SeverityNumber.FATAL if level >= logging.CRITICAL else named.get(level // 10 * 10, SeverityNumber.TRACE)
    )
