"""
The settings class, which authors subclass: reading and checking by pydantic.

Not here: the declaration of each setting (declarations), and reading for a task's process (without_pydantic).
"""

import inspect
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.settings import for_talus
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.credentials import OPT_IN, objection
from dkist_processing_core.settings.declarations import DECLARATIONS
from dkist_processing_core.settings.kinds import endpoint, exporters, in_lower_case, is_true, json_object, web_address
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.retries import RetryConfig
from dkist_processing_core.settings.services import UNKNOWN_SERVICE, MeshService, mesh
from dkist_processing_core.settings.table import to_markdown, to_restructured_text
from dkist_processing_core.settings.without_pydantic import BROKER_HERE, processor_count
from dkist_processing_core.settings.wording import explanation, masked

_read_from: ContextVar[Origin | None] = ContextVar("dkist_core_read_from", default=None)
logger = logging.getLogger(__name__)


def _declared(name: str, default: Any = None, **options: Any) -> Any:
    declared = DECLARATIONS[name]
    return Field(
        default=declared.default if default is None else default,
        description=declared.meaning,
        json_schema_extra={"expected": declared.expected},
        **declared.bounds,
        **options,
    )


Endpoint = Annotated[str | None, AfterValidator(endpoint)]
WebAddress = Annotated[str | None, AfterValidator(web_address)]
Exporter = Annotated[str | None, AfterValidator(exporters)]
Protocol = Annotated[Literal["grpc", "http/protobuf"] | None, BeforeValidator(in_lower_case)]


class DKISTProcessingCoreConfiguration(BaseSettings):
    """
    The settings of one process.

    Each field is the environment variable of the same name in capitals. An empty variable counts as not set, as in the
    specification of OpenTelemetry. Wrong values raise one `ConfigurationError` that names every wrong variable, the
    value found (never a secret) and the value expected. A client creates its subclass while its modules are imported.
    So the subclass logs a warning instead, and uses the default, if neither events nor the client's own settings depend
    on the wrong value.
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

    build_version: str = _declared("build_version")
    mesh_config: Annotated[dict[str, MeshService], NoDecode, BeforeValidator(mesh)] = _declared("mesh_config")
    isb_username: str = _declared("isb_username")
    isb_password: str = _declared("isb_password", repr=False)
    dkist_core_trust_dotenv: bool = _declared("dkist_core_trust_dotenv")
    isb_vhost: str = _declared("isb_vhost")
    isb_exchange: str = _declared("isb_exchange")
    isb_event_exchange: str = _declared("isb_event_exchange")
    isb_queue_type: Literal["classic", "quorum"] = _declared("isb_queue_type")
    isb_archive_max_bytes: int = _declared("isb_archive_max_bytes")
    isb_tls_ca: Path | None = _declared("isb_tls_ca")
    isb_tls_cert: Path | None = _declared("isb_tls_cert")
    isb_tls_key: Path | None = _declared("isb_tls_key")
    isb_tls_server_name: str | None = _declared("isb_tls_server_name")
    event_flush_timeout: float = _declared("event_flush_timeout")
    dkist_core_sample_seconds: float = _declared("dkist_core_sample_seconds")
    dkist_core_state_dir: Path | None = _declared("dkist_core_state_dir")
    dkist_core_log_format: Literal["text", "json"] = _declared("dkist_core_log_format")
    dkist_core_inbox: str | None = _declared("dkist_core_inbox", repr=False)
    dkist_core_expect: Path | None = _declared("dkist_core_expect")
    dkist_core_notify: Path | None = _declared("dkist_core_notify")
    dkist_core_airflow_url: WebAddress = _declared("dkist_core_airflow_url")
    dkist_core_airflow_username: str | None = _declared("dkist_core_airflow_username")
    dkist_core_airflow_password: str | None = _declared("dkist_core_airflow_password", repr=False)
    dkist_core_airflow_token_file: Path | None = _declared("dkist_core_airflow_token_file")
    dkist_core_dashboard_host: str = _declared("dkist_core_dashboard_host")
    dkist_core_dashboard_port: int = _declared("dkist_core_dashboard_port")
    dkist_core_dashboard_read_only: bool = _declared("dkist_core_dashboard_read_only")
    dkist_core_dashboard_token_file: Path | None = _declared("dkist_core_dashboard_token_file")
    dkist_core_dashboard_read_token_file: Path | None = _declared("dkist_core_dashboard_read_token_file")
    dkist_core_dashboard_user_header: str | None = _declared("dkist_core_dashboard_user_header")
    dkist_core_dashboard_trusted_proxies: str | None = _declared("dkist_core_dashboard_trusted_proxies")
    dkist_core_dashboard_trace_url: str | None = _declared("dkist_core_dashboard_trace_url")
    dkist_core_dashboard_log_url: str | None = _declared("dkist_core_dashboard_log_url")
    retry_config: Annotated[RetryConfig, NoDecode, BeforeValidator(json_object)] = _declared(
        "retry_config", RetryConfig.model_construct()
    )
    pip_timeout: int = _declared("pip_timeout")
    pip_retries: int = _declared("pip_retries")
    dkist_core_environments_dir: Path | None = _declared("dkist_core_environments_dir")
    dkist_core_environments_max_days: float = _declared("dkist_core_environments_max_days")
    dkist_core_environments_max_bytes: int = _declared("dkist_core_environments_max_bytes")
    is_notebook_execution_environment: bool = _declared("is_notebook_execution_environment")
    otel_sdk_disabled: Annotated[bool, BeforeValidator(is_true)] = _declared("otel_sdk_disabled")
    otel_service_name: str = _declared("otel_service_name")
    dkist_service_version: str | None = _declared("dkist_service_version")
    otel_resource_attributes: str | None = _declared("otel_resource_attributes")
    otel_python_disabled_instrumentations: str | None = _declared("otel_python_disabled_instrumentations")
    otel_traces_exporter: Exporter = _declared("otel_traces_exporter")
    otel_metrics_exporter: Exporter = _declared("otel_metrics_exporter")
    otel_logs_exporter: Exporter = _declared("otel_logs_exporter")
    otel_exporter_otlp_endpoint: Endpoint = _declared("otel_exporter_otlp_endpoint")
    otel_exporter_otlp_traces_endpoint: Endpoint = _declared("otel_exporter_otlp_traces_endpoint")
    otel_exporter_otlp_metrics_endpoint: Endpoint = _declared("otel_exporter_otlp_metrics_endpoint")
    otel_exporter_otlp_logs_endpoint: Endpoint = _declared("otel_exporter_otlp_logs_endpoint")
    otel_exporter_otlp_protocol: Protocol = _declared("otel_exporter_otlp_protocol")
    otel_exporter_otlp_traces_protocol: Protocol = _declared("otel_exporter_otlp_traces_protocol")
    otel_exporter_otlp_metrics_protocol: Protocol = _declared("otel_exporter_otlp_metrics_protocol")
    otel_exporter_otlp_logs_protocol: Protocol = _declared("otel_exporter_otlp_logs_protocol")

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
            message = explanation(error, type(self).model_fields, values, (_read_from.get() or os).environ)
            defaults = {} if type(self) is DKISTProcessingCoreConfiguration else _defaults_instead(error)
            if not defaults or not values.keys().isdisjoint(defaults):
                # The cause is left out: its text may hold a secret.
                raise ConfigurationError(message) from None
            logger.warning("%s has a default instead: %s", type(self).__name__, message)
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
        Read from the chosen origin, if there is one, and ignore empty variables of this package.

        For a client's own field the empty text is a value.
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

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the settings with masked secrets, including those of a subclass, which may not mask its own."""
        for name, value in super().__repr_args__():
            yield name, masked(name or "", value)

    @classmethod
    def read(cls, origin: Origin | None = None) -> Self:
        """Return the settings of an origin, by default of the one passed to this process, or else the current one."""
        with _reading(origin or Origin.of_process()):
            return cls()

    @classmethod
    def read_leniently(cls, origin: Origin | None = None) -> tuple[Self, str | None]:
        """
        Return the settings as a task needs them, and a message about wrong ones, which have their defaults instead.

        They are read from `origin`, as by `read`.

        Raises:
            ConfigurationError: A setting that decides where events go is wrong.
        """
        with _reading(origin or Origin.of_process()):
            try:
                return cls(), None
            except ConfigurationError as error:
                defaults = _defaults_instead(error.__context__)
                if not defaults:
                    raise
                return cls(**defaults), str(error)

    @property
    def core_origin(self) -> Origin:
        """The sources that the settings were read from; paths relative to a folder or a home are meant as in them."""
        return self._origin or Origin.now()

    def absolute(self, path: Path) -> Path:
        """
        Return the absolute path of a setting's path, for the home and current folder of the settings' sources.

        Raises:
            LookupError: It is below a home or a folder that does not exist.
        """
        return Path(self.core_origin.absolute(str(path)))

    def service_mesh_detail(
        self, service_name: str, default_mesh_service: MeshService = UNKNOWN_SERVICE
    ) -> MeshService:
        """Return where a service is reached; the default, whose port is 0, for a service not named in `MESH_CONFIG`."""
        return self.mesh_config.get(service_name) or default_mesh_service

    @property
    def names_broker(self) -> bool:
        """Whether the bus is RabbitMQ; the embedded journal otherwise."""
        return ISB_SERVICE in self.mesh_config

    @property
    def isb_mesh_service(self) -> MeshService:
        """Where the broker is reached: localhost, port 5672, without an entry in `MESH_CONFIG`."""
        return self.mesh_config.get(ISB_SERVICE) or MeshService(**BROKER_HERE._asdict())

    @property
    def isb_producer_connection_parameters(self) -> Any:
        """The broker's address and credentials, for a producer of talus: clients publish their own messages."""
        return for_talus.connection_parameters(self)

    @property
    def isb_connection_retryer(self) -> Any:
        """How talus tries to connect: three times, some seconds apart."""
        return for_talus.retryer()

    @property
    def isb_publish_exchange(self) -> Any:
        """The direct exchange of the messages of release 7.x, for a producer of talus."""
        return for_talus.exchange(self.isb_exchange)

    @property
    def isb_queue_arguments(self) -> dict[str, str]:
        """The arguments of the declaration of a queue for messages of release 7.x."""
        return {"x-queue-type": self.isb_queue_type}

    @property
    def cpu_count(self) -> int:
        """The number of processors that this process may use; from Python 3.13 on, `PYTHON_CPU_COUNT` sets it."""
        return processor_count()

    def log_configurations(self, log_parent_configurations: bool = True) -> None:  # noqa: FBT001, FBT002
        """Log every setting with masked secrets, or only the settings that the class itself adds to its parents'."""
        names = type(self).model_fields if log_parent_configurations else inspect.get_annotations(type(self))
        for name in (name for name in type(self).model_fields if name in names):
            logger.info("%s: %s", name, masked(name, getattr(self, name)))

    def model_fields_to_markdown_table(self) -> str:
        """Return every setting as a table in Markdown, as the documents of clients hold it."""
        return to_markdown(type(self).model_fields)

    def model_fields_to_restructured_text_table(self) -> str:
        """Return every setting as a table in reStructuredText, as the documents of clients hold it."""
        return to_restructured_text(type(self).model_fields)


def _defaults_instead(error: BaseException | None) -> dict[str, Any]:
    """Return the defaults of the wrong settings; {} if events, or a client's own settings, depend on one of them."""
    problems = error.errors() if isinstance(error, ValidationError) else []
    wrong = {str(problem["loc"][0]) if problem["loc"] else "" for problem in problems}
    fields = DKISTProcessingCoreConfiguration.model_fields
    if any(name not in fields or _is_of_the_bus(name) for name in wrong):
        return {}
    return {name: fields[name].get_default() for name in wrong}


def _is_of_the_bus(setting: str) -> bool:
    return setting in {"mesh_config", "dkist_core_state_dir"} or setting.startswith("isb_")


@contextmanager
def _reading(origin: Origin) -> Iterator[None]:
    if origin.problem is not None:
        raise ConfigurationError(origin.problem)
    token = _read_from.set(origin)
    try:
        yield
    finally:
        _read_from.reset(token)
