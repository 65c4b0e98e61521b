"""
The mark of this package's own I/O: OpenTelemetry's instrumentors make no spans of it, and its libraries do not log it.

Not here: the instrumentors (tracing).
"""

import contextlib
import logging
from collections.abc import Iterator

from opentelemetry import context

# The two keys that instrumentors ask for, old and new: `opentelemetry.instrumentation.utils` defines both, but is not
# installed with this package.
_KEYS = ("suppress_instrumentation", getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"))


@contextlib.contextmanager
def uninstrumented() -> Iterator[None]:
    """Make no spans of requests, queries and messages of the block, in this thread."""
    marked = context.get_current()
    for key in _KEYS:
        marked = context.set_value(key, True, marked)  # noqa: FBT003 - OpenTelemetry's signature
    token = context.attach(marked)
    try:
        yield
    finally:
        context.detach(token)


def is_uninstrumented() -> bool:
    """Return True in such a block, or in one in which OpenTelemetry's SDK exports."""
    return any(context.get_value(key) for key in _KEYS)


def silence(*loggers: str) -> None:
    """
    Drop what these loggers of libraries log in such a block, of any level.

    They log headers and addresses of requests, which may hold secrets, and a log that is exported would never end.
    """
    for name in loggers:
        # A logger has a filter once, although it is added several times.
        logging.getLogger(name).addFilter(_is_others)


def _is_others(_: logging.LogRecord) -> bool:
    return not is_uninstrumented()
