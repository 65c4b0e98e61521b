"""
The health and the metrics of the consumers of a process: served over HTTP, and sent to a collector.

Not here: the server (metrics.serving), and what a consumer measures (measures).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dkist_processing_core.metrics.measurement import Distribution, Measurement, Metric, Number
from dkist_processing_core.metrics.sending import sent
from dkist_processing_core.metrics.serving import HealthReport, address_of, served
from dkist_processing_core.metrics.snapshot import Snapshot, Source, check_extra
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.consumer.service import ConsumerService

Facts = Callable[[], dict[str, object]]
logger = logging.getLogger("dkist_processing_core.consumer")


class Serving(NamedTuple):
    """What serves the health of the consumers of a process, or their health and metrics."""

    open: Callable[[HealthReport, Snapshot], AbstractContextManager[object]]
    """Serves during a block."""
    has_metrics: bool


def serving_at(*, health: str | None, listen: str | None) -> Serving | None:
    """
    Return a server at an address; None without one.

    Args:
        health: Where the health is served: a port, or host and port.
        listen: Where health and metrics are served, instead.

    Raises:
        ValueError: The text is no address.
        ExtraMissingError: Metrics cannot be served without a library.
    """
    if listen is not None:
        address = address_of(listen, "listen")
        check_extra()
        return Serving(partial(_served, address, has_metrics=True), has_metrics=True)
    if health is not None:
        return Serving(partial(_served, address_of(health), has_metrics=False), has_metrics=False)
    return None


@contextmanager
def _served(address: tuple[str, int], report: HealthReport, snapshot: Snapshot, *, has_metrics: bool) -> Iterator[None]:
    with served(address, report, snapshot if has_metrics else None) as where:
        if has_metrics:
            logger.info("the metrics of the consumer are at %smetrics, its health at %s", where, where)
        else:
            logger.info("the health of the consumer is at %s", where)
        yield


@contextmanager
def exposed(
    services: "Sequence[ConsumerService]",
    settings: Settings,
    *,
    serving: Serving | None,
    sources: Sequence[Source] = (),
    facts: Facts | None = None,
    is_sent: bool = True,
) -> Iterator[None]:
    """
    Serve the health and the metrics of consumers during the block, and send the metrics if the settings name where to.

    Args:
        services: The consumers. Without `facts` it is one, whose facts are the answer about the health.
        settings: The settings of the process.
        serving: What serves them; None for nothing.
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
        if serving is not None:
            stack.enter_context(serving.open(report, snapshot))
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
