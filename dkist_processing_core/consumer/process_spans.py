"""
The spans of a consumer's handlers: one for each call, linked to the span that its event belongs to.

The log records of a call have the identity of its run and attempt, and the ids of its span. Not here: the calls
(worker), and the export of spans and records (tracing).
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus
from dkist_processing_core.consumer.handlers import Called
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import routing_key
from dkist_processing_core.logs.fields import fields_of_task
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing import Telemetry, open_telemetry

if TYPE_CHECKING:
    from dkist_processing_core.otlp.drainer import TelemetryDrainer

_PROPAGATOR = TraceContextTextMapPropagator()


class ProcessSpans:
    """
    Opens the spans of one consumer.

    Each begins a trace: a handler may be called days after its event, and for events of many runs. This is the form of
    https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/#consumer-spans.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        consumer: str,
        bus: Bus,
        *,
        keeps_older_names: bool = False,
        flush_timeout: float = 0.0,
        drainer: "TelemetryDrainer | None" = None,
    ) -> None:
        """
        Store what all spans of the consumer share.

        Args:
            telemetry: It exports the spans.
            consumer: The name of the consumer.
            bus: The bus that the events come from.
            keeps_older_names: Give the spans the older names of attributes as well.
            flush_timeout: How long `close` waits for the collector, in seconds.
            drainer: It delivers the telemetry of this host while the consumer runs.
        """
        self._telemetry = telemetry
        self._flush_timeout = flush_timeout
        self._drainer = drainer
        self._consumer = consumer
        self._name = f"{semconv.PROCESS_SPAN} {bus.event_exchange}:{consumer}"
        self._attributes = functools.partial(
            semconv.process_attributes,
            bus.event_exchange,
            consumer=consumer,
            is_remote=bus.is_remote,
            keeps_older_names=keeps_older_names,
        )

    @classmethod
    def open(cls, settings: Settings, consumer: str, bus: Bus) -> Self:
        """Return the spans of a consumer; if the process exports none, its log records have the span of the event."""
        telemetry = open_telemetry(settings)
        if not telemetry.is_tracing and not telemetry.is_logging:
            return cls(telemetry, consumer, bus)
        # It imports the transports, which a consumer without an export does not need.
        from dkist_processing_core.otlp.drainer import start_delivery  # noqa: PLC0415

        older = semconv.keeps_older_names(settings.core_origin.named(semconv.STABILITY_OPT_IN))
        return cls(
            telemetry,
            consumer,
            bus,
            keeps_older_names=older,
            flush_timeout=settings.event_flush_timeout,
            drainer=start_delivery(settings, outlives_tasks=True),
        )

    @contextmanager
    def span(self, called: Called, event: Event, number: int) -> Iterator[None]:
        """Open the span of one call, the `number`th try of its event; an exception of the handler marks it."""
        origin = _origin_of(event)
        if not self._telemetry.is_tracing:
            with self._scope(called, event, origin):
                yield
            return
        attributes = self._attributes(routing_key(event), event.id, event.run_id)
        attributes |= semconv.identity_attributes(event.run, getattr(event, "task_name", None))
        attributes |= {semconv.HANDLER: called.full_name, semconv.TRY: number}
        with (
            self._telemetry.span(
                self._name,
                context=otel_context.Context(),
                kind=SpanKind.CONSUMER,
                links=[Link(origin)] if origin.is_valid else [],
                attributes=attributes,
            ) as span,
            self._scope(called, event, span.get_span_context()),
        ):
            yield

    def _scope(self, called: Called, event: Event, span: SpanContext) -> AbstractContextManager[None]:
        """Return the scope of the log records of one call."""
        task_name, attempt = getattr(event, "task_name", None), getattr(event, "attempt", None)
        attributes = semconv.task_attributes(event.run, task_name, attempt)
        attributes |= {semconv.MESSAGING_CONSUMER_GROUP_NAME: self._consumer, semconv.HANDLER: called.full_name}
        return self._telemetry.scope_of_context(fields_of_task(event.run, task_name, attempt), attributes, span)

    def identified_records(self) -> AbstractContextManager[None]:
        """Return a context in which the log records of calls have their identity and are exported."""
        return self._telemetry.identified_records()

    def close(self) -> None:
        """Export the spans and records that are pending, and wait for the collector for at most the given time."""
        if not self._telemetry.is_tracing and not self._telemetry.is_logging:
            return
        with self._telemetry.flushing(self._flush_timeout):
            pass
        if self._drainer is not None:
            self._drainer.finish(self._flush_timeout)


def _origin_of(event: Event) -> SpanContext:
    """Return the context of the span that an event belongs to; an invalid one if its publisher named none."""
    carrier = {"traceparent": event.traceparent or "", "tracestate": event.tracestate or ""}
    return trace.get_current_span(_PROPAGATOR.extract(carrier, otel_context.Context())).get_span_context()
