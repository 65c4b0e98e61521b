"""
Ids derived from what is traced, and how a trace goes from one process to the next.

Not here: spans (_telemetry).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dkist_processing_core.events import format_facts
from dkist_processing_core.identity import Attempt, Run

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()


def derived_trace_id(run: Run) -> int:
    """Return the id of the run's trace, 128 bits of SHA-256 over the run's identity."""
    return int(_digest("trace", run)[:32], 16)


def derived_run_span_id(run: Run, restarted_at: str = "") -> int:
    """Return the id of the run's root span; one that was cleared and began again has another for each start."""
    return int(_digest("run", run, *([restarted_at] if restarted_at else []))[:16], 16)


def derived_attempt_span_id(attempt: Attempt) -> int:
    """Return the id of the attempt's span, 64 bits of SHA-256 over run, task and attempt."""
    return int(_digest("attempt", attempt.run, attempt.task_name, str(attempt.attempt))[:16], 16)


def _digest(what: str, run: Run, *facts: str) -> str:
    identity = [what, run.workflow_name, run.workflow_version, run.run_id, *facts]
    return hashlib.sha256(format_facts(identity).encode(errors="surrogatepass")).hexdigest()


def run_parent(run: Run, environ: Mapping[str, str]) -> SpanContext:
    """
    Return what spans of a run hang from: the caller's `TRACEPARENT`, else the run's own root span.

    The flag is always 01: a parent that was not sampled would silence the whole run.
    """
    carrier = {name.lower(): environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in environ}
    outer = trace.get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    if outer.is_valid:
        return sampled(outer)
    return SpanContext(derived_trace_id(run), derived_run_span_id(run), is_remote=True, trace_flags=_SAMPLED)


def sampled(span: SpanContext) -> SpanContext:
    """Return the same context with the flag 01."""
    return SpanContext(
        span.trace_id, span.span_id, is_remote=span.is_remote, trace_flags=_SAMPLED, trace_state=span.trace_state
    )


def to_traceparent(span: SpanContext) -> str:
    """Return a span's context as W3C Trace Context writes it; the flag is always 01, whatever a sampler decided."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{_SAMPLED:02x}"


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
        """Return the variables by which a process takes the trace up."""
        state = {"TRACESTATE": self.tracestate} if self.tracestate else {}
        return {"TRACEPARENT": self.traceparent} | state
