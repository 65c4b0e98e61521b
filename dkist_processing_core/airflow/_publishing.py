"""
A publisher for the duration of one callback, and Airflow's reporters.

Not here: the reports (_attempts, _runs).
"""

import contextlib
import logging
import time
from collections.abc import Iterator

from dkist_processing_core import budget
from dkist_processing_core.airflow import _traces
from dkist_processing_core.airflow._waiting_time import at_most
from dkist_processing_core.budget import Allowance
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.events import Reporter
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import derived_attempt_span_id, derived_trace_id, format_traceparent
from dkist_processing_core.settings.reading import read_leniently
from dkist_processing_core.tracing import Carrier

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def publishing(
    *, delivers: bool, heeds_mark: bool = True, allowance: Allowance = budget.CALLBACKS, asks_within: float = 0.0
) -> Iterator[Publisher]:
    """
    Open a publisher for a block, and close it within the time limit.

    Without `delivers`, the publisher only appends to the journal: the next process on this host, in the end a launcher,
    delivers the journal to the bus. With `delivers`, it delivers the journal now, within the allowance; without
    `heeds_mark`, although another process could not connect a moment ago. If the block queries Airflow, for at most
    `asks_within` seconds, the bus gets the rest of that time.
    """
    began = time.monotonic()
    settings, complaint = read_leniently()
    if complaint is not None:
        logger.warning("a callback uses a default instead: %s", complaint)
    publisher = Publisher.open(settings, delivers=delivers, heeds_mark=heeds_mark, wait_limit=allowance.journal)
    try:
        yield publisher
    finally:
        if delivers:
            publisher.include_backlog()
        waiting = settings.event_flush_timeout * allowance.bus
        if asks_within:
            waiting = min(waiting, asks_within + budget.LEAST_SECONDS - (time.monotonic() - began))
        with at_most(waiting, budget.BUS, at_least=budget.LEAST_SECONDS) as seconds:
            publisher.close(seconds if delivers else 0.0)


def reporter_of(ti: object, attempt: Attempt, publisher: Publisher | None = None) -> EventReporter:
    """Return Airflow's reporter of an attempt; the attempt's span is in the trace of its run."""
    return _reporter(ti, attempt, attempt.run, derived_attempt_span_id(attempt), publisher)


def reporter_of_run(ti: object, run: Run, dag_run: object, publisher: Publisher | None = None) -> EventReporter:
    """Return Airflow's reporter of a run; the run's span is Airflow's own if Airflow traces."""
    engines = _traces.engines_parent(ti)
    return _reporter(ti, run, run, engines[1] if engines else _traces.root_span_id(run, dag_run), publisher)


def _reporter(ti: object, subject: Run | Attempt, run: Run, span_id: int, publisher: Publisher | None) -> EventReporter:
    engines = _traces.engines_parent(ti)
    traceparent = format_traceparent(engines[0] if engines else derived_trace_id(run), span_id)
    carrier = Carrier(traceparent, _traces.tracestate(ti) or None)
    return EventReporter(Reporter.ENGINE, subject, publisher=publisher, carrier=carrier)
