"""
The settings class, which authors subclass: reading and checking by pydantic.

Not here: the declaration of each setting (declarations), and reading for a task's process (plain).
"""

import importlib
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
from dkist_processing_core.settings.credentials import OPT_IN, objection
from dkist_processing_core.settings.declarations import DECLARATIONS
from dkist_processing_core.settings.kinds import ISB_SERVICE, endpoint, exporters, in_lower_case, is_true, json_object
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.plain import BROKER_HERE
from dkist_processing_core.settings.services import UNKNOWN_SERVICE, MeshService, RetryConfig, mesh
from dkist_processing_core.settings.table import to_markdown, to_restructured_text
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
Exporter = Annotated[str | None, AfterValidator(exporters)]
Protocol = Annotated[Literal["grpc", "http/protobuf"] | None, BeforeValidator(in_lower_case)]


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
    dkist_core_state_dir: Path | None = _declared("dkist_core_state_dir")
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
    otel_resource_attributes: str | None = _declared("otel_resource_attributes")
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
                # Without the cause: its text may hold a secret.
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

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the settings, secrets masked: those of a subclass too, which may not know how to hide its own."""
        for name, value in super().__repr_args__():
            yield name, masked(name or "", value)

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
                defaults = _defaults_instead(error.__context__)
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
        return self.mesh_config.get(ISB_SERVICE) or MeshService(**BROKER_HERE._asdict())

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
            logger.info("%s: %s", name, masked(name, getattr(self, name)))

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


def _defaults_instead(error: BaseException | None) -> dict[str, Any]:
    """Return the defaults of what is wrong; none where events, or a client's own settings, depend on any of it."""
    problems = error.errors() if isinstance(error, ValidationError) else []
    wrong = {str(problem["loc"][0]) if problem["loc"] else "" for problem in problems}
    fields = DKISTProcessingCoreConfiguration.model_fields
    if any(name not in fields or _is_of_the_bus(name) for name in wrong):
        return {}
    return {name: fields[name].get_default() for name in wrong}


def _is_of_the_bus(setting: str) -> bool:
    return setting in {"mesh_config", "dkist_core_state_dir"} or setting.startswith("isb_")


def named_in_file(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """Return the variables that the settings have from the file `.env`."""
    origin = settings.core_origin
    names = {name.upper() for name, value in origin.dotenv.items() if value}
    fields = [name.upper() for name in type(settings).model_fields if name != OPT_IN]
    return [name for name in fields if name in names and not origin.environ.get(name)]


@contextmanager
def _reading(origin: Origin) -> Iterator[None]:
    if origin.problem is not None:
        raise ConfigurationError(origin.problem)
    token = _read_from.set(origin)
    try:
        yield
    finally:
        _read_from.reset(token)
