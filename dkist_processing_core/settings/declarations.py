"""
The declaration of every setting: its default, its kind, its meaning, what it expects, and its bounds.

A process that runs a task reads them without pydantic (plain). Not here: their types for readers of the code, and the
wording of errors (configuration).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dkist_processing_core.settings import kinds

_MESH_EXAMPLE = '{"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5672}}'
_URL = "an http or https URL, as http://collector.example:4317"
_EXPORTER = "otlp, console, both separated by a comma, or none"
_PROTOCOL = "grpc or http/protobuf"


class Declaration(NamedTuple):
    """One setting."""

    default: Any
    kind: Callable[[str], Any]
    """Reads the text of the variable; raises a ValueError for a text that needs to be interpreted."""
    meaning: str
    expected: str
    bounds: Mapping[str, Any] = MappingProxyType({})
    """The limits of its value or its length, by their names in pydantic."""


DECLARATIONS = {
    "build_version": Declaration(
        "dev",
        kinds.text,
        "The workflow version where a workflow names none; `dev` runs tasks in the environment they were started from.",
        expected="a version",
    ),
    "mesh_config": Declaration(
        {},
        kinds.addresses,
        "Where services are reached, by name: `interservice-bus` is the RabbitMQ broker (without it, events go to the "
        "embedded journal); `otlp-traces-endpoint`, `otlp-metrics-endpoint` and `otlp-logs-endpoint` are collectors "
        "(gRPC), where no OTEL_EXPORTER_OTLP_* variable names one.",
        expected=f"a JSON object as {_MESH_EXAMPLE}, ports whole numbers from 0 to 65535",
    ),
    "isb_username": Declaration(
        "guest",
        kinds.text,
        "The user name at the broker.",
        expected="a user name",
    ),
    "isb_password": Declaration(
        "guest",
        kinds.text,
        "The password at the broker.",
        expected="a password",
    ),
    "dkist_core_trust_dotenv": Declaration(
        False,  # noqa: FBT003 - the default of a setting
        kinds.yes_or_no,
        "Whether ISB_USERNAME, ISB_PASSWORD and ISB_TLS_KEY of the environment may go to a broker that the file `.env` "
        "names or has trusted (ISB_TLS_CA, ISB_TLS_SERVER_NAME), OTEL_EXPORTER_OTLP_HEADERS and "
        "OTEL_EXPORTER_OTLP_CLIENT_KEY to a collector that it names, and any secret to the programs in a folder that "
        "it names as DKIST_CORE_ENVIRONMENTS_DIR. Counts in the environment only.",
        expected="true or false",
    ),
    "isb_vhost": Declaration(
        "/",
        kinds.text,
        "The virtual host at the broker.",
        expected="a virtual host's name",
        bounds={"min_length": 1},
    ),
    "isb_exchange": Declaration(
        "master.direct.x",
        kinds.text,
        "The direct exchange of the established failure message.",
        expected="an exchange's name of 1 to 255 characters",
        bounds={"min_length": 1, "max_length": 255},
    ),
    "isb_event_exchange": Declaration(
        "workflow.events.x",
        kinds.text,
        "The topic exchange that events are published to.",
        expected="an exchange's name of 1 to 255 characters",
        bounds={"min_length": 1, "max_length": 255},
    ),
    "isb_queue_type": Declaration(
        "classic",
        kinds.one_of("classic", "quorum"),
        "The type of a consumer's queue.",
        expected="classic or quorum",
    ),
    "isb_archive_max_bytes": Declaration(
        5_000_000_000,
        kinds.whole,
        "How large the archive stream may grow, in bytes, before its oldest segments go.",
        expected="a whole number of bytes from 100000000, the size of two segments",
        bounds={"ge": 100_000_000},
    ),
    "isb_tls_ca": Declaration(
        None,
        kinds.path,
        "The file of the authorities to trust; it turns TLS on.",
        expected="the path of a PEM file",
    ),
    "isb_tls_cert": Declaration(
        None,
        kinds.path,
        "The client certificate to show; it turns TLS on.",
        expected="the path of a PEM file",
    ),
    "isb_tls_key": Declaration(
        None,
        kinds.path,
        "The private key of the client certificate; it turns TLS on.",
        expected="the path of a PEM file",
    ),
    "isb_tls_server_name": Declaration(
        None,
        kinds.text,
        "The name that the broker's certificate must be for, where it is not the address; it turns TLS on.",
        expected="a host name",
    ),
    "event_flush_timeout": Declaration(
        2.0,
        kinds.number,
        "The most that publishing and telemetry together may add to an attempt's end, in seconds; what is not "
        "delivered by then stays in the journal.",
        expected="a number of seconds from 0",
        bounds={"ge": 0, "allow_inf_nan": False},
    ),
    "dkist_core_state_dir": Declaration(
        None,
        kinds.path,
        "The folder of the journals. Default: dkist-processing-core in the user's XDG state folder.",
        expected="the path of a folder",
    ),
    "retry_config": Declaration(
        None,
        kinds.never,
        "How clients of this configuration retry their own connections.",
        expected='a JSON object as {"retry_delay": 1, "retry_backoff": 2, "retry_jitter": [1, 10], '
        '"retry_max_delay": 300, "retry_tries": -1}',
    ),
    "pip_timeout": Declaration(
        15,
        kinds.whole,
        "The timeout of an installation's requests, in seconds.",
        expected="a whole number from 0",
        bounds={"ge": 0},
    ),
    "pip_retries": Declaration(
        5,
        kinds.whole,
        "How often an installation's request is tried again.",
        expected="a whole number from 0",
        bounds={"ge": 0},
    ),
    "dkist_core_environments_dir": Declaration(
        None,
        kinds.path,
        "The folder of the environments that tasks run in. Default: dkist-processing-core/environments in the user's "
        "XDG cache folder.",
        expected="the path of a folder that not everybody may write to",
    ),
    "dkist_core_environments_max_days": Declaration(
        30.0,
        kinds.number,
        "After how many days without use an environment may be removed.",
        expected="a number of days from 0",
        bounds={"ge": 0, "allow_inf_nan": False},
    ),
    "dkist_core_environments_max_bytes": Declaration(
        20_000_000_000,
        kinds.whole,
        "How large all environments together may grow, in bytes, before those not used for longest go.",
        expected="a whole number of bytes from 0",
        bounds={"ge": 0},
    ),
    "is_notebook_execution_environment": Declaration(
        False,  # noqa: FBT003 - the default of a setting
        kinds.yes_or_no,
        "Whether tasks run in a notebook.",
        expected="true or false",
    ),
    "otel_sdk_disabled": Declaration(
        False,  # noqa: FBT003 - the default of a setting
        kinds.is_true,
        "Turns all telemetry off.",
        expected="true, in any case; everything else means false",
    ),
    "otel_service_name": Declaration(
        "dkist-processing-core",
        kinds.text,
        "The service name that telemetry carries.",
        expected="a name",
    ),
    "otel_resource_attributes": Declaration(
        None,
        kinds.text,
        "Attributes that all telemetry carries.",
        expected="key=value pairs, separated by commas",
    ),
    "otel_traces_exporter": Declaration(
        None,
        kinds.exporters,
        "Where spans go. Default: otlp where an endpoint is known, else none.",
        expected=_EXPORTER,
    ),
    "otel_metrics_exporter": Declaration(
        None,
        kinds.exporters,
        "Where metrics go. Default: otlp where an endpoint is known, else none.",
        expected=_EXPORTER,
    ),
    "otel_logs_exporter": Declaration(
        None,
        kinds.exporters,
        "Where log records go. Default: otlp where an endpoint is known, else none.",
        expected=_EXPORTER,
    ),
    "otel_exporter_otlp_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The collector of all signals.",
        expected=_URL,
    ),
    "otel_exporter_otlp_traces_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The collector of spans.",
        expected=_URL,
    ),
    "otel_exporter_otlp_metrics_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The collector of metrics.",
        expected=_URL,
    ),
    "otel_exporter_otlp_logs_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The collector of log records.",
        expected=_URL,
    ),
    "otel_exporter_otlp_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "How all signals travel. Default: grpc.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_traces_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "How spans travel.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_metrics_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "How metrics travel.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_logs_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "How log records travel.",
        expected=_PROTOCOL,
    ),
}
"""All settings by their names, in the order of the documents."""
