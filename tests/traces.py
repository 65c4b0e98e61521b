"""
The soundness of a trace as a receiver got it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from dkist_processing_core.semconv import (
    ERROR_TYPE,
    PIPELINE_RESULT,
    PIPELINE_TASK_RUN_RESULT,
    SCOPE,
    SUCCESS,
)
from tests.services.otlp import Span


def problems_of(spans: Sequence[Span]) -> list[str]:
    """
    Return a sentence for each problem: several traces, a missing parent, an id that occurs twice, a wrong end or
    status.

    Airflow's own spans are parents, and are not judged: it exports the span of a task once for each of its tries.
    """
    return [*_of_tree(spans), *(problem for span in spans if span.scope == SCOPE for problem in _of_span(span))]


def _of_tree(spans: Sequence[Span]) -> Iterator[str]:
    traces = {span.trace_id for span in spans}
    if len(traces) != 1:
        yield f"{len(traces)} traces, expected one"
    known = {span.span_id for span in spans}
    counts = Counter(span.span_id for span in spans if span.scope == SCOPE)
    for span in spans:
        if span.parent_id and span.parent_id not in known:
            yield f"the parent of {span.name} is missing"
        if counts[span.span_id] > 1:
            yield f"{span.name} has an id that occurs {counts[span.span_id]} times"


def _of_span(span: Span) -> Iterator[str]:
    if span.end < span.start:
        yield f"{span.name} ends before it starts"
    results = [span.attributes[name] for name in (PIPELINE_RESULT, PIPELINE_TASK_RUN_RESULT) if name in span.attributes]
    if results and results != [SUCCESS] and span.status_code != "ERROR":
        yield f"{span.name} has the result {results[0]} and the status {span.status_code}"
    if results == [SUCCESS] and span.status_code != "UNSET":
        yield f"{span.name} was successful and has the status {span.status_code}"
    if span.status_code == "ERROR" and PIPELINE_RESULT not in span.attributes and ERROR_TYPE not in span.attributes:
        yield f"{span.name} has failed without an error type"
