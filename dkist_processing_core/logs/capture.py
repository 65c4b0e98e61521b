"""
The capture of log records, redacted, for the parts of this package that keep them: the export, and the recorder.

Not here: these parts (tracing, recorder).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref

from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.text.exception_text import class_name, stack_of
from dkist_processing_core.text.redaction import redactor, secrets_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    class Sink(Protocol):
        """A part that keeps log records."""

        @property
        def secrets(self) -> Sequence[str]:
            """Texts to redact, in addition to the secrets of the process's variables."""

        @property
        def formats(self) -> bool:
            """Whether a record that no handler formats may be formatted for it, which may run the author's code."""

        def wants(self, record: logging.LogRecord) -> bool:
            """Return True if it keeps this record."""

        def keep(self, record: logging.LogRecord, text: str, redacted: Callable[[str], str]) -> None:
            """
            Keep a record, of which `text` is the message with exception and stack, redacted.

            `redacted` redacts what else is kept of it.
            """


_PLAIN = frozenset({str, int, float, bool, type(None)})
"""The types that are formatted without any of the author's code: an exception during that comes from a signal."""


_MOST_OLDER = 100


class _Redactor:
    """Redacts also the secrets that the environment had before: a task may delete one, and log it afterwards."""

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()
        self._last: tuple[object, tuple[Sink, ...], Callable[[str], str]] | None = None

    def of(self, sinks: tuple[Sink, ...]) -> Callable[[str], str]:
        """Return a function that redacts for these sinks: the same one while nothing has changed."""
        now = secrets_now()
        if self._last is not None and self._last[0] is now and self._last[1] == sinks:
            return self._last[2]
        older = [secret for secret in self._known if secret not in now]
        self._known = (*older[-_MOST_OLDER:], *now)
        redacted = redactor(self._known, also=[secret for sink in sinks for secret in sink.secrets])
        self._last = now, sinks, redacted
        return redacted


class Capture:
    """
    Hands to its sinks, redacted, each log record that its author's logger passes on to handlers.

    It replaces `Logger.callHandlers` while it has a sink, and adds no handler: a handler on the root logger would
    change what the author sees, since `logging.basicConfig` and the handler of last resort only work while there is
    none. The results of the author's filters, formatters and values are taken from their own run, and never computed
    again.
    """

    def __init__(self) -> None:
        """Create a capture without sinks."""
        self._lock = forks.Lock()
        self._sinks: tuple[Sink, ...] = ()
        self._restore: list[Callable[[], None]] = []
        self._current: object = None
        self._outermost: object = None
        # The key is a record's id: a filter may format a record before it is passed on, and a record may have no hash.
        self._messages: dict[int, tuple[weakref.ref[logging.LogRecord], str, object, object]] = {}
        self._of_thread = threading.local()
        self._redactor = _Redactor()

    @contextlib.contextmanager
    def into(self, sink: Sink) -> Iterator[None]:
        """Hand each record of the block to a sink."""
        self.begin(sink)
        try:
            yield
        finally:
            self.end(sink)

    def begin(self, sink: Sink) -> None:
        """Hand each record to a sink from now on."""
        with self._lock:
            self._sinks += (sink,)
            self._redactor.of(self._sinks)
            # If the author has wrapped the method, and the wrapper passes on only some records, it gets a new one.
            if vars(logging.Logger)["callHandlers"] is not self._outermost:
                self._uninstall()
                self._install()

    def end(self, sink: Sink) -> None:
        """Hand no more records to a sink."""
        with self._lock:
            at = self._sinks.index(sink)
            self._sinks = (*self._sinks[:at], *self._sinks[at + 1 :])
            if not self._sinks:
                self._redactor = _Redactor()
                self._uninstall()

    def _install(self) -> None:
        call_handlers, get_message = logging.Logger.callHandlers, logging.LogRecord.getMessage

        # If the author has wrapped one of these in a method, it stays inside the wrapper, and has no effect.
        current = self._current = object()

        def call_and_keep(logger: logging.Logger, record: logging.LogRecord) -> None:
            try:
                call_handlers(logger, record)
            finally:
                if self._current is current:
                    with signals_deferred():
                        self._hand_over(record, logger)

        def get_and_keep_message(record: logging.LogRecord) -> str:
            message = None
            try:
                message = get_message(record)
            finally:
                if self._current is current:
                    self._keep_message(record, message)
            return message

        self._outermost = call_and_keep
        self._restore = [
            replace_method(logging.Logger, "callHandlers", call_and_keep),
            replace_method(logging.LogRecord, "getMessage", get_and_keep_message),
        ]

    def _uninstall(self) -> None:
        for restore in self._restore:
            restore()
        self._restore, self._current, self._outermost = [], None, None
        self._messages.clear()

    def _keep_message(self, record: logging.LogRecord, message: str | None) -> None:
        """Keep the formatted text of a record, or with None that formatting failed, as long as the record lives."""
        key = id(record)
        # Signals are delivered with the handing over: a handler of logs treats an exception raised in it as its own
        # error. Any attribute may be missing from a record of the author's own class.
        with signals_deferred(delivers=False), contextlib.suppress(Exception):
            # The callback executes no Python code: an exception of a signal handler in a callback of weakref is lost.
            reference = weakref.ref(record, functools.partial(self._messages.pop, key))
            text = _template_of(record) if message is None else message
            self._messages[key] = reference, text, record.msg, record.args

    def _hand_over(self, record: logging.LogRecord, logger: logging.Logger) -> None:
        is_nested = getattr(self._of_thread, "is_handing_over", False)
        # A signal handler may log during this call. The author's values may also log while they are formatted, then
        # endlessly.
        if is_nested and not self._is_formatted(record):
            return
        self._of_thread.is_handing_over = True
        # The handlers report a record that cannot be formatted; such a record must not end the program.
        try:
            # A task may call another one, with the same sink.
            sinks = tuple(sink for sink in dict.fromkeys(self._sinks) if sink.wants(record))
            if not sinks:
                return
            formats = any(sink.formats for sink in sinks)
            redacted = self._redactor.of(sinks)
            text = redacted(self._text_of(record, logger, formats=formats))
            for sink in sinks:
                sink.keep(record, text, redacted)
        except Exception:  # noqa: BLE001 - as above
            return
        finally:
            self._of_thread.is_handing_over = is_nested

    def _is_formatted(self, record: logging.LogRecord) -> bool:
        """Return True if the text of a record can be obtained without any of the author's code."""
        return id(record) in self._messages or _is_plain(record)

    def _text_of(self, record: logging.LogRecord, logger: logging.Logger, *, formats: bool) -> str:
        """Return message, exception and stack of a record, as they were formatted, or as they would be."""
        now = record.msg, record.args
        _, message, *formatted_of = self._messages.pop(id(record), (None, vars(record).get("message"), *now))
        # A filter may have formatted the record, and changed its text afterwards.
        if message is None or any(a is not b for a, b in zip(formatted_of, now, strict=True)):
            # A handler may have formatted the record in its own way.
            is_avoided = not _is_plain(record) and (not formats or _is_handled(record, logger))
            message = _template_of(record) if is_avoided else _message_of(record)
        error = record.exc_info[1] if record.exc_info else None
        stack = record.exc_text
        if error is not None and not stack:
            stack = stack_of(error).rstrip("\n") if formats else class_name(type(error))
        return "\n".join(str(part) for part in (message, stack, record.stack_info) if part or part is message)


def replace_method(owner: type, name: str, function: Callable[..., Any]) -> Callable[[], None]:
    """Replace a method, and return a function that restores it, unless the author has replaced it since."""
    before = getattr(owner, name)
    setattr(owner, name, function)

    def restore() -> None:
        if vars(owner).get(name) is function:
            setattr(owner, name, before)

    return restore


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
        # The author's values raised this: without a sink they would not have been formatted, so it must not end the
        # task.
        return _template_of(record)


capture = Capture()
"""The capture of this process: `logging` is one per process, too."""
