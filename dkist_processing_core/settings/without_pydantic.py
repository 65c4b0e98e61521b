"""
The settings read without pydantic, whose import takes as long as all other work of a task's process.

A source that needs interpretation, or is wrong, is left to the settings class. Not here: the declarations, and the
choice between the two (reading).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkist_processing_core.settings.addresses import ISB_SERVICE, Address
from dkist_processing_core.settings.credentials import OPT_IN, objection
from dkist_processing_core.settings.declaration import Declaration
from dkist_processing_core.settings.declarations import DECLARATIONS
from dkist_processing_core.settings.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKER_HERE = Address("localhost", 5672)


class PlainSettings:
    """The settings of one process; the attributes are those of `Settings`."""

    def __init__(self, values: dict[str, Any], origin: Origin) -> None:
        """Store the values that the sources give; all other settings have their defaults."""
        vars(self).update({name: declared.default for name, declared in DECLARATIONS.items()} | values)
        self.model_fields_set = set(values)
        self.core_origin = origin

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # noqa: D105 - the attributes that the constructor sets

    def __iter__(self) -> "Iterator[tuple[str, Any]]":
        """Yield each setting's name and value."""
        return ((name, getattr(self, name)) for name in DECLARATIONS)

    @property
    def names_broker(self) -> bool:
        """Whether the bus is RabbitMQ; the embedded journal otherwise."""
        return ISB_SERVICE in self.mesh_config

    @property
    def isb_mesh_service(self) -> Address:
        """Where the broker is reached."""
        found: Address = self.mesh_config.get(ISB_SERVICE, BROKER_HERE)
        return found

    @property
    def cpu_count(self) -> int:
        """The number of processors that this process may use."""
        return processor_count()

    def absolute(self, path: Path) -> Path:
        """
        Return the absolute path of a setting's path, for the home and current folder of the settings' sources.

        Raises:
            LookupError: It is below a home or a folder that does not exist.
        """
        return Path(self.core_origin.absolute(str(path)))


def processor_count() -> int:
    """Return the number of processors that this process may use; from Python 3.13 on, `PYTHON_CPU_COUNT` sets it."""
    count = getattr(os, "process_cpu_count", None)
    return len(os.sched_getaffinity(0)) if count is None else count() or 1


def read_without_pydantic(origin: Origin) -> "PlainSettings | None":
    """Return the settings of an origin, or None if a source needs interpretation."""
    environ, dotenv = _set_in(origin.environ), _set_in(origin.dotenv)
    # A file must not decide whether it is trusted.
    dotenv.pop(OPT_IN, None)
    if origin.problem is not None or (dotenv and _is_refused(origin)):
        return None
    try:
        values = {name: _value(DECLARATIONS[name], text) for name, text in (dotenv | environ).items()}
    except (ValueError, RecursionError):
        return None
    return PlainSettings(values, origin)


def _set_in(variables: "dict[str, str] | dict[str, str | None]") -> dict[str, str]:
    """Return the settings among some variables, by their names in small letters; an empty one counts as not set."""
    # Of two spellings the later one counts, even if it is empty.
    lowered = {name.lower(): value for name, value in variables.items()}
    return {name: value for name, value in lowered.items() if value and name in DECLARATIONS}


def _is_refused(origin: Origin) -> bool:
    environ, dotenv = (
        {name.lower(): value for name, value in each.items()} for each in (origin.environ, origin.dotenv)
    )
    dotenv.pop(OPT_IN, None)
    return objection(environ, dotenv, (), origin.file) is not None


def _value(declared: Declaration, text: str) -> Any:
    # Python keeps bytes that are not UTF-8 as lone surrogates, which cannot be encoded.
    text.encode()
    value = declared.kind(text)
    bounds = declared.bounds
    size = len(value) if isinstance(value, str) else value
    least, most = bounds.get("min_length", bounds.get("ge")), bounds.get("max_length")
    if (least is not None and size < least) or (most is not None and size > most):
        msg = "out of bounds"
        raise ValueError(msg)
    return value
