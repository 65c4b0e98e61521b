"""
The reports of a task's process about its open spans, by which its launcher completes the trace of a killed attempt.
"""

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from dkist_processing_core.tracing._open_spans import OPEN, report_open_spans


def id_of(span: Any) -> str:
    """
    Return the name that reports have for a span.
    """
    return f"{OPEN}{span.get_span_context().span_id:016x}"


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_an_open_span_is_reported_with_its_first_child_and_ended_when_it_has_left_the_process(
    *, is_confirmed: bool
) -> None:
    """
    The spans above it are reported as well, since they are its parents. A span without children is never reported.
    """
    provider, reports = TracerProvider(), dict[str, Any]()
    tracer = provider.get_tracer("author")
    have_left = report_open_spans(provider, reports.update, is_confirmed=is_confirmed)

    with tracer.start_as_current_span("outer", attributes={"frames": 3}) as outer:
        with tracer.start_as_current_span("inner") as inner:
            before = dict(reports)
            for _ in range(2):
                tracer.start_span("leaf").end()
            while_open = dict(reports)
        after_inner = dict(reports)
        if is_confirmed and isinstance(inner, ReadableSpan):
            have_left([inner])
    confirmed = dict(reports)

    described = while_open[id_of(outer)]
    assert before == {}
    assert set(while_open) == {id_of(outer), id_of(inner)}
    assert (described["name"], described["parent"], described["attributes"]) == ("outer", None, {"frames": 3})
    assert while_open[id_of(inner)]["parent"] == id_of(outer).removeprefix(OPEN)
    assert (after_inner[id_of(inner)] is None) is not is_confirmed
    assert confirmed[id_of(inner)] is None
    assert (confirmed[id_of(outer)] is None) is not is_confirmed
