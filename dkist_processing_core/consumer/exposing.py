"""
The health and the metrics of the consumers of a process: served over HTTP, and sent to a collector.

Not here: the server (metrics.serving), and what a consumer measures (measures).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dkist_processing_core.metrics.measurement import Distribution, Measurement, Metric, Number
from dkist_processing_core.metrics.sending import sent
from dkist_processing_core.metrics.serving import served
from dkist_processing_core.metrics.snapshot import Snapshot, Source
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.consumer.service import ConsumerService

Address = tuple[str, int]
Facts = Callable[[], dict[str, object]]
logger = logging.getLogger("dkist_processing_core.consumer")


@contextmanager
def exposed(
    services: "Sequence[ConsumerService]",
    settings: Settings,
    *,
    health: Address | None = None,
    listen: Address | None = None,
    sources: Sequence[Source] = (),
    facts: Facts | None = None,
    is_sent: bool = True,
) -> Iterator[None]:
    """
    Serve the health and the metrics of consumers during the block, and send the metrics if the settings name where to.

    Args:
        services: The consumers. Without `facts` it is one, whose facts are the answer about the health.
        settings: The settings of the process.
        health: Where the health is served, as host and port.
        listen: Where health and metrics are served, instead.
        sources: Further metrics of the process.
        facts: Returns the facts about a process of several consumers, beside those about each of them.
        is_sent: Whether metrics are sent.

    Raises:
        ConfigurationError: Nothing can be served there.
    """
    consumers = [service.consumer for service in services]
    snapshot = Snapshot(
        [
            _together([service.measure_process for service in services]),
            _together([service.measure_inbox for service in services]),
            *sources,
        ],
        settings,
        shared=[source for consumer in consumers for source in consumer.shared_metrics],
        sends_shared=lambda: all(consumer.sends_shared_metrics() for consumer in consumers),
    )

    def report() -> tuple[bool, dict[str, object]]:
        reports = [service.report() for service in services]
        found = [each for _, each in reports]
        return all(is_good for is_good, _ in reports), found[0] if facts is None else {**facts(), "consumers": found}

    with ExitStack() as stack:
        if listen is not None:
            where = stack.enter_context(served(listen, report, snapshot))
            logger.info("the metrics of the consumer are at %smetrics, its health at %s", where, where)
        elif health is not None:
            where = stack.enter_context(served(health, report))
            logger.info("the health of the consumer is at %s", where)
        if is_sent:
            stack.enter_context(sent(snapshot))
        yield


def _together(sources: Sequence[Source]) -> Source:
    """Return a source with the values of several ones, since a snapshot has each metric once."""

    def read() -> list[Measurement]:
        values: dict[Metric, list[Number | Distribution]] = {}
        for source in sources:
            for measurement in source():
                values.setdefault(measurement.metric, []).extend(measurement.values)
        return [Measurement(metric, found) for metric, found in values.items()]

    return read
