"""
The kinds of spans, from the run to the effects of its events, for the documentation.

Not here: their names and attributes (semconv), and the spans themselves (_telemetry).
"""

from typing import NamedTuple

from dkist_processing_core.semconv import (
    ENVIRONMENT,
    ENVIRONMENT_STATE,
    HANDLER,
    IDENTITY,
    MESSAGING_CONSUMER_GROUP_NAME,
    MESSAGING_CONVERSATION_ID,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_MESSAGE_ID,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
    NOMAD,
    PHASE_SPANS,
    PIPELINE_NAME,
    PIPELINE_RESULT,
    PIPELINE_RUN_ID,
    PIPELINE_TASK_NAME,
    PIPELINE_TASK_RUN_ID,
    PIPELINE_TASK_RUN_RESULT,
    PIPELINE_TASK_RUN_URL,
    PREPARATION_SPAN,
    PROCESS_SPAN,
    PUBLISH_SPAN,
    ROUTING_KEY,
    ROUTING_KEY_OLDER,
    TRY,
)

_MESSAGE = (
    MESSAGING_SYSTEM,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_MESSAGE_ID,
    MESSAGING_CONVERSATION_ID,
    ROUTING_KEY,
    ROUTING_KEY_OLDER,
)


class Span(NamedTuple):
    """One kind of span, for the documentation."""

    subject: str
    name: str
    kind: str
    parent: str
    writer: str
    """The process that exports it."""
    attributes: tuple[str, ...]
    """Those that it may have; the ones of a failed span are not listed."""


SPANS = (
    Span(
        "run",
        "`{workflow}`",
        "SERVER",
        "none; or the caller's `TRACEPARENT`",
        "`Workflow.run`, or Airflow's callback at the end of the run",
        (*IDENTITY[:3], PIPELINE_NAME, PIPELINE_RUN_ID, PIPELINE_RESULT),
    ),
    Span(
        "attempt",
        "`{task}`",
        "INTERNAL",
        "the run; or Airflow's span of the task, if Airflow traces",
        "the launcher of the attempt, also if it was killed; or the task, if it was called by hand",
        (
            *IDENTITY,
            PIPELINE_NAME,
            PIPELINE_RUN_ID,
            PIPELINE_TASK_NAME,
            PIPELINE_TASK_RUN_ID,
            PIPELINE_TASK_RUN_RESULT,
            PIPELINE_TASK_RUN_URL,
            *NOMAD,
        ),
    ),
    Span(
        "environment",
        f"`{PREPARATION_SPAN}`",
        "INTERNAL",
        "the attempt",
        "the launcher",
        (*IDENTITY, *NOMAD, ENVIRONMENT, ENVIRONMENT_STATE),
    ),
    Span(
        "phase",
        ", ".join(f"`{name}`" for name in PHASE_SPANS.values()),
        "INTERNAL",
        "the attempt",
        "the task",
        (*IDENTITY, *NOMAD),
    ),
    Span(
        "author's",
        '`self.telemetry_span("…")`',
        "INTERNAL",
        "the phase, or your own span",
        "the task",
        (*IDENTITY, *NOMAD),
    ),
    Span(
        "publication",
        f"`{PUBLISH_SPAN} {{exchange}}`",
        "PRODUCER",
        "the span in which the event is published",
        "the process that publishes the event",
        (*IDENTITY, *NOMAD, *_MESSAGE),
    ),
    Span(
        "handling",
        f"`{PROCESS_SPAN} {{exchange}}:{{consumer}}`",
        "CONSUMER",
        "none: it begins a trace, with a link to the span that the event belongs to",
        "the consumer",
        (*IDENTITY, *_MESSAGE, MESSAGING_CONSUMER_GROUP_NAME, HANDLER, TRY),
    ),
)
"""All spans, from the run to the effects of its events."""
