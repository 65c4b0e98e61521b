"""
The reports of a task's process about its open spans, by which its launcher completes the trace of a killed attempt.
"""

import json
import os
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from dkist_processing_core.attempt.report_pipe import ReportPipe
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


@pytest.mark.parametrize("name", ["fit the limb", "f" * 5000, "\U0001f31e" * 5000], ids=["short", "long", "escaped"])
def test_an_open_span_is_reported_without_the_attributes_that_have_no_room(name: str) -> None:
    """
    Its identity is in the report before all else: without the span itself, its children would have no parent.
    """
    provider = TracerProvider()
    tracer = provider.get_tracer("author")
    read, written = os.pipe()
    os.set_blocking(read, False)
    report_open_spans(provider, ReportPipe(written, None).note, is_confirmed=False)
    of_author = {"header": "h" * 5000, **{f"frame {number:04}": "f" * 20 for number in range(100)}}

    with tracer.start_as_current_span(name, attributes={**of_author, "task.name": "FitLimb"}) as span:
        tracer.start_span("leaf").end()
        line = os.read(read, 65536)

    os.close(read)
    os.close(written)
    described = json.loads(line)[id_of(span)]
    assert name.startswith(described["name"])
    assert described["attributes"]["task.name"] == "FitLimb"
    assert "frame 0001" in described["attributes"]
    assert "header" not in described["attributes"]
    assert len(line) <= 4096
