"""
The mark of this package's own I/O, by which OpenTelemetry's instrumentors make no spans of it.

Not here: the instrumentors (tracing).
"""

import contextlib
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
