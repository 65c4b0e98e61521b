"""
A publisher for the length of one callback, and how an event of the engine begins.

Not here: what is published (_attempts, _runs).
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dkist_processing_core.airflow import _traces
from dkist_processing_core.airflow._patience import BUS, at_most
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Reporter
from dkist_processing_core.identity import Run
from dkist_processing_core.publisher import Publisher
from dkist_processing_core.trace_context import derived_trace_id, format_traceparent

# Of the time that observing an attempt may cost; task and launcher have waited for the rest of it.
_SHARE_OF_WAITING = 0.3
_LEAST_SECONDS = 0.2
# Once for all callbacks of a process: see `Publisher`.
_DISK_SECONDS = 0.4
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def publishing(*, delivers: bool, share: float = _SHARE_OF_WAITING, asks_within: float = 0.0) -> Iterator[Publisher]:
    """
    Open a publisher, and let it go in time.

    Without `delivers` it only appends to the journal: whoever comes next on this host, in the end a launcher, brings it
    to the bus. With it, what the journal holds is brought there now, as far as that can be within `share` of the time
    that observing may cost. Where the block asks the engine, for at most `asks_within` seconds, the bus gets what is
    left of them.
    """
    began = time.monotonic()
    settings, complaint = DKISTProcessingCoreConfiguration.read_leniently()
    if complaint is not None:
        logger.warning("a callback uses a default instead: %s", complaint)
    publisher = Publisher.open(settings, delivers=delivers, wait_limit=_DISK_SECONDS)
    try:
        yield publisher
    finally:
        if delivers:
            publisher.answer_for_others()
        waiting = settings.event_flush_timeout * share
        if asks_within:
            waiting = min(waiting, asks_within + _LEAST_SECONDS - (time.monotonic() - began))
        with at_most(waiting, BUS, at_least=_LEAST_SECONDS) as seconds:
            publisher.close(seconds if delivers else 0.0)


def head(ti: object, run: Run, span_id: int) -> dict[str, Any]:
    """Return the fields that every event of the engine begins with; its span is in the trace of the run."""
    engines = _traces.engines_parent(ti)
    trace_id = engines[0] if engines else derived_trace_id(run)
    return {
        "time": datetime.now(UTC),
        "reported_by": Reporter.ENGINE,
        "traceparent": format_traceparent(trace_id, span_id),
        "tracestate": _traces.tracestate(ti) or None,
    }


def head_of_run(ti: object, run: Run, dag_run: object) -> dict[str, Any]:
    """Return the same for an event of the run, whose span is the engine's own of `ti` where the engine traces."""
    engines = _traces.engines_parent(ti)
    return head(ti, run, engines[1] if engines else _traces.root_span_id(run, dag_run))
