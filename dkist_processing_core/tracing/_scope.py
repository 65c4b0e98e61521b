"""
The run or attempt that this process observes or handles, whose identity its spans and log records have.

Not here: the records themselves (_log_fields, _log_export), and the spans (_telemetry).
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One run or attempt, while it is observed or an event about it is handled."""

    attributes: Mapping[str, Any]
    """The attributes of its log records, whose identity the spans have as well."""
    fields: Mapping[str, Any]
    """The fields that identify it on each log record."""
    span: SpanContext
    """The context of its span; an invalid one if there is none."""

    def span_now(self) -> SpanContext:
        """Return the current span, or that of this scope in a thread of the author's, which has no current one."""
        current = trace.get_current_span().get_span_context()
        return current if current.is_valid else self.span

    def context_now(self) -> otel_context.Context:
        """Return the current context, with the span of this scope in a thread that has no current one."""
        now = otel_context.get_current()
        has_span = trace.get_current_span(now).get_span_context().is_valid
        return now if has_span else trace.set_span_in_context(NonRecordingSpan(self.span), now)


_current: ContextVar[Scope | None] = ContextVar("_current", default=None)
_open: list[Scope] = []


@contextlib.contextmanager
def opened(scope: Scope) -> Iterator[None]:
    """Make a scope the current one during the block, also in threads that have none."""
    with opened_in_context(scope):
        _open.append(scope)
        try:
            yield
        finally:
            _open.remove(scope)


@contextlib.contextmanager
def opened_in_context(scope: Scope) -> Iterator[None]:
    """Make a scope the current one during the block, in this context alone: other threads may have other ones."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)


def current_scope(*, of_context: bool = False) -> Scope | None:
    """
    Return the scope of the current context, or else the one that was opened last.

    Args:
        of_context: Return None in a context without a scope, such as another thread of a host application.
    """
    found = _current.get()
    if found is not None or of_context:
        return found
    # Another thread may close the last one at the same time.
    try:
        return _open[-1]
    except IndexError:
        return None
