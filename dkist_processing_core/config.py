"""
Every setting, read from the environment and checked when it is read.

Not here: what is done with them. Nothing is read at import; `core_configurations` is made when it is asked for.
"""

import importlib
import inspect
import ipaddress
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.settings.credentials import OPT_IN, objection
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.table import to_markdown, to_restructured_text
from dkist_processing_core.text import REDACTED, is_secret_name, redact, secrets_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ISB_SERVICE = "interservice-bus"
_OWN_SERVICES = {ISB_SERVICE, *(f"otlp-{signal}-endpoint" for signal in ("traces", "metrics", "logs"))}
_MESH_EXAMPLE = '{"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5672}}'
_SHOWN = 120
_read_from: ContextVar[Origin | None] = ContextVar("dkist_core_read_from", default=None)
logger = logging.getLogger(__name__)


def _setting(default: Any, meaning: str, *, expected: str, **options: Any) -> Any:
    return Field(default=default, description=meaning, json_schema_extra={"expected": expected}, **options)


def _host(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+", value):
        try:
            ipaddress.ip_address(value.removeprefix("[").removesuffix("]"))
        except ValueError:
            # A URL here may hold a password, and would be shown at every place that shows the address.
            msg = "not a host name or address"
            raise ValueError(msg) from None
    return value


class MeshService(BaseModel):
    """Where a service is reached: the value of one key of `MESH_CONFIG`."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )

    host: Annotated[str, AfterValidator(_host)] = Field(alias="mesh_address")
    port: int = Field(alias="mesh_port", ge=0, le=65535)

    def __eq__(self, other: object) -> bool:
        """
        Compare host and port, whatever the class.

        Clients compare with the "unknown service" of another package, whose class is not ours.
        """
        return (self.host, self.port) == (getattr(other, "host", None), getattr(other, "port", None))

    def __hash__(self) -> int:
        """Hash what is compared."""
        return hash((self.host, self.port))


UNKNOWN_SERVICE = MeshService.model_construct(host="127.0.0.1", port=0)


class RetryConfig(BaseModel):
    """How a client of this configuration retries its own connections; seconds, and -1 tries for ever."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    retry_delay: float = 1
    retry_backoff: float = 2
    retry_jitter: tuple[float, float] = (1, 10)
    retry_max_delay: float = 300
    retry_tries: int = -1


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except RecursionError:
        parsed = None
    if not isinstance(parsed, dict):
        msg = "not a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError, and lets a TypeError through
    return parsed


def _mesh(value: Any) -> Any:
    services = _json_object(value)
    if not isinstance(services, dict):
        return services
    return {name: service if name in _OWN_SERVICES else _of_client(service) for name, service in services.items()}


def _of_client(service: Any) -> Any:
    """Return where a service is that only a client uses: as 7.x, with any address, since its client knows it best."""
    match service:
        case {"mesh_address": str(host), "mesh_port": int(port)}:
            return MeshService.model_construct(host=host, port=port)
        case _:
            return service


def _endpoint(value: str | None) -> str | None:
    if not value:
        return None
    parts = urlsplit(value)
    if not (parts.scheme in {"http", "https"} and parts.hostname) and "://" in value:
        msg = "not an http or https URL"
        raise ValueError(msg)
    return value


def _exporters(value: str | None) -> str | None:
    if value is None:
        return None
    names = [name.strip().lower() for name in value.split(",")]
    if names != ["none"] and not {"otlp", "console"}.issuperset(names):
        msg = "not a list of exporters"
        raise ValueError(msg)
    return ",".join(dict.fromkeys(names))


def _in_lower_case(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Endpoint = Annotated[str | None, AfterValidator(_endpoint)]
Exporter = Annotated[str | None, AfterValidator(_exporters)]
Protocol = Annotated[Literal["grpc", "http/protobuf"] | None, BeforeValidator(_in_lower_case)]
_URL = "an http or https URL, as http://collector.example:4317"
_EXPORTER = "otlp, console, both separated by a comma, or none"
_PROTOCOL = "grpc or http/protobuf"


class DKISTProcessingCoreConfiguration(BaseSettings):
    """
    The settings of one process.

    Each field is the environment variable of the same name in capitals; an empty one counts as not set, as the
    specification of OpenTelemetry has it for its own. A wrong value raises one `ConfigurationError` that names every
    wrong variable, what was found (never a secret) and what was expected. A client's subclass, which is made while its
    modules are imported, is told the same by a warning where events and the client's own settings do not depend on it,
    and has the default.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=False,
        populate_by_name=True,
        hide_input_in_errors=True,
        # Build the model when the settings are first read: a process that only defines tasks reads none.
        defer_build=True,
    )

    build_version: str = _setting(
        "dev",
        "The workflow version where a workflow names none; `dev` runs tasks in the environment they were started from.",
        expected="a version",
    )
    mesh_config: Annotated[dict[str, MeshService], NoDecode, BeforeValidator(_mesh)] = _setting(
        {},
        "Where services are reached, by name: `interservice-bus` is the RabbitMQ broker (without it, events go to the "
        "embedded journal); `otlp-traces-endpoint`, `otlp-metrics-endpoint` and `otlp-logs-endpoint` are collectors "
        "(gRPC), where no OTEL_EXPORTER_OTLP_* variable names one.",
        expected=f"a JSON object as {_MESH_EXAMPLE}, ports whole numbers from 0 to 65535",
    )
    isb_username: str = _setting("guest", "The user name at the broker.", expected="a user name")
    isb_password: str = _setting("guest", "The password at the broker.", expected="a password", repr=False)
    dkist_core_trust_dotenv: bool = _setting(
        False,  # noqa: FBT003 - the default of a setting
        "Whether ISB_USERNAME, ISB_PASSWORD and ISB_TLS_KEY of the environment may go to a broker that the file `.env` "
        "names or has trusted (ISB_TLS_CA, ISB_TLS_SERVER_NAME), OTEL_EXPORTER_OTLP_HEADERS and "
        "OTEL_EXPORTER_OTLP_CLIENT_KEY to a collector that it names, and any secret to the programs in a folder that "
        "it names as DKIST_CORE_ENVIRONMENTS_DIR. Counts in the environment only.",
        expected="true or false",
    )
    isb_vhost: str = _setting("/", "The virtual host at the broker.", expected="a virtual host's name", min_length=1)
    isb_exchange: str = _setting(
        "master.direct.x",
        "The direct exchange of the established failure message.",
        expected="an exchange's name of 1 to 255 characters",
        min_length=1,
        max_length=255,
    )
    isb_event_exchange: str = _setting(
        "workflow.events.x",
        "The topic exchange that events are published to.",
        expected="an exchange's name of 1 to 255 characters",
        min_length=1,
        max_length=255,
    )
    isb_queue_type: Literal["classic", "quorum"] = _setting(
        "classic", "The type of a consumer's queue.", expected="classic or quorum"
    )
    isb_archive_max_bytes: int = _setting(
        5_000_000_000,
        "How large the archive stream may grow, in bytes, before its oldest segments go.",
        expected="a whole number of bytes from 100000000, the size of two segments",
        ge=100_000_000,
    )
    isb_tls_ca: Path | None = _setting(
        None, "The file of the authorities to trust; it turns TLS on.", expected="the path of a PEM file"
    )
    isb_tls_cert: Path | None = _setting(
        None, "The client certificate to show; it turns TLS on.", expected="the path of a PEM file"
    )
    isb_tls_key: Path | None = _setting(
        None, "The private key of the client certificate; it turns TLS on.", expected="the path of a PEM file"
    )
    isb_tls_server_name: str | None = _setting(
        None,
        "The name that the broker's certificate must be for, where it is not the address; it turns TLS on.",
        expected="a host name",
    )
    event_flush_timeout: float = _setting(
        2.0,
        "The most that publishing and telemetry together may add to an attempt's end, in seconds; what is not "
        "delivered by then stays in the journal.",
        expected="a number of seconds from 0",
        ge=0,
        allow_inf_nan=False,
    )
    dkist_core_state_dir: Path | None = _setting(
        None,
        "The folder of the journals. Default: dkist-processing-core in the user's XDG state folder.",
        expected="the path of a folder",
    )
    retry_config: Annotated[RetryConfig, NoDecode, BeforeValidator(_json_object)] = _setting(
        RetryConfig.model_construct(),
        "How clients of this configuration retry their own connections.",
        expected='a JSON object as {"retry_delay": 1, "retry_backoff": 2, "retry_jitter": [1, 10], '
        '"retry_max_delay": 300, "retry_tries": -1}',
    )
    pip_timeout: int = _setting(
        15, "The timeout of an installation's requests, in seconds.", expected="a whole number from 0", ge=0
    )
    pip_retries: int = _setting(
        5, "How often an installation's request is tried again.", expected="a whole number from 0", ge=0
    )
    dkist_core_environments_dir: Path | None = _setting(
        None,
        "The folder of the environments that tasks run in. Default: dkist-processing-core/environments in the user's "
        "XDG cache folder.",
        expected="the path of a folder that not everybody may write to",
    )
    dkist_core_environments_max_days: float = _setting(
        30.0,
        "After how many days without use an environment may be removed.",
        expected="a number of days from 0",
        ge=0,
        allow_inf_nan=False,
    )
    dkist_core_environments_max_bytes: int = _setting(
        20_000_000_000,
        "How large all environments together may grow, in bytes, before those not used for longest go.",
        expected="a whole number of bytes from 0",
        ge=0,
    )
    is_notebook_execution_environment: bool = _setting(
        False,  # noqa: FBT003 - the default of a setting
        "Whether tasks run in a notebook.",
        expected="true or false",
    )
    # By OpenTelemetry's specification every value except "true" means false.
    otel_sdk_disabled: Annotated[bool, BeforeValidator(lambda value: _in_lower_case(value) in (True, "true"))] = (
        _setting(
            False,  # noqa: FBT003 - the default of a setting
            "Turns all telemetry off.",
            expected="true, in any case; everything else means false",
        )
    )
    otel_service_name: str = _setting(
        "dkist-processing-core", "The service name that telemetry carries.", expected="a name"
    )
    otel_resource_attributes: str | None = _setting(
        None, "Attributes that all telemetry carries.", expected="key=value pairs, separated by commas"
    )
    otel_traces_exporter: Exporter = _setting(
        None, "Where spans go. Default: otlp where an endpoint is known, else none.", expected=_EXPORTER
    )
    otel_metrics_exporter: Exporter = _setting(
        None, "Where metrics go. Default: otlp where an endpoint is known, else none.", expected=_EXPORTER
    )
    otel_logs_exporter: Exporter = _setting(
        None, "Where log records go. Default: otlp where an endpoint is known, else none.", expected=_EXPORTER
    )
    otel_exporter_otlp_endpoint: Endpoint = _setting(None, "The collector of all signals.", expected=_URL)
    otel_exporter_otlp_traces_endpoint: Endpoint = _setting(None, "The collector of spans.", expected=_URL)
    otel_exporter_otlp_metrics_endpoint: Endpoint = _setting(None, "The collector of metrics.", expected=_URL)
    otel_exporter_otlp_logs_endpoint: Endpoint = _setting(None, "The collector of log records.", expected=_URL)
    otel_exporter_otlp_protocol: Protocol = _setting(None, "How all signals travel. Default: grpc.", expected=_PROTOCOL)
    otel_exporter_otlp_traces_protocol: Protocol = _setting(None, "How spans travel.", expected=_PROTOCOL)
    otel_exporter_otlp_metrics_protocol: Protocol = _setting(None, "How metrics travel.", expected=_PROTOCOL)
    otel_exporter_otlp_logs_protocol: Protocol = _setting(None, "How log records travel.", expected=_PROTOCOL)

    _origin: Origin | None = PrivateAttr(default=None)

    def __init__(self, **values: Any) -> None:
        """Read and check the settings; `values` outrank the environment, and the environment the file `.env`."""
        decided = _read_from.get()
        origin = decided or Origin.now()
        if origin.problem is not None and "_env_file" not in values:
            raise ConfigurationError(origin.problem)
        try:
            super().__init__(**values, **({} if decided is None else {"_env_file": None}))
            self._origin = origin
        except (ValidationError, SettingsError) as error:
            explanation = self._explanation(error, values)
            defaults = {} if type(self) is DKISTProcessingCoreConfiguration else self._defaults_instead(error)
            if not defaults or not values.keys().isdisjoint(defaults):
                # Without the cause: its text may hold a secret.
                raise ConfigurationError(explanation) from None
            logger.warning("%s has a default instead: %s", type(self).__name__, explanation)
            # Repeat the validation with the defaults: a check of several fields together has not run yet.
            DKISTProcessingCoreConfiguration.__init__(self, **values, **defaults)
        except (OSError, UnicodeError) as error:
            msg = f".env: found a file that cannot be read ({type(error).__name__}), expected UTF-8 text"
            raise ConfigurationError(msg) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """
        Read from the origin that was decided on, if one was, and pass over empty variables of ours.

        To a field of a client's the empty text is a value.
        """
        origin = _read_from.get()
        decided = (None, None) if origin is None else (origin.environ, origin.dotenv)
        for source, variables in zip((env_settings, dotenv_settings), decided, strict=True):
            if isinstance(source, EnvSettingsSource):
                found = source.env_vars if variables is None else {name.lower(): variables[name] for name in variables}
                source.env_vars = {
                    name: value
                    for name, value in found.items()
                    if value or name not in DKISTProcessingCoreConfiguration.model_fields
                }
        if isinstance(env_settings, EnvSettingsSource) and isinstance(dotenv_settings, EnvSettingsSource):
            # A file must not decide whether it is trusted.
            dotenv = {name: value for name, value in dotenv_settings.env_vars.items() if name != OPT_IN}
            dotenv_settings.env_vars = dotenv
            file = (origin or Origin.now()).file
            if complaint := objection(env_settings.env_vars, dotenv, init_settings().keys(), file):
                raise ConfigurationError(complaint)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @classmethod
    def _explanation(cls, error: ValidationError | SettingsError, values: dict[str, Any]) -> str:
        if isinstance(error, SettingsError):
            return f"the settings cannot be read: {redact(str(error))}"
        problems = {problem["loc"][:1]: problem for problem in reversed(error.errors())}
        return "; ".join(cls._complaint(problem, values) for problem in reversed(problems.values()))

    @classmethod
    def _complaint(cls, problem: "ErrorDetails", values: dict[str, Any]) -> str:
        objection = redact(problem["msg"].removeprefix("Value error, "))
        if not problem["loc"]:
            # A subclass's check of several fields together names no single field.
            return objection
        name = str(problem["loc"][0])
        variable = name.upper()
        expected = expectation(cls.model_fields.get(name))
        # Only `problem` holds a value that was read from the file `.env`.
        environ = (_read_from.get() or os).environ
        found = values[name] if name in values else environ.get(variable) or environ.get(name) or problem["input"]
        text = redact(str(found))
        # A password may precede an @, and its start is unknown. The end of a password in JSON is unknown, too.
        if is_secret_name(variable) or is_secret_name(text) or "@" in text:
            return f"{variable}: found a value that is not shown, expected {expected or 'another'}"
        shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
        return f"{variable}: found {shown}, {f'expected {expected}' if expected else f'but {objection}'}"

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the settings, secrets masked: those of a subclass too, which may not know how to hide its own."""
        for name, value in super().__repr_args__():
            yield name, _masked(name or "", value)

    @classmethod
    def read(cls, origin: Origin | None = None) -> Self:
        """Return the settings of an origin, by default of the one that this process was given, or has just now."""
        with _reading(origin or Origin.of_process()):
            return cls()

    @classmethod
    def read_leniently(cls, origin: Origin | None = None) -> tuple[Self, str | None]:
        """
        Return the settings as a task needs them, and what is wrong with those of them that hold their defaults instead.

        They are read from `origin`, as `read` reads them.

        Raises
        ------
        ConfigurationError
            where one of those that say where events go is wrong.

        """
        with _reading(origin or Origin.of_process()):
            try:
                return cls(), None
            except ConfigurationError as error:
                defaults = cls._defaults_instead(error.__context__)
                if not defaults:
                    raise
                return cls(**defaults), str(error)

    @property
    def core_origin(self) -> Origin:
        """What the settings were read from, by which relative paths, and those below a home, mean what they meant."""
        return self._origin or Origin.now()

    def absolute(self, path: Path) -> Path:
        """
        Return where a path of a setting lies, whatever home and current folder are by now.

        Raises
        ------
        LookupError
            where it lies below a home or a folder that is not there.

        """
        return Path(self.core_origin.absolute(str(path)))

    @staticmethod
    def _defaults_instead(error: BaseException | None) -> dict[str, Any]:
        """Return the defaults of what is wrong; none where events, or a client's own settings, depend on any of it."""
        problems = error.errors() if isinstance(error, ValidationError) else []
        wrong = {str(problem["loc"][0]) if problem["loc"] else "" for problem in problems}
        fields = DKISTProcessingCoreConfiguration.model_fields
        if any(name not in fields or _is_of_the_bus(name) for name in wrong):
            return {}
        return {name: fields[name].get_default() for name in wrong}

    def service_mesh_detail(
        self, service_name: str, default_mesh_service: MeshService = UNKNOWN_SERVICE
    ) -> MeshService:
        """Return where a service is reached; for one that `MESH_CONFIG` does not name the default, port 0 as it is."""
        return self.mesh_config.get(service_name) or default_mesh_service

    @property
    def names_broker(self) -> bool:
        """Whether the bus is RabbitMQ; the embedded journal otherwise."""
        return ISB_SERVICE in self.mesh_config

    @property
    def isb_mesh_service(self) -> MeshService:
        """Where the broker is reached: localhost, port 5672, where `MESH_CONFIG` does not say."""
        return self.mesh_config.get(ISB_SERVICE) or MeshService(host="localhost", port=5672)

    @property
    def isb_producer_connection_parameters(self) -> Any:
        """The broker's address and credentials, for a producer of talus: clients publish messages of their own."""
        return _talus("ConnectionParameterFactory", "talus.models.connection_parameters")(
            rabbitmq_host=self.isb_mesh_service.host,
            rabbitmq_port=self.isb_mesh_service.port,
            rabbitmq_user=self.isb_username,
            rabbitmq_pass=self.isb_password,
            connection_name=f"{self.otel_service_name}-producer",
        )

    @property
    def isb_connection_retryer(self) -> Any:
        """How talus tries to connect: three times, some seconds apart."""
        return _talus("ConnectionRetryerFactory")(
            delay_min=1, delay_max=5, backoff=1, jitter_min=1, jitter_max=3, attempts=3
        )

    @property
    def isb_publish_exchange(self) -> Any:
        """The exchange of established messages, for a producer of talus."""
        return _talus("Exchange")(name=self.isb_exchange)

    @property
    def isb_queue_arguments(self) -> dict[str, str]:
        """The arguments that an established message's queue is declared with."""
        return {"x-queue-type": self.isb_queue_type}

    @property
    def cpu_count(self) -> int:
        """How many processors this process may use; from Python 3.13 on, what `PYTHON_CPU_COUNT` says."""
        count = getattr(os, "process_cpu_count", None)
        return len(os.sched_getaffinity(0)) if count is None else count() or 1

    def log_configurations(self, log_parent_configurations: bool = True) -> None:  # noqa: FBT001, FBT002
        """Log every setting, secrets masked; without those of its parents, only what the class itself adds."""
        names = type(self).model_fields if log_parent_configurations else inspect.get_annotations(type(self))
        for name in (name for name in type(self).model_fields if name in names):
            logger.info("%s: %s", name, _masked(name, getattr(self, name)))

    def model_fields_to_markdown_table(self) -> str:
        """Return every setting as a table in Markdown, as the documents of clients hold it."""
        return to_markdown(type(self).model_fields)

    def model_fields_to_restructured_text_table(self) -> str:
        """Return every setting as a table in reStructuredText, as the documents of clients hold it."""
        return to_restructured_text(type(self).model_fields)


def _talus(name: str, module: str = "talus") -> Any:
    """Return a class of the library that clients publish their own messages with, and bring along themselves."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        msg = f"a {name} of talus is asked for, which is not installed here: install it with pip install talus"
        raise ImportError(msg, name="talus") from error


def _masked(name: str, value: Any) -> Any:
    """Return what may be shown of a setting: a client's list of credentials has its secrets inside."""
    if is_secret_name(name):
        return REDACTED
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        return {key: _masked(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _is_of_the_bus(setting: str) -> bool:
    return setting in {"mesh_config", "dkist_core_state_dir"} or setting.startswith("isb_")


def named_in_file(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """Return the variables that the settings have from the file `.env`."""
    origin = settings.core_origin
    names = {name.upper() for name, value in origin.dotenv.items() if value}
    fields = [name.upper() for name in type(settings).model_fields if name != OPT_IN]
    return [name for name in fields if name in names and not origin.environ.get(name)]


def secrets_in(settings: DKISTProcessingCoreConfiguration | None) -> list[str]:
    """
    Return what must not be shown: secret settings, secret variables, and secret entries of the file `.env`.

    Variables count also where they are set no more; entries of the file may be settings of a client or of a library.
    """
    if settings is None:
        return secrets_of(Origin.of_process().named_in_file())
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    origin = settings.core_origin
    return list(dict.fromkeys([*secrets_of(texts), *secrets_of(origin.environ), *secrets_of(origin.named_in_file())]))


@contextmanager
def _reading(origin: Origin) -> Iterator[None]:
    if origin.problem is not None:
        raise ConfigurationError(origin.problem)
    token = _read_from.set(origin)
    try:
        yield
    finally:
        _read_from.reset(token)


def expectation(field: FieldInfo | None) -> str | None:
    """Return what a setting's field expects, in words; None for one of a subclass, which need not say."""
    extra = None if field is None else field.json_schema_extra
    return str(extra["expected"]) if isinstance(extra, dict) and "expected" in extra else None


def example_environment() -> str:
    """Return `config/example.env`: every setting with its meaning and default, in the order of the class."""
    lines = [
        "# Every setting of dkist-processing-core, with its meaning and its default.",
        "# Made from the settings class by `python -m dkist_processing_core.config`; a test holds it in step.",
    ]
    for name, field in DKISTProcessingCoreConfiguration.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            text = default.model_dump_json()
        elif isinstance(default, dict):
            text = json.dumps(default)
        elif isinstance(default, bool):
            text = str(default).lower()
        else:
            text = "" if default is None else str(default)
        lines += ["", f"# {field.description}", f"# Expected: {expectation(field)}.", f"# {name.upper()}={text}"]
    return "\n".join(lines) + "\n"


def __getattr__(name: str) -> Any:
    """Make `core_configurations` when it is first asked for, not at import."""
    if name == "core_configurations":
        globals()[name] = DKISTProcessingCoreConfiguration()
        return globals()[name]
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


if __name__ == "__main__":
    print(example_environment(), end="")  # noqa: T201 - its output is the file
