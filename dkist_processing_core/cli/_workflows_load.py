"""
Load a package by its name.

Not here: the search for its workflows (build_utils).
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import typer

from dkist_processing_core.build_utils.find import imported


def load_package(name: str) -> ModuleType:
    """
    Import and return the package of this name; as with `python -m`, the current folder comes first.

    Raises:
        typer.BadParameter: There is no package of this name.
        WorkflowError: The package exists, but cannot be imported.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise typer.BadParameter(f"found {name!r}, expected the name of a package, as my_pipeline.workflows")
    folder = str(Path.cwd())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    # The outer packages first: they are imported before the inner ones, and any of them may be missing.
    for at in range(1, len(parts) + 1):
        outer = ".".join(parts[:at])
        if outer not in sys.modules and importlib.util.find_spec(outer) is None:
            places = f"the current folder ({folder}) nor an installed package or PYTHONPATH"
            raise typer.BadParameter(f"there is no package {outer!r}: neither in {places}")
        module = imported(outer)
        if at < len(parts) and not hasattr(module, "__path__"):
            raise typer.BadParameter(f"{outer} is a module, not a package: it has no {parts[at]!r} inside")
    return module
