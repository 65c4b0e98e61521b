"""
The only import of Airflow, if it is installed: execute Python source that was rendered for it.

Not here: the source (bash_operator, rendering). Running a workflow locally and exporting it do not need Airflow.
"""

from typing import Any

from dkist_processing_core.errors import EngineMissingError

_ENGINE = "airflow"


def exec_dag_source(source: str, name: str) -> dict[str, Any]:
    """
    Execute a rendered source and return its global names; tracebacks show it as the file `name`.

    Raises:
        EngineMissingError: Airflow, or a part of it that the source uses, is not installed.
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
