"""
The metrics and the health of a relay, served over HTTP and sent to a collector.

Not here: the relay (_relay), and what waits on its host (_measures).
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from dkist_processing_core.delivery.send_measures import SendMeasures
from dkist_processing_core.metrics.sending import is_sent, sent
from dkist_processing_core.metrics.serving import served
from dkist_processing_core.metrics.snapshot import Snapshot, Source, check_extra
from dkist_processing_core.outbox._measures import measurements_of
from dkist_processing_core.settings.interface import Settings

logger = logging.getLogger("dkist_processing_core.outbox")


@contextmanager
def relay_metrics(
    settings: Settings, listen: tuple[str, int] | None, problems: Callable[[], Mapping[str, str | None]]
) -> Iterator[SendMeasures | None]:
    """
    Serve and send the metrics of a relay while the block runs, and yield the measures that it fills.

    Args:
        settings: The settings of the relay.
        listen: Where metrics and health are served, as host and port; None serves nothing.
        problems: Returns why nothing can be delivered now, or None, for the broker and for each signal of telemetry, as
            far as the relay delivers to them.

    Yields:
        None if nothing is served or sent, or if the settings name no broker.
    """
    if listen is None and not is_sent(settings):
        yield None
        return
    measures = SendMeasures(settings) if settings.names_broker else None
    sources: list[Source] = [
        functools.partial(measurements_of, settings),
        *([] if measures is None else [measures.measurements]),
    ]
    snapshot = Snapshot(sources, settings)

    def health() -> tuple[bool, dict[str, object]]:
        found = problems()
        facts: dict[str, object] = {what: "ok" if problem is None else "unavailable" for what, problem in found.items()}
        return all(problem is None for problem in found.values()), facts

    with ExitStack() as stack:
        if listen is not None:
            check_extra()
            where = stack.enter_context(served(listen, health, snapshot))
            logger.info("the metrics of the relay are at %smetrics, its health at %s", where, where)
        stack.enter_context(sent(snapshot))
        yield measures
