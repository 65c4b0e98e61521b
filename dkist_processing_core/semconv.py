"""
The names of all attributes, spans and metrics, in one table.

Sources: the OpenTelemetry semantic conventions 1.44 (cicd: release candidate; messaging: development; error,
exception, server: stable) and the names that the data centre's pipelines use. Not here: the users of the names.
"""

from collections.abc import Mapping
from typing import Any

from dkist_processing_core.identity import Attempt, Run

SCOPE = "dkist_processing_core"
"""The instrumentation scope of all exported telemetry."""

RECIPE_RUN_ID = "recipe.run.id"
WORKFLOW_NAME = "workflow.name"
WORKFLOW_VERSION = "workflow.version"
TASK_NAME = "task.name"

PIPELINE_NAME = "cicd.pipeline.name"
PIPELINE_RUN_ID = "cicd.pipeline.run.id"
PIPELINE_RESULT = "cicd.pipeline.result"
PIPELINE_TASK_NAME = "cicd.pipeline.task.name"
PIPELINE_TASK_RUN_ID = "cicd.pipeline.task.run.id"
PIPELINE_TASK_RUN_RESULT = "cicd.pipeline.task.run.result"
PIPELINE_TASK_RUN_URL = "cicd.pipeline.task.run.url.full"

ERROR_TYPE = "error.type"
EXCEPTION = "exception"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_DESTINATION_NAME = "messaging.destination.name"
MESSAGING_ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
MESSAGING_MESSAGE_ID = "messaging.message.id"
MESSAGING_CONVERSATION_ID = "messaging.message.conversation_id"

PREPARATION_SPAN = "Prepare Environment"
ENVIRONMENT = "dkist.environment"
ENVIRONMENT_STATE = "dkist.environment.state"
PHASE_SPANS = {"pre_run": "Pre Run", "run": "Run", "post_run": "Post Run"}
METRIC_PREFIX = "dkist.processing."

SUCCESS, FAILURE, ERROR, TIMEOUT, CANCELLATION, SKIP = (
    "success",
    "failure",
    "error",
    "timeout",
    "cancellation",
    "skip",
)
"""The possible results of a run of a pipeline or task."""


IDENTITY = (RECIPE_RUN_ID, WORKFLOW_NAME, WORKFLOW_VERSION, TASK_NAME)
"""The attributes that are copied to every span below the span of a run or an attempt."""


def identity_attributes(run: Run, task_name: str | None = None) -> dict[str, Any]:
    """Return the attributes that identify the spans of one run, or of one of its tasks."""
    attributes: dict[str, Any] = {WORKFLOW_NAME: run.workflow_name, WORKFLOW_VERSION: run.workflow_version}
    known = {RECIPE_RUN_ID: run.recipe_run_id} if run.recipe_run_id is not None else {}
    return known | attributes | ({TASK_NAME: task_name} if task_name else {})


def run_attributes(run: Run) -> dict[str, Any]:
    """Return the attributes of a run's span."""
    return identity_attributes(run) | {
        PIPELINE_NAME: run.workflow_name,
        PIPELINE_RUN_ID: run.run_id,
    }


def attempt_attributes(attempt: Attempt) -> dict[str, Any]:
    """Return the attributes of an attempt's span."""
    attributes = run_attributes(attempt.run) | {
        TASK_NAME: attempt.task_name,
        PIPELINE_TASK_NAME: attempt.task_name,
        PIPELINE_TASK_RUN_ID: f"{attempt.run.run_id}/{attempt.task_name}/{attempt.attempt}",
    }
    return attributes | ({PIPELINE_TASK_RUN_URL: attempt.log_url} if attempt.log_url else {})


def environment_attributes(requirement: str, state: str) -> dict[str, Any]:
    """Return the attributes of the span of preparing an environment; `state` is `built`, `reused` or `failed`."""
    return {ENVIRONMENT: requirement, ENVIRONMENT_STATE: state}


def nomad_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of the process's Nomad allocation, from Nomad's variables, spelled as in release 7.x."""
    return {
        "nomad.allocation.id": environ.get("NOMAD_ALLOC_ID", "unknown-allocation-id"),
        "nomad.allocation.name": environ.get("NOMAD_ALLOC_NAME", "unknown-allocation-name"),
        "nomad.allocation.group": environ.get("NOMAD_GROUP_NAME", "unknown-allocation-group"),
    }


def publish_attributes(
    exchange: str, routing_key: str, message_id: str, conversation_id: str | None, *, is_remote: bool
) -> dict[str, Any]:
    """Return the attributes of the span of one publish; a bus that is not remote is the embedded journal."""
    attributes = {
        MESSAGING_SYSTEM: "rabbitmq" if is_remote else "embedded",
        MESSAGING_OPERATION_NAME: "publish",
        MESSAGING_OPERATION_TYPE: "send",
        MESSAGING_DESTINATION_NAME: exchange,
        MESSAGING_ROUTING_KEY: routing_key,
        MESSAGING_MESSAGE_ID: message_id,
    }
    return attributes | ({MESSAGING_CONVERSATION_ID: conversation_id} if conversation_id else {})
