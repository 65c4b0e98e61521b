"""
The one door to the engine: Python source that was rendered for Airflow, executed where Airflow is installed.

Not here: the source (bash_operator, rendering). No workflow needs Airflow to be run here, or exported.
"""

from typing import Any

from dkist_processing_core.errors import EngineMissingError

_ENGINE = "airflow"


def execute(source: str, name: str) -> dict[str, Any]:
    """
    Execute a rendered source and return its names; tracebacks call it `name`.

    Raises
    ------
    EngineMissingError
        where Airflow, or the part of it that the source uses, is not installed.

    """
    code = compile(source, name, "exec")
    names: dict[str, Any] = {"__name__": name}
    try:
        exec(code, names)  # noqa: S102 - rendered by this package, from values
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != _ENGINE:
            raise
        msg = (
            f"{name} cannot be loaded: there is no module {error.name!r} here; "
            "install Airflow 3 with pip install 'dkist-processing-core[airflow]'"
        )
        raise EngineMissingError(msg) from error
    return names
