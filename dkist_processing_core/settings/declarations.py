"""
The declaration of every setting: its default, its kind, its meaning, the expected values, and its bounds.

A process that runs a task reads them without pydantic (plain). It is long because it has all settings. Not here: their
types for readers of the code, and the wording of errors (configuration).
"""

from dkist_processing_core.settings import addresses, kinds
from dkist_processing_core.settings.declaration import Declaration

_MESH_EXAMPLE = '{"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5672}}'
_URL = "an http or https URL, as http://collector.example:4317"
_EXPORTER = "otlp, console, both separated by a comma, or none"
_PROTOCOL = "grpc or http/protobuf"


DECLARATIONS = {
    "build_version": Declaration(
        "dev",
        kinds.text,
        "The version of a workflow that names none; with `dev`, tasks run in the environment that starts them.",
        expected="a version",
    ),
    "mesh_config": Declaration(
        {},
        addresses.addresses,
        "The addresses of services by their names: `interservice-bus` is the RabbitMQ broker (without it, events go to "
        "the embedded journal); `otlp-traces-endpoint`, `otlp-metrics-endpoint` and `otlp-logs-endpoint` are "
        "collectors (gRPC), used if no OTEL_EXPORTER_OTLP_* variable names one.",
        expected=f"a JSON object as {_MESH_EXAMPLE}, ports whole numbers from 1 to 65535",
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
        "Whether secrets of the environment may be sent to addresses in the file `.env`: ISB_USERNAME, ISB_PASSWORD "
        "and ISB_TLS_KEY to a broker that the file names or trusts (ISB_TLS_CA, ISB_TLS_SERVER_NAME), "
        "OTEL_EXPORTER_OTLP_HEADERS and OTEL_EXPORTER_OTLP_CLIENT_KEY to a collector that it names, PGPASSWORD and "
        "PGPASSFILE to a database that it names (DKIST_CORE_INBOX), DKIST_CORE_AIRFLOW_PASSWORD and "
        "DKIST_CORE_AIRFLOW_TOKEN_FILE to an Airflow that it names (DKIST_CORE_AIRFLOW_URL), and any secret to the "
        "programs in a folder that it names as DKIST_CORE_ENVIRONMENTS_DIR. Counts in the environment only.",
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
        "The direct exchange of the failure message of release 7.x.",
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
        "The size of the archive stream, in bytes, above which its oldest segments are removed.",
        expected="a whole number of bytes from 100000000, the size of two segments",
        bounds={"ge": 100_000_000},
    ),
    "isb_tls_ca": Declaration(
        None,
        kinds.path,
        "The file of the trusted certificate authorities; it turns TLS on.",
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
        "The name in the broker's certificate, if it differs from the address; it turns TLS on.",
        expected="a host name",
    ),
    "event_flush_timeout": Declaration(
        2.0,
        kinds.number,
        "The longest time, in seconds, that the delivery of events and telemetry over the network may add to an "
        "attempt; events that are not delivered by then stay in the journal. A task waits up to two seconds for a "
        "locked journal, even if this time is shorter.",
        expected="a number of seconds from 0",
        bounds={"ge": 0, "allow_inf_nan": False},
    ),
    "dkist_core_sample_seconds": Declaration(
        30.0,
        kinds.number,
        "The time between two events `task.sampled`, by which a launcher shows that a running task lives, and what it "
        "uses; after ten minutes it doubles with each event, up to five minutes. 0 turns them off.",
        expected="a number of seconds from 0",
        bounds={"ge": 0, "allow_inf_nan": False},
    ),
    "dkist_core_state_dir": Declaration(
        None,
        kinds.path,
        "The folder of the journals. Default: dkist-processing-core in the user's XDG state folder.",
        expected="the path of a folder",
    ),
    "dkist_core_log_format": Declaration(
        "text",
        kinds.one_of("text", "json"),
        "The form of the log of a process that configures logging itself: readable lines, or one JSON object per line.",
        expected="text or json",
    ),
    "dkist_core_inbox": Declaration(
        None,
        kinds.text,
        "The database of consumers that name none, and of the store of runs. Default: the file inbox.db beside the "
        "journals.",
        expected="a URL as postgresql://user@host/database or sqlite:////folder/inbox.db",
    ),
    "dkist_core_expect": Declaration(
        None,
        kinds.path,
        "The file of the starts of runs that the watcher expects.",
        expected="the path of a file in TOML, as config/expect.example.toml",
    ),
    "dkist_core_notify": Declaration(
        None,
        kinds.path,
        "The file of the routes by which the watcher notifies people.",
        expected="the path of a file in TOML, as config/notify.example.toml",
    ),
    "dkist_core_airflow_url": Declaration(
        None,
        kinds.web_address,
        "The address of Airflow's API server, by which the ends of runs are found that no callback reported.",
        expected="an http or https URL as https://airflow.example, without a user and without /api/v2",
    ),
    "dkist_core_airflow_username": Declaration(
        None,
        kinds.text,
        "The user at Airflow's API server, who may read DAGs, runs and task instances. Without a user and without "
        "DKIST_CORE_AIRFLOW_TOKEN_FILE a token is requested without a login, as Airflow allows where all users are "
        "admins.",
        expected="a user name",
    ),
    "dkist_core_airflow_password": Declaration(
        None,
        kinds.text,
        "The password of this user.",
        expected="a password",
    ),
    "dkist_core_airflow_token_file": Declaration(
        None,
        kinds.path,
        "A file with a token for Airflow's REST API, in place of a user; it is read again for each round of requests.",
        expected="the path of a file",
    ),
    "dkist_core_dashboard_host": Declaration(
        "127.0.0.1",
        kinds.text,
        "The address that the dashboard listens on. Other addresses than that of this host alone need a token file or "
        "a user header.",
        expected="an address, as 0.0.0.0 or ::",
    ),
    "dkist_core_dashboard_port": Declaration(
        8088,
        kinds.whole,
        "The port that the dashboard listens on; 0 for a free one.",
        expected="a whole number from 0 to 65535",
        bounds={"ge": 0, "le": 65535},
    ),
    "dkist_core_dashboard_read_only": Declaration(
        False,  # noqa: FBT003 - the default of a setting
        kinds.yes_or_no,
        "Whether nothing can be changed by the dashboard.",
        expected="true or false",
    ),
    "dkist_core_dashboard_token_file": Declaration(
        None,
        kinds.path,
        "The file of the token of operators of the dashboard, who may also retry and discard dead letters.",
        expected="the path of a file with a token of 16 or more characters",
    ),
    "dkist_core_dashboard_read_token_file": Declaration(
        None,
        kinds.path,
        "The file of the token of readers of the dashboard, for people and programs that only look.",
        expected="the path of a file with a token of 16 or more characters",
    ),
    "dkist_core_dashboard_user_header": Declaration(
        None,
        kinds.text,
        "The header by which a reverse proxy names a user who is logged in, as X-Remote-User; all such users are "
        "operators.",
        expected="the name of a header",
    ),
    "dkist_core_dashboard_trusted_proxies": Declaration(
        None,
        kinds.text,
        "The addresses of the reverse proxies whose headers the dashboard trusts.",
        expected="addresses or networks, separated by commas, as 10.0.0.7,10.1.0.0/24",
    ),
    "dkist_core_dashboard_trace_url": Declaration(
        None,
        kinds.text,
        "The address of a trace, for links of the dashboard.",
        expected="an http or https URL that may contain {trace_id} and {span_id}",
    ),
    "dkist_core_dashboard_log_url": Declaration(
        None,
        kinds.text,
        "The address of the log of an attempt, for links of the dashboard to attempts that report none.",
        expected="an http or https URL that may contain {workflow}, {version}, {run_id}, {task} and {attempt}",
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
        "The number of times that an installation's request is repeated.",
        expected="a whole number from 0",
        bounds={"ge": 0},
    ),
    "dkist_core_environments_dir": Declaration(
        None,
        kinds.path,
        "The folder of the environments that tasks run in. Default: dkist-processing-core/environments in the user's "
        "XDG cache folder.",
        expected="the path of a folder that is not writable for all users",
    ),
    "dkist_core_environments_max_days": Declaration(
        30.0,
        kinds.number,
        "The number of days without use after which an environment may be removed.",
        expected="a number of days from 0",
        bounds={"ge": 0, "allow_inf_nan": False},
    ),
    "dkist_core_environments_max_bytes": Declaration(
        20_000_000_000,
        kinds.whole,
        "The size of all environments together, in bytes, above which those not used for longest are removed.",
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
        "The service name in all telemetry.",
        expected="a name",
    ),
    "dkist_service_version": Declaration(
        None,
        kinds.text,
        "The version of the service in all telemetry, `service.version`.",
        expected="a version",
    ),
    "otel_resource_attributes": Declaration(
        None,
        kinds.text,
        "Attributes of all telemetry.",
        expected="key=value pairs, separated by commas",
    ),
    "otel_python_disabled_instrumentations": Declaration(
        None,
        kinds.text,
        "The libraries that are not instrumented, by the names of their instrumentors; `*` for all.",
        expected="names separated by commas, or a JSON list",
    ),
    "otel_traces_exporter": Declaration(
        None,
        kinds.exporters,
        "The exporters of spans. Default: otlp if an endpoint is known, otherwise none.",
        expected=_EXPORTER,
    ),
    "otel_metrics_exporter": Declaration(
        None,
        kinds.exporters,
        "The exporters of metrics. Default: otlp if an endpoint is known, otherwise none.",
        expected=_EXPORTER,
    ),
    "otel_logs_exporter": Declaration(
        None,
        kinds.exporters,
        "The exporters of log records. Default: otlp if an endpoint is known, otherwise none.",
        expected=_EXPORTER,
    ),
    "otel_exporter_otlp_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The address of the collector of all signals.",
        expected=_URL,
    ),
    "otel_exporter_otlp_traces_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The address of the collector of spans.",
        expected=_URL,
    ),
    "otel_exporter_otlp_metrics_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The address of the collector of metrics.",
        expected=_URL,
    ),
    "otel_exporter_otlp_logs_endpoint": Declaration(
        None,
        kinds.endpoint,
        "The address of the collector of log records.",
        expected=_URL,
    ),
    "otel_exporter_otlp_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "The protocol of all signals. Default: grpc.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_traces_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "The protocol of spans.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_metrics_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "The protocol of metrics.",
        expected=_PROTOCOL,
    ),
    "otel_exporter_otlp_logs_protocol": Declaration(
        None,
        kinds.one_of("grpc", "http/protobuf"),
        "The protocol of log records.",
        expected=_PROTOCOL,
    ),
}
"""All settings by their names, in the order of the documents."""
