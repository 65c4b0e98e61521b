"""
The span of one published message.

Not here: the trace that it belongs to (tracing).
"""

import contextlib

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import Message


def trace_publish(
    tracer: trace.Tracer, event: Event, message: Message, *, is_remote: bool, keeps_older_names: bool
) -> None:
    """Record the span of a message, which is about to be published; an error of the tracer is ignored."""
    attributes = semconv.publish_attributes(
        message.exchange,
        message.routing_key,
        message.properties.message_id,
        message.properties.correlation_id,
        is_remote=is_remote,
        keeps_older_names=keeps_older_names,
    ) | semconv.identity_attributes(event.run, getattr(event, "task_name", None))
    # A host application's provider may raise anything; the event is more important than its span.
    with (
        contextlib.suppress(Exception),
        tracer.start_as_current_span(
            f"{semconv.PUBLISH_SPAN} {message.exchange}", kind=trace.SpanKind.PRODUCER, attributes=attributes
        ),
    ):
        pass
