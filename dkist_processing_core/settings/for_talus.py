"""
Objects of talus, the library with which clients publish their own messages: its classes, filled from the settings.

Clients install talus themselves, so it is imported on use. Not here: the settings (configuration).
"""

import importlib
from typing import Any

from dkist_processing_core.settings.interface import Settings


def connection_parameters(settings: Settings) -> Any:
    """Return the broker's address and credentials, for a producer."""
    return _class("ConnectionParameterFactory", "talus.models.connection_parameters")(
        rabbitmq_host=settings.isb_mesh_service.host,
        rabbitmq_port=settings.isb_mesh_service.port,
        rabbitmq_user=settings.isb_username,
        rabbitmq_pass=settings.isb_password,
        connection_name=f"{settings.otel_service_name}-producer",
    )


def retryer() -> Any:
    """Return how to connect: three attempts, some seconds apart."""
    return _class("ConnectionRetryerFactory")(
        delay_min=1, delay_max=5, backoff=1, jitter_min=1, jitter_max=3, attempts=3
    )


def exchange(name: str) -> Any:
    """Return an exchange."""
    return _class("Exchange")(name=name)


def _class(name: str, module: str = "talus") -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        msg = f"{name} is a class of talus, which is not installed here: install it with pip install talus"
        raise ImportError(msg, name="talus") from error
