"""
The names of all attributes and spans, in one table with their sources.

`docs/reference/signals.md` is generated from it. Not here: the users of the names, and the table of spans
(tracing.spans).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.text import encodable

if TYPE_CHECKING:
    from dkist_processing_core.settings.interface import Settings

SCOPE = "dkist_processing_core"
"""The instrumentation scope of all exported telemetry."""

ESTABLISHED = "established by 7.x"
OWN = "this library"
_CICD = "CICD, 1.44 (release candidate)"
_ERROR = "Error, 1.44 (stable)"
_SERVER = "Server, 1.44 (stable)"
_EXCEPTIONS = "Exceptions, 1.44 (stable)"
_HTTP = "HTTP, 1.44 (stable)"
_MESSAGING = "Messaging, 1.44 (development)"
# The registry renamed it after 1.44: https://opentelemetry.io/docs/specs/semconv/registry/attributes/rabbitmq/.
_RABBITMQ = "RabbitMQ, after 1.44 (development)"


class Attribute(NamedTuple):
    """One attribute, with the convention that defines its name."""

    name: str
    source: str
    """A part of OpenTelemetry's semantic conventions with version and stability, or another origin."""
    meaning: str


ATTRIBUTES: dict[str, Attribute] = {}
"""All attributes by their names, in the order of their declaration."""


def _attribute(name: str, source: str, meaning: str) -> str:
    ATTRIBUTES[name] = Attribute(name, source, meaning)
    return name


RECIPE_RUN_ID = _attribute("recipe.run.id", ESTABLISHED, "The recipe run that the run processes.")
WORKFLOW_NAME = _attribute("workflow.name", ESTABLISHED, "The name of the workflow.")
WORKFLOW_VERSION = _attribute("workflow.version", ESTABLISHED, "The version of the workflow.")
TASK_NAME = _attribute("task.name", ESTABLISHED, "The name of the task.")
NOMAD_ALLOCATION_ID = _attribute("nomad.allocation.id", ESTABLISHED, "The Nomad allocation of the process.")
NOMAD_ALLOCATION_NAME = _attribute("nomad.allocation.name", ESTABLISHED, "The name of that allocation.")
NOMAD_ALLOCATION_GROUP = _attribute("nomad.allocation.group", ESTABLISHED, "The task group of that allocation.")

PIPELINE_NAME = _attribute("cicd.pipeline.name", _CICD, "The name of the workflow.")
PIPELINE_RUN_ID = _attribute("cicd.pipeline.run.id", _CICD, "The run's id, as the engine names it.")
PIPELINE_RUN_STATE = _attribute("cicd.pipeline.run.state", _CICD, "`executing`.")
PIPELINE_RESULT = _attribute("cicd.pipeline.result", _CICD, "`success` or `failure` of the run.")
PIPELINE_TASK_NAME = _attribute("cicd.pipeline.task.name", _CICD, "The name of the task.")
PIPELINE_TASK_RUN_ID = _attribute("cicd.pipeline.task.run.id", _CICD, "The attempt: `{run id}/{task}/{attempt}`.")
PIPELINE_TASK_RUN_RESULT = _attribute(
    "cicd.pipeline.task.run.result",
    _CICD,
    "The result of the attempt: `success`, `failure`, `error`, `timeout` or `cancellation`.",
)
PIPELINE_TASK_RUN_URL = _attribute("cicd.pipeline.task.run.url.full", _CICD, "The address of the attempt's log.")

ERROR_TYPE = _attribute(
    "error.type",
    _ERROR,
    "The class of the exception, the cause of the failure, or the status of an answer that reports an error of the "
    "server; only where something failed.",
)
EXCEPTION = "exception"
"""The name of the event of a span."""
EXCEPTION_TYPE = _attribute("exception.type", _EXCEPTIONS, "The class of the exception.")
EXCEPTION_MESSAGE = _attribute("exception.message", _EXCEPTIONS, "Its text, redacted.")
EXCEPTION_STACKTRACE = _attribute("exception.stacktrace", _EXCEPTIONS, "Its stack, redacted.")

MESSAGING_SYSTEM = _attribute("messaging.system", _MESSAGING, "`rabbitmq`, or `embedded` for the embedded journal.")
MESSAGING_OPERATION_NAME = _attribute("messaging.operation.name", _MESSAGING, "`publish`, `receive` or `process`.")
MESSAGING_OPERATION_TYPE = _attribute("messaging.operation.type", _MESSAGING, "`send` or `process`.")
MESSAGING_DESTINATION_NAME = _attribute(
    "messaging.destination.name",
    _MESSAGING,
    "Where an event is published `{exchange}:{routing key}`, where it is handled `{exchange}:{routing key}:{queue}`.",
)
MESSAGING_DESTINATION_TEMPLATE = _attribute(
    "messaging.destination.template",
    _MESSAGING,
    "The destination without the routing key: `{exchange}` or `{exchange}:{queue}`; the end of the span's name.",
)
MESSAGING_CONSUMER_GROUP_NAME = _attribute(
    "messaging.consumer.group.name",
    _MESSAGING,
    "The name of the consumer: its processes share the events, and each other consumer gets them as well.",
)
MESSAGING_MESSAGE_ID = _attribute("messaging.message.id", _MESSAGING, "The event's id.")
MESSAGING_CONVERSATION_ID = _attribute("messaging.message.conversation_id", _MESSAGING, "The run's id.")
ROUTING_KEY = _attribute("rabbitmq.destination.routing_key", _RABBITMQ, "The event's routing key.")
ROUTING_KEY_OLDER = _attribute(
    "messaging.rabbitmq.destination.routing_key",
    _MESSAGING,
    "The older name of `rabbitmq.destination.routing_key`; only if `OTEL_SEMCONV_STABILITY_OPT_IN` contains "
    "`messaging/dup`.",
)

ENVIRONMENT = _attribute("dkist.environment", OWN, "The requirement that the task's environment holds.")
ENVIRONMENT_STATE = _attribute("dkist.environment.state", OWN, "`built`, `reused` or `failed`.")
HANDLER = _attribute("code.function.name", "Code, 1.44 (stable)", "The function that handles the event.")
TRY = _attribute("dkist.consumer.try", OWN, "The number of this try of the event's handlers, from 1.")
ATTEMPT_STATE = _attribute("dkist.core.attempt.state", OWN, "`dispatched` or `running`.")
INBOX_STATE = _attribute("dkist.core.inbox.state", OWN, "`waiting`, `claimed`, `parked`, `dead` or `archived`.")
CONSUMER_PEER = _attribute("dkist.core.consumer.peer", OWN, "`bus` or `inbox`.")
OUTBOX = _attribute("dkist.core.outbox", OWN, "The eight hexadecimal digits in the name of the file.")
ALARM_KIND = _attribute(
    "dkist.core.alarm.kind",
    OWN,
    "What is overdue: `silence` or `duration` of an attempt, `idle` for a run that neither runs an attempt nor ends.",
)
LISTENING_STATE = _attribute("dkist.core.watch.listening.state", OWN, "`complete` or `incomplete`.")
SIGNAL = _attribute("dkist.core.signal", OWN, "`traces`, `metrics` or `logs`.")
SERVER_ADDRESS = _attribute("server.address", _SERVER, "The host of the broker.")
SERVER_PORT = _attribute("server.port", _SERVER, "The port of the broker.")
HTTP_REQUEST_METHOD = _attribute(
    "http.request.method", _HTTP, "The method, or `_OTHER` for one that HTTP does not name."
)
HTTP_ROUTE = _attribute(
    "http.route", _HTTP, "The path of the page or of the endpoint, without its query; only if there is one."
)
HTTP_STATUS = _attribute("http.response.status_code", _HTTP, "The status of the answer.")
URL_SCHEME = _attribute("url.scheme", "URL, 1.44 (stable)", "`http`: the dashboard has no TLS.")
METRIC_OVERFLOW = "otel.metric.overflow"
"""The only attribute of all sets of attributes above a limit together, by the specification of OpenTelemetry's SDK."""

STABILITY_OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""The variable that adds older names: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/."""
_BOTH_NAMES = "messaging/dup"

METRIC_PREFIX = "dkist.processing."
EXECUTED = f"{METRIC_PREFIX}tasks.executed"
EXECUTED_UNIT, EXECUTED_MEANING = "1", "The number of tasks executed in the processing stack."
"""The counter of executed tasks, as dashboards of 7.x know it."""

SUCCESS, FAILURE, ERROR, TIMEOUT, CANCELLATION, SKIP = (
    "success",
    "failure",
    "error",
    "timeout",
    "cancellation",
    "skip",
)
"""The possible results of a run of a pipeline or task."""
EXECUTING = "executing"
"""The state of a run of a pipeline that has begun and not ended."""

_RESULTS = {"exception": FAILURE, "exit_code": FAILURE, "terminated": CANCELLATION, "timeout": TIMEOUT}


def result_of(cause: str) -> str:
    """Return the result of an attempt that failed by a cause; `error` if the task itself is not the reason."""
    return _RESULTS.get(cause, ERROR)


IDENTITY = (RECIPE_RUN_ID, WORKFLOW_NAME, WORKFLOW_VERSION, TASK_NAME)
"""The attributes that are copied to every span below the span of a run or an attempt."""
NOMAD = (NOMAD_ALLOCATION_ID, NOMAD_ALLOCATION_NAME, NOMAD_ALLOCATION_GROUP)
"""The attributes of the Nomad allocation, which are copied with them."""

PREPARATION_SPAN = "Prepare Environment"
PHASE_SPANS = {"pre_run": "Pre Run", "run": "Run", "post_run": "Post Run"}
PUBLISH_SPAN, PROCESS_SPAN = "publish", "process"


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


def task_attributes(run: Run, task_name: str | None, attempt: int | None) -> dict[str, Any]:
    """Return the attributes that identify a run, and its task and attempt, of those that are known."""
    attributes = run_attributes(run)
    if task_name is not None:
        attributes |= {TASK_NAME: task_name, PIPELINE_TASK_NAME: task_name}
        if attempt is not None:
            attributes[PIPELINE_TASK_RUN_ID] = f"{run.run_id}/{task_name}/{attempt}"
    return attributes


def attempt_attributes(attempt: Attempt) -> dict[str, Any]:
    """Return the attributes of an attempt's span."""
    attributes = task_attributes(attempt.run, attempt.task_name, attempt.attempt)
    return attributes | ({PIPELINE_TASK_RUN_URL: attempt.log_url} if attempt.log_url else {})


def environment_attributes(requirement: str, state: str) -> dict[str, Any]:
    """Return the attributes of the span of preparing an environment; `state` is `built`, `reused` or `failed`."""
    return {ENVIRONMENT: requirement, ENVIRONMENT_STATE: state}


def nomad_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of the process's Nomad allocation, from Nomad's variables, spelled as in release 7.x."""
    return {
        NOMAD_ALLOCATION_ID: environ.get("NOMAD_ALLOC_ID", "unknown-allocation-id"),
        NOMAD_ALLOCATION_NAME: environ.get("NOMAD_ALLOC_NAME", "unknown-allocation-name"),
        NOMAD_ALLOCATION_GROUP: environ.get("NOMAD_GROUP_NAME", "unknown-allocation-group"),
    }


def resource_attributes(settings: "Settings") -> dict[str, str]:
    """Return the attributes of a process, by the standard variables and as 7.x had them, of those that are known."""
    pairs = [pair.partition("=") for pair in (settings.otel_resource_attributes or "").split(",")]
    named = {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
    allocation = settings.core_origin.environ.get("NOMAD_ALLOC_ID")
    own = {"service.version": settings.dkist_service_version, "service.instance.id": allocation}
    known = {"service.name": settings.otel_service_name, "service.name.alias": "dkist-processing"}
    known |= {name: value for name, value in own.items() if value} | named
    if "otel_service_name" in settings.model_fields_set:
        known["service.name"] = settings.otel_service_name
    # The bytes of a variable may be no UTF-8.
    return {encodable(name): encodable(value) for name, value in known.items()}


def publish_attributes(
    exchange: str,
    routing_key: str,
    message_id: str,
    conversation_id: str | None,
    *,
    is_remote: bool,
    keeps_older_names: bool = False,
) -> dict[str, Any]:
    """Return the attributes of the span of one publish; a bus that is not remote is the embedded journal."""
    attributes = {
        MESSAGING_OPERATION_NAME: PUBLISH_SPAN,
        MESSAGING_OPERATION_TYPE: "send",
        MESSAGING_DESTINATION_NAME: f"{exchange}:{routing_key}",
        MESSAGING_DESTINATION_TEMPLATE: exchange,
    } | _message_attributes(routing_key, message_id, is_remote=is_remote, keeps_older_names=keeps_older_names)
    return attributes | ({MESSAGING_CONVERSATION_ID: conversation_id} if conversation_id else {})


def process_attributes(
    exchange: str,
    routing_key: str,
    message_id: str,
    conversation_id: str,
    *,
    consumer: str,
    is_remote: bool,
    keeps_older_names: bool,
) -> dict[str, Any]:
    """Return the attributes of the span of handling one event; the queue has the name of its consumer."""
    return {
        MESSAGING_OPERATION_NAME: PROCESS_SPAN,
        MESSAGING_OPERATION_TYPE: "process",
        MESSAGING_DESTINATION_NAME: f"{exchange}:{routing_key}:{consumer}",
        MESSAGING_DESTINATION_TEMPLATE: f"{exchange}:{consumer}",
        MESSAGING_CONSUMER_GROUP_NAME: consumer,
        MESSAGING_CONVERSATION_ID: conversation_id,
    } | _message_attributes(routing_key, message_id, is_remote=is_remote, keeps_older_names=keeps_older_names)


def _message_attributes(
    routing_key: str, message_id: str, *, is_remote: bool, keeps_older_names: bool
) -> dict[str, Any]:
    return {
        MESSAGING_SYSTEM: "rabbitmq" if is_remote else "embedded",
        ROUTING_KEY: routing_key,
        MESSAGING_MESSAGE_ID: message_id,
    } | ({ROUTING_KEY_OLDER: routing_key} if keeps_older_names else {})


def keeps_older_names(opted_in: str | None) -> bool:
    """
    Return True if spans of messages have older names as well, by the value of `OTEL_SEMCONV_STABILITY_OPT_IN`.

    >>> keeps_older_names("http,messaging/dup"), keeps_older_names("messaging"), keeps_older_names(None)
    (True, False, False)
    """
    return _BOTH_NAMES in [each.strip() for each in (opted_in or "").split(",")]
