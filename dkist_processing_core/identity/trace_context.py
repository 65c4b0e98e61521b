"""
The ids of a run's trace, derived from the run's identity, and their transport: W3C Trace Context in the environment.

It needs only the standard library, since a launcher starts the task before it imports OpenTelemetry. Not here: spans
(tracing).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from dkist_processing_core.identity import Attempt, Run

TRACEPARENT, TRACESTATE = "TRACEPARENT", "TRACESTATE"
# https://www.w3.org/TR/trace-context/#traceparent-header: version ff is invalid, versions later than 00 may have more
# fields. Blanks, a final line end and the length are accepted as by OpenTelemetry's propagator.
_TRACEPARENT = re.compile(
    r"[ \t]*(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:(-.*)|[ \t]*)\n?"
)
_MAX_TRACEPARENT = 512
# It is created once, since `json.dumps` creates an encoder for each call with options.
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def format_identity(identity: list[str]) -> str:
    """Return the compact JSON array from which a derived id is computed; its encoding is UTF-8."""
    return _COMPACT.encode(identity)


def format_time(moment: datetime) -> str:
    """
    Return a time as RFC 3339 in UTC, always with microseconds: ids are derived from it, so equal times give equal text.

    >>> format_time(datetime(2026, 11, 22, 9, tzinfo=UTC))
    '2026-11-22T09:00:00.000000Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def derived_trace_id(run: Run) -> int:
    """Return the id of the run's trace, 128 bits of SHA-256 over the run's identity."""
    return int(_digest("trace", run)[:32], 16)


def derived_run_span_id(run: Run, restarted_at: str = "") -> int:
    """Return the id of the run's root span; a run that was cleared and restarted has another id for each start."""
    return int(_digest("run", run, *([restarted_at] if restarted_at else []))[:16], 16)


def derived_attempt_span_id(attempt: Attempt) -> int:
    """Return the id of the attempt's span, 64 bits of SHA-256 over run, task and attempt."""
    return int(_digest("attempt", attempt.run, attempt.task_name, str(attempt.attempt))[:16], 16)


def _digest(what: str, run: Run, *parts: str) -> str:
    identity = [what, run.workflow_name, run.workflow_version, run.run_id, *parts]
    return hashlib.sha256(format_identity(identity).encode(errors="surrogatepass")).hexdigest()


def format_traceparent(trace_id: int, span_id: int) -> str:
    """Return a span's context in the form of W3C Trace Context; the flag is always 01, independent of any sampler."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def parse_traceparent(text: str) -> tuple[int, int] | None:
    """Return the trace id and span id in a text; None if it is not a context that OpenTelemetry accepts."""
    found = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_TRACEPARENT else None
    if found is None or (found[1] == "00" and found[4]):
        return None
    return int(found[2], 16), int(found[3], 16)


def attempt_traceparent(attempt: Attempt, environ: Mapping[str, str]) -> str:
    """Return the context of the attempt's span, in the trace that `environ` names, by default in that of the run."""
    outer = parse_traceparent(environ.get(TRACEPARENT, ""))
    trace_id = derived_trace_id(attempt.run) if outer is None else outer[0]
    return format_traceparent(trace_id, derived_attempt_span_id(attempt))
