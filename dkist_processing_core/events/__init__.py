"""
The published data: the events, their CloudEvents form, and the failure message of release 7.x.

Not here: sending, storing and receiving.
"""

from dkist_processing_core.events._failure import Failure, describe, family_by, family_of, fingerprint
from dkist_processing_core.events._failure_message import RecipeRunFailureMessage
from dkist_processing_core.events._identity import identity_of
from dkist_processing_core.events._kinds import Cause, Reporter
from dkist_processing_core.events._resources import Point, Profile, Resources
from dkist_processing_core.events.codec import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    attribute_headers,
    check_size,
    data_of,
    decode,
    encode,
    encode_to_fit,
    fit,
)
from dkist_processing_core.events.event import ID_NAMESPACE, MAX_ENCODED_BYTES, TYPE_PREFIX, Event, Graph
from dkist_processing_core.events.facts import (
    EVENT_CLASSES,
    TaskDispatched,
    TaskEnd,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    TaskStarted,
    WorkflowEnd,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.identity.trace_context import format_time

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
    "Point",
    "Profile",
    "RecipeRunFailureMessage",
    "Reporter",
    "Resources",
    "TaskDispatched",
    "TaskEnd",
    "TaskEvent",
    "TaskFailed",
    "TaskFinished",
    "TaskOverdue",
    "TaskProgressed",
    "TaskSampled",
    "TaskSkipped",
    "TaskStarted",
    "WorkflowEnd",
    "WorkflowEvent",
    "WorkflowFailed",
    "WorkflowFinished",
    "WorkflowOverdue",
    "WorkflowStarted",
    "attribute_headers",
    "check_size",
    "data_of",
    "decode",
    "describe",
    "encode",
    "encode_to_fit",
    "family_by",
    "family_of",
    "fingerprint",
    "fit",
    "format_time",
    "identity_of",
]
