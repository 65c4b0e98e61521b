"""
The settings, as authors import them: the settings class, which pipelines subclass, and `core_configurations`.

Both are created on first use, which imports pydantic and reads the settings. Not here: the parts of the settings
(settings).
"""

from typing import TYPE_CHECKING, Any

from dkist_processing_core.errors import ConfigurationError

if TYPE_CHECKING:
    from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration
    from dkist_processing_core.settings.retries import RetryConfig
    from dkist_processing_core.settings.services import UNKNOWN_SERVICE, MeshService

    core_configurations: DKISTProcessingCoreConfiguration

__all__ = [
    "UNKNOWN_SERVICE",
    "ConfigurationError",
    "DKISTProcessingCoreConfiguration",
    "MeshService",
    "RetryConfig",
    "core_configurations",
]


def __getattr__(name: str) -> Any:
    """Return a public name; it is imported or created on first use."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from dkist_processing_core.settings import configuration, services  # noqa: PLC0415 - pydantic costs a task 0.1 s

    if name == "core_configurations":
        globals()[name] = configuration.DKISTProcessingCoreConfiguration()
    else:
        globals()[name] = getattr(services if hasattr(services, name) else configuration, name)
    return globals()[name]


def __dir__() -> list[str]:
    """Return the public names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
