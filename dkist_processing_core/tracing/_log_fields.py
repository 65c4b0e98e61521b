"""
The fields that each log record has while a run or an attempt is observed: identity, and the ids of the current span.

Not here: the names of the fields (logs.fields), and the export of records (_log_export).
"""

import contextlib
import logging
from collections.abc import Callable, Iterator

from dkist_processing_core.logs.capture import replace_method
from dkist_processing_core.logs.fields import trace_fields
from dkist_processing_core.process import forks
from dkist_processing_core.tracing._scope import current_scope

_lock = forks.Lock()
_open = 0
_restore: Callable[[], None] | None = None


@contextlib.contextmanager
def fields_on_records() -> Iterator[None]:
    """
    Give each record that a logger passes on to handlers the fields of its run or attempt, during the block.

    `Logger.callHandlers` is replaced for that. A factory of records could not do it: `logging` raises an exception if
    an author's `extra` has the name of an attribute that the factory sets. Here the author's own value is kept.
    """
    global _open, _restore  # noqa: PLW0603 - logging is one per process, too
    with _lock:
        _open += 1
        if _open == 1:
            _restore = _install()
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open and _restore is not None:
                _restore()
                _restore = None


def _install() -> Callable[[], None]:
    call_handlers = logging.Logger.callHandlers

    def identify_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
        if _open:
            _identify(record)
        call_handlers(logger, record)

    return replace_method(logging.Logger, "callHandlers", identify_and_call)


def _identify(record: logging.LogRecord) -> None:
    # No exception is caught here that a signal handler of the author may raise: it must reach the author's code.
    scope = current_scope()
    if scope is None:
        return
    try:
        own = vars(record)
    except TypeError:
        return  # a class of the author's own, without attributes
    span = scope.span_now()
    for fields in (scope.fields, trace_fields(span.trace_id, span.span_id) if span.is_valid else {}):
        for name, value in fields.items():
            own.setdefault(name, value)
