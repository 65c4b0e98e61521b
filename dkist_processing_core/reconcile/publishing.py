"""
The end of a run, published in Airflow's place: the same events as by the callback at the end of a run.

Not here: the events (airflow.run_end), and when they are published (reconciler).
"""

from collections.abc import Sequence
from functools import partial

from dkist_processing_core.airflow.run_end import (
    RunEnd,
    UnreportedFailures,
    report_end,
    report_failures,
    without_known_successes,
)
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import Event, RecipeRunFailureMessage, Reporter
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.trace_context import (
    derived_run_span_id,
    derived_trace_id,
    format_time,
    format_traceparent,
)
from dkist_processing_core.reconcile.judgement import clears_in, start_of
from dkist_processing_core.tracing import Carrier


def publish_end(
    publisher: Publisher, run: Run, end: RunEnd, failures: UnreportedFailures, reports: Sequence[Event]
) -> bool:
    """
    Publish the failures of tasks that no reporter has reported or announced, and then the end of their run.

    The end comes last: if this process is killed before, the next round publishes the rest.

    Args:
        publisher: Publishes the events.
        run: The run.
        end: Its end.
        failures: The missing reports and announcements of failed tasks.
        reports: The reports on the run, by which its trace and its clears are known.

    Returns:
        Whether the publisher accepted the end.
    """
    reporter = EventReporter(Reporter.ENGINE, run, publisher=publisher, carrier=_carrier(run, end, reports))
    clears = clears_in(reports)
    failures = without_known_successes(failures, run, clears, publisher.remembers)
    report_failures(reporter, failures, end.over, partial(RecipeRunFailureMessage.about, run, clears=clears))
    return report_end(reporter, end)


def _carrier(run: Run, end: RunEnd, reports: Sequence[Event]) -> Carrier:
    """Return the span of the run: as its start has reported it, which may be in Airflow's own trace, or as derived."""
    start = start_of(reports, end.began)
    if start is not None and start.traceparent is not None:
        return Carrier(start.traceparent, start.tracestate)
    span_id = derived_run_span_id(run, "" if end.began is None else format_time(end.began))
    return Carrier(format_traceparent(derived_trace_id(run), span_id), None)
