"""
Suppressing the log lines of pika while a link of this library runs pika.

Not here: the log lines of this library about a connection, which its callers write.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator

_inside_link = threading.local()


def filter_pika() -> None:
    """Add the filter to all loggers of pika; a second call changes nothing. Call this after the import of pika."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("pika.") and isinstance(logger, logging.Logger):
            logger.addFilter(_is_wanted)


@contextlib.contextmanager
def pika_silenced() -> Iterator[None]:
    """
    Suppress pika's own log lines in this thread.

    A refused connection causes five log lines with tracebacks; a link raises one error that names the cause instead.
    The lines appear if a level is set on the logger `pika`. Lines of pika connections of other code are not affected.
    """
    _inside_link.depth = getattr(_inside_link, "depth", 0) + 1
    try:
        yield
    finally:
        _inside_link.depth -= 1


def _is_wanted(record: logging.LogRecord) -> bool:
    # pika resolves host names in a separate thread, which cannot be attributed to one connection or another.
    is_ours = getattr(_inside_link, "depth", 0) or record.funcName == "_resolve"
    return not is_ours or logging.getLogger("pika").level != logging.NOTSET
