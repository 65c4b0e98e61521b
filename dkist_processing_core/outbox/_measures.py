"""
The metrics of what the processes of this host leave to a relay: messages for its broker, and telemetry.

A host may have several relays, for several brokers. A backend adds up the values of all of them, so each relay reports
what itself delivers. The age of the oldest message is no such value: it is reported for every outbox, so an outbox that
no relay delivers is seen too. Not here: the measures of sending (delivery.send_measures), and serving the metrics
(metrics.serving).
"""

from collections import defaultdict
from collections.abc import Iterator

from dkist_processing_core import semconv
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Measurement, Metric, Number
from dkist_processing_core.otlp import exports_telemetry
from dkist_processing_core.outbox._state import OutboxState, outboxes
from dkist_processing_core.outbox._telemetry import telemetry_journals
from dkist_processing_core.settings.interface import Settings


def measurements_of(settings: Settings) -> list[Measurement]:
    """
    Return what waits for a relay with these settings, the books of it, and the age of each outbox of this host.

    A journal that cannot be read is left out.

    Raises:
        JournalError: The folder cannot be read.
    """
    values: dict[Metric, list[Number]] = defaultdict(list)
    for state in outboxes(settings):
        if not state.is_embedded:
            attributes = _attributes_of(state)
            if state.oldest is not None:
                values[declarations.OUTBOX_OLDEST].append(Number(state.oldest, attributes))
            for metric, value in _values_of(state) if state.is_current else ():
                values[metric].append(Number(float(value), attributes))
    delivered = [each for each in telemetry_journals(settings) if each.is_current and exports_telemetry(settings)]
    for journal in delivered:
        for signal, books in (journal.books or {}).items():
            attributes = {semconv.OUTBOX: journal.path.stem.partition("-")[2], semconv.SIGNAL: signal}
            for metric, count in (
                (declarations.TELEMETRY_PENDING, books.pending),
                (declarations.TELEMETRY_DELIVERED, books.delivered),
                (declarations.TELEMETRY_REFUSED, books.refused),
                (declarations.TELEMETRY_DROPPED, books.dropped),
            ):
                values[metric].append(Number(float(count), attributes))
    return [Measurement(metric, found) for metric, found in values.items()]


def _values_of(state: OutboxState) -> Iterator[tuple[Metric, float]]:
    books = state.books
    if books is not None:
        yield declarations.OUTBOX_PUBLISHED, books.published
        yield declarations.OUTBOX_CONFIRMED, books.confirmed
        yield declarations.OUTBOX_SET_ASIDE, books.set_aside
    if books is not None or state.spares:
        yield declarations.OUTBOX_PENDING, state.waiting


def _attributes_of(state: OutboxState) -> dict[str, str]:
    attributes = {semconv.OUTBOX: state.path.stem.partition("-")[2]}
    if state.destination is not None:
        broker = state.destination
        attributes |= {semconv.SERVER_ADDRESS: broker.host, semconv.SERVER_PORT: str(broker.port)}
    return attributes
