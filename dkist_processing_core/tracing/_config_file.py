"""
Declarative configuration: the file that `OTEL_CONFIG_FILE` names, which describes all providers of a process.

https://opentelemetry.io/docs/specs/otel/configuration/ defines it. A package of OpenTelemetry reads it, which this
library does not require: it is experimental, and fits one release of the SDK. Services deliver the telemetry of other
processes, and send metrics of their own, which the file does not describe. Not here: the providers by the other
variables (_setup).
"""

import atexit
import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from opentelemetry import metrics, trace

from dkist_processing_core.otlp import Signal
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact

# The older name is that of the time when the specification was experimental.
_VARIABLES = ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
_MODULE, _PACKAGE = "opentelemetry.configuration", "opentelemetry-configuration"
logger = logging.getLogger(__name__)


def config_file_of(settings: Settings) -> tuple[str, str] | None:
    """
    Return the variable that names a file, and the file; None without one.

    A file `.env` cannot name it: the file may send secrets of the environment to any address.
    """
    named = ((variable, settings.core_origin.environ.get(variable)) for variable in _VARIABLES)
    return next(((variable, file) for variable, file in named if file), None)


def problem_of_config_file(settings: Settings) -> str | None:
    """Return why the named file cannot be followed in this environment, and what happens instead; None if it can."""
    named = config_file_of(settings)
    if named is None or find_spec(_MODULE) is not None:
        return None
    variable, file = named
    return (
        f"{variable} names {file}, and the package {_PACKAGE}, which reads it, is not installed here; telemetry "
        f"follows the other OTEL_* variables and MESH_CONFIG instead: install the package, or unset {variable}"
    )


def warn_of_config_file(settings: Settings) -> None:
    """Log at the start of a service that a named file does not describe what the service delivers and measures."""
    named = config_file_of(settings)
    if named is not None and not settings.otel_sdk_disabled:
        variable, file = named
        logger.warning(
            "%s names %s, which describes only the telemetry of tasks and handlers; the metrics of this service, and "
            "the telemetry that it delivers, follow the other OTEL_* variables and MESH_CONFIG",
            variable,
            redact(file, also=secrets_in(settings)),
        )


def providers_of_file(settings: Settings, file: str) -> dict[Signal, Any]:
    """
    Set the providers of this process as a file describes them, and return those that it has.

    Raises:
        Exception: The file cannot be read, or its content is wrong.
    """
    from opentelemetry import _logs  # noqa: PLC0415 - only for this

    module = import_module(_MODULE)
    module.configure_sdk(module.load_config_file(settings.core_origin.absolute(file)))
    found: dict[Signal, Any] = {
        "traces": trace.get_tracer_provider(),
        "metrics": metrics.get_meter_provider(),
        "logs": _logs.get_logger_provider(),
    }
    providers = {signal: provider for signal, provider in found.items() if hasattr(provider, "force_flush")}
    for provider in providers.values():
        # It would wait for a collector beyond all limits: `Telemetry.flushing` exports what is pending.
        atexit.unregister(provider.shutdown)
    return providers
