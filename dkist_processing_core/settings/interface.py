"""
The settings as the parts of the package use them: an interface for the two classes that hold them.

Not here: the class for a task's process (without_pydantic), and the one for authors (configuration).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dkist_processing_core.settings.origin import Origin


class Service(Protocol):
    """Where a service is reached."""

    @property
    def host(self) -> str:
        """The host name or address."""

    @property
    def port(self) -> int:
        """The port."""


class Settings(Protocol):
    """The settings of one process; iterating yields each setting's name and value."""

    build_version: str
    isb_username: str
    isb_password: str
    isb_vhost: str
    isb_exchange: str
    isb_event_exchange: str
    isb_archive_max_bytes: int
    isb_tls_ca: Path | None
    isb_tls_cert: Path | None
    isb_tls_key: Path | None
    isb_tls_server_name: str | None
    event_flush_timeout: float
    dkist_core_sample_seconds: float
    dkist_core_state_dir: Path | None
    dkist_core_inbox: str | None
    dkist_core_expect: Path | None
    dkist_core_notify: Path | None
    dkist_core_airflow_url: str | None
    dkist_core_airflow_username: str | None
    dkist_core_airflow_password: str | None
    dkist_core_airflow_token_file: Path | None
    dkist_core_dashboard_host: str
    dkist_core_dashboard_port: int
    dkist_core_dashboard_read_only: bool
    dkist_core_dashboard_token_file: Path | None
    dkist_core_dashboard_read_token_file: Path | None
    dkist_core_dashboard_user_header: str | None
    dkist_core_dashboard_trusted_proxies: str | None
    dkist_core_dashboard_trace_url: str | None
    dkist_core_dashboard_log_url: str | None
    pip_timeout: int
    pip_retries: int
    dkist_core_environments_max_days: float
    dkist_core_environments_max_bytes: int
    otel_sdk_disabled: bool
    otel_service_name: str
    dkist_service_version: str | None
    otel_resource_attributes: str | None
    otel_python_disabled_instrumentations: str | None
    otel_exporter_otlp_endpoint: str | None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield each setting's name and value."""

    @property
    def isb_queue_type(self) -> str:
        """The type of a consumer's queue."""

    @property
    def otel_exporter_otlp_protocol(self) -> str | None:
        """The protocol of all signals."""

    @property
    def mesh_config(self) -> Mapping[str, Service]:
        """Where services are reached, by name."""

    @property
    def model_fields_set(self) -> set[str]:
        """The names of the settings that a source gives."""

    @property
    def names_broker(self) -> bool:
        """Whether the bus is RabbitMQ; the embedded journal otherwise."""

    @property
    def isb_mesh_service(self) -> Service:
        """Where the broker is reached."""

    @property
    def cpu_count(self) -> int:
        """The number of processors that this process may use."""

    @property
    def core_origin(self) -> Origin:
        """The sources of the settings."""

    def absolute(self, path: Path) -> Path:
        """
        Return the absolute path of a setting's path, for the home and current folder of the settings' sources.

        Raises:
            LookupError: It is below a home or a folder that does not exist.
        """
