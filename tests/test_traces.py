"""
The trace of a run with a retry and a killed attempt, as a real OTLP receiver got it.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dkist_processing_core.semconv import ATTRIBUTES, ERROR_TYPE, PHASE_SPANS, SCOPE
from dkist_processing_core.tracing.spans import SPANS
from tests.services.otlp import OtlpReceiver, Span
from tests.traced import spans_of_run
from tests.traces import problems_of


@pytest.mark.parametrize("transport", ["grpc", pytest.param("http", marks=pytest.mark.once)])
def test_a_run_with_a_retry_and_a_killed_attempt_is_one_sound_trace(
    otlp: OtlpReceiver, tmp_path: Path, transport: str
) -> None:
    """
    No parent is missing, no id occurs twice, and each attempt has ended with its status.

    The launcher ends the spans that the killed task has left open: their exported children would have no parent.
    """
    environment = otlp.grpc_env if transport == "grpc" else otlp.http_env

    spans = spans_of_run(otlp, environment | {"TRACED_FOLDER": str(tmp_path)})

    assert problems_of(spans) == []
    (root,) = (span for span in spans if not span.parent_id)
    assert (root.name, root.status_code) == ("solar_traced", "UNSET")
    attempts = {
        name: sorted((span for span in spans if span.name == name), key=lambda span: span.start)
        for name in ("ParseFrames", "CorrectFrames", "FitLimb", "MakeMovie")
    }
    assert {name: [span.attributes.get("error.type") for span in found] for name, found in attempts.items()} == {
        "ParseFrames": [None],
        "CorrectFrames": ["OSError", None],
        "FitLimb": ["signal", None],
        "MakeMovie": [None],
    }
    assert {span.parent_id for found in attempts.values() for span in found} == {root.span_id}
    killed = attempts["FitLimb"][0]
    children = {parent: [span for span in spans if span.parent_id == parent] for parent in {s.parent_id for s in spans}}
    below = {span.name: span for span in children[killed.span_id]}
    (fit,) = children[below["Run"].span_id]
    assert (fit.name, fit.status_code, fit.attributes["error.type"]) == ("fit limb", "ERROR", "signal")
    assert [span.name for span in children[fit.span_id]] == ["find edges", "publish workflow.events.x"]
    assert (below["Pre Run"].status_code, below["Run"].status_code) == ("UNSET", "ERROR")
    assert below["Run"].start < fit.start < fit.end <= killed.end
    listed = {span.subject: set(span.attributes) for span in SPANS}
    assert_listed(listed["attempt"], [span for found in attempts.values() for span in found])
    assert_listed(listed["phase"], [span for span in spans if span.name in PHASE_SPANS.values()])
    assert_listed(listed["author's"], children[below["Run"].span_id])
    assert_listed(listed["publication"], [span for span in spans if span.kind == "PRODUCER"])
    assert {name for span in spans if span.scope == SCOPE for name in span.attributes} <= set(ATTRIBUTES)


def assert_listed(listed: set[str], spans: Sequence[Span]) -> None:
    """
    Assert that spans have only attributes that the reference lists for their kind, and those of failures.
    """
    assert spans
    assert {name for span in spans for name in span.attributes} <= listed | {ERROR_TYPE}
