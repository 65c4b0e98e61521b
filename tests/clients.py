"""
Packages of workflows as clients write them, created in a test's folder. Not here: workflows that are run (pipelines).
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

TASKS = """
from dkist_processing_core import TaskBase, Workflow


class First(TaskBase):
    def run(self) -> None:
        pass


class Second(First):
    pass
"""


def workflow(name: str, *, variable: str = "workflow", version: str = "1.0", package: str = "__package__") -> str:
    """
    Return the source of a workflow of two tasks.
    """
    return f"""
{variable} = Workflow(
    process_category="scratch", process_name="{name}", workflow_package={package}, workflow_version="{version}"
)
{variable}.add_node(First)
{variable}.add_node(Second, upstreams=First)
"""


def module(*names: str, version: str = "1.0") -> str:
    """
    Return the source of a module that defines workflows of these names.
    """
    return TASKS + "".join(workflow(name, variable=name, version=version) for name in names)


def write_package(folder: Path, files: Mapping[str, str], name: str = "scratch") -> Path:
    """
    Write the modules of a package, by their paths in it, and return its folder.
    """
    package = folder / name
    for path, source in {"__init__.py": "", **files}.items():
        file = package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return package


def project(package: str, version: str, **extras: str) -> str:
    """
    Return the pyproject.toml of a package that needs the library, with one requirement for each extra.
    """
    optional = "\n".join(f'{name} = ["{requirement}"]' for name, requirement in extras.items())
    return f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{package.replace("_", "-")}"
version = "{version}"
dependencies = ["dkist-processing-core"]

[project.optional-dependencies]
{optional}

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


@contextmanager
def importing(folder: Path, name: str = "scratch") -> Iterator[ModuleType]:
    """
    Yield a package of a folder, and remove its modules afterwards.
    """
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for each in set(sys.modules) - known:
            if each.partition(".")[0] in {name.partition(".")[0], "elsewhere"}:
                del sys.modules[each]
