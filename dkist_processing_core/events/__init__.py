"""
What is published: the events, their CloudEvents form, and the established failure message.

Not here: anything that sends, stores or receives.
"""

from dkist_processing_core.events._codec import CONTENT_TYPE, check_size, decode, encode, encode_to_fit, fit
from dkist_processing_core.events._failure import Failure, describe, fingerprint
from dkist_processing_core.events._failure_message import RecipeRunFailureMessage
from dkist_processing_core.events._model import (
    EVENT_CLASSES,
    ID_NAMESPACE,
    MAX_BODY_BYTES,
    MAX_ENCODED_BYTES,
    TYPE_PREFIX,
    Cause,
    Event,
    Graph,
    Reporter,
    TaskDispatched,
    TaskEnd,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
    identity_of,
)
from dkist_processing_core.trace_context import format_time

__all__ = [
    "CONTENT_TYPE",
    "EVENT_CLASSES",
    "ID_NAMESPACE",
    "MAX_BODY_BYTES",
    "MAX_ENCODED_BYTES",
    "TYPE_PREFIX",
    "Cause",
    "Event",
    "Failure",
    "Graph",
    "RecipeRunFailureMessage",
    "Reporter",
    "TaskDispatched",
    "TaskEnd",
    "TaskEvent",
    "TaskFailed",
    "TaskFinished",
    "TaskOverdue",
    "TaskProgressed",
    "TaskSkipped",
    "TaskStarted",
    "WorkflowEvent",
    "WorkflowFailed",
    "WorkflowFinished",
    "WorkflowStarted",
    "check_size",
    "decode",
    "describe",
    "encode",
    "encode_to_fit",
    "fingerprint",
    "fit",
    "format_time",
    "identity_of",
]
