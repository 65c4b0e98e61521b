"""
The open spans of a task's process that have exported spans below them: its launcher ends them if the process is killed.

Without this, the spans below them would have no parent in the trace. Not here: the pipe to the launcher (attempt), and
the export of such a span (launcher).
"""

import json
import os
import select
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from dkist_processing_core.semconv import ERROR_TYPE, IDENTITY

OPEN = "open "
"""The beginning of a name in a report: the rest is the id of an open span, and the value describes it, or is None."""
_PLAIN = (str, bool, int, float)
# A pipe takes a line of so many bytes at once: https://man7.org/linux/man-pages/man7/pipe.7.html
_MOST_BYTES = select.PIPE_BUF
# An escaped character has up to 12 bytes.
_LONGEST_NAME = 128


def report_open_spans(
    provider: Any, report: Callable[[dict[str, Any]], object], *, is_confirmed: bool
) -> Callable[[Iterable[Any]], None]:
    """
    Report the open spans of a provider of the SDK that have spans below them, and their ends.

    Args:
        provider: The provider.
        report: Gets the reports.
        is_confirmed: Whether the returned function will be called with each span that has left the process. Only then
            its end is reported: before, it would be lost if the process were killed.

    Returns:
        The function to call with such spans.
    """
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor  # noqa: PLC0415 - nothing is exported by default

    open_spans = _OpenSpans(report)

    class Reporting(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
            open_spans.started(span)

        def on_end(self, span: ReadableSpan) -> None:
            open_spans.ended(span)
            if not is_confirmed:
                open_spans.have_left([span])

    provider.add_span_processor(Reporting())
    return open_spans.have_left


class _OpenSpans:
    """The open spans of a process, and those that were reported."""

    def __init__(self, report: Callable[[dict[str, Any]], object]) -> None:
        self._report = report
        self._process = os.getpid()
        self._open: dict[int, Any] = {}
        self._reported: set[int] = set()

    def started(self, span: Any) -> None:
        # A fork has the spans of its parent process, which ends them itself.
        if self._process == os.getpid():
            self._open[span.context.span_id] = span

    def ended(self, span: Any) -> None:
        """Report the spans above one that has ended."""
        if self._process != os.getpid() or self._open.pop(span.context.span_id, None) is None:
            return
        above = span.parent
        while above is not None and above.span_id in self._open and above.span_id not in self._reported:
            parent = self._open[above.span_id]
            self._reported.add(above.span_id)
            self._report(_described(parent))
            above = parent.parent

    def have_left(self, spans: Iterable[Any]) -> None:
        """Report the ends of spans that the process cannot lose any more."""
        for own in (span.context.span_id for span in spans):
            if own in self._reported and self._process == os.getpid():
                self._reported.discard(own)
                self._report({f"{OPEN}{own:016x}": None})


def _described(span: Any) -> dict[str, Any]:
    """Return the report of an open span; attributes without room in one line of the pipe are left out."""
    kept: dict[str, Any] = {}
    report = {
        f"{OPEN}{span.context.span_id:016x}": {
            "name": span.name[:_LONGEST_NAME],
            "trace": f"{span.context.trace_id:032x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent else None,
            "start": span.start_time,
            "attributes": kept,
        }
    }
    room = _MOST_BYTES - len(json.dumps(report)) - len("\n")
    found = span.attributes or {}
    for name in sorted(found, key=lambda name: name not in IDENTITY):
        # Its two braces are as long as the separator before it.
        size = len(json.dumps({name: found[name]})) if isinstance(found[name], _PLAIN) else room + 1
        if size <= room:
            kept[name] = found[name]
            room -= size
    return report


def end_open_spans(
    root_span: Callable[..., AbstractContextManager[ApiSpan]], reports: Mapping[str, Any], cause: Callable[[], str]
) -> None:
    """
    Export the spans that a process has reported as open, and has not ended; they end now, as errors.

    Args:
        root_span: Opens a span with given ids: `Telemetry.root_span`.
        reports: All reports of the process.
        cause: Returns why the process did not end them.
    """

    def context(trace_id: str, span_id: str) -> SpanContext:
        return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))

    for name, each in reports.items():
        if name.startswith(OPEN) and each is not None:
            parent = context(each["trace"], each["parent"]) if each["parent"] else None
            with root_span(
                each["name"],
                parent,
                context(each["trace"], name.removeprefix(OPEN)),
                SpanKind.INTERNAL,
                each["attributes"],
                start_time=each["start"],
                is_given_out=True,
            ) as span:
                reason = cause()
                span.set_attribute(ERROR_TYPE, reason)
                span.set_status(Status(StatusCode.ERROR, f"the process of the task ended before this span: {reason}"))
