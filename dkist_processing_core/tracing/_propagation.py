"""
The propagation of a trace from one process to the next, as OpenTelemetry's own objects.

Not here: the derived ids (identity.trace_context), and spans (_telemetry).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import (
    TRACEPARENT,
    TRACESTATE,
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
    format_traceparent,
)

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()


def run_parent(run: Run, environ: Mapping[str, str]) -> SpanContext:
    """
    Return the parent of a run's spans: the caller's `TRACEPARENT`, otherwise the run's own root span.

    The flag is always 01: an unsampled parent would suppress all spans of the run.
    """
    carrier = {name.lower(): environ[name] for name in (TRACEPARENT, TRACESTATE) if name in environ}
    outer = trace.get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    if outer.is_valid:
        return sampled(outer)
    return SpanContext(derived_trace_id(run), derived_run_span_id(run), is_remote=True, trace_flags=_SAMPLED)


def derived_span(parent: SpanContext, subject: Run | Attempt) -> SpanContext:
    """Return the context of the span of a run or an attempt, in the trace of `parent`."""
    span_id = derived_attempt_span_id(subject) if isinstance(subject, Attempt) else derived_run_span_id(subject)
    return SpanContext(
        parent.trace_id, span_id, is_remote=False, trace_flags=parent.trace_flags, trace_state=parent.trace_state
    )


def sampled(span: SpanContext) -> SpanContext:
    """Return the same context with the flag 01."""
    return SpanContext(
        span.trace_id, span.span_id, is_remote=span.is_remote, trace_flags=_SAMPLED, trace_state=span.trace_state
    )


def to_traceparent(span: SpanContext) -> str:
    """Return a span's context in W3C Trace Context format; the flag is always 01, independent of any sampler."""
    return format_traceparent(span.trace_id, span.span_id)


@dataclass(frozen=True, slots=True)
class Carrier:
    """A span's context as events and environments carry it."""

    traceparent: str
    tracestate: str | None

    @classmethod
    def of(cls, span: SpanContext) -> "Carrier":
        """Return the carrier of a span's context."""
        return cls(to_traceparent(span), span.trace_state.to_header() or None)

    def to_environ(self) -> dict[str, str]:
        """Return the variables with which a process continues the trace."""
        state = {TRACESTATE: self.tracestate} if self.tracestate else {}
        return {TRACEPARENT: self.traceparent} | state
