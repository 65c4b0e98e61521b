"""
The image for processing by hand: JupyterLab with a package's notebooks and the dependencies of its tasks.

Not here: the notebooks (export.rendering), nor building the image.
"""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from dkist_processing_core.build_utils.find import Found
from dkist_processing_core.errors import WorkflowError

_PORT = 8888
# By default JupyterLab saves a notebook every 120 s, which is longer than a task waits for it.
_SETTINGS = {"@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 10}}
# A file in one of the folders that JupyterLab searches for an administrator's settings, independent of its Python.
_SETTINGS_FILE = PurePosixPath("/etc/jupyter/labconfig/default_setting_overrides.json")


def category_of(package: str, found: Iterable[Found]) -> str:
    """
    Return the common category of a package's workflows, which identifies its workers for processing by hand.

    Raises:
        WorkflowError: The workflows have several categories, or there is no workflow.
    """
    categories = sorted({str(each.workflow.category) for each in found})
    if len(categories) != 1:
        several = f"workflows of several categories: {', '.join(categories)}" if categories else "no workflow"
        msg = f"a worker for processing by hand is for one category, and {package} defines {several}"
        raise WorkflowError(msg)
    return categories[0]


def inside_context(folder: Path) -> PurePosixPath:
    """
    Return a folder's path relative to the current folder, from which the image is built and its files are copied.

    Raises:
        WorkflowError: The folder is not inside the current one, from which alone files can be copied, or a Dockerfile
            would read its name as a pattern or a variable.
    """
    context = Path.cwd().resolve()
    # Links can lead out of the current folder, as well as `..`.
    place = folder.resolve()
    if not place.is_relative_to(context):
        msg = f"found the folder {folder} ({place}), expected {context}, where the image is built, or a folder below it"
        raise WorkflowError(msg)
    inside = place.relative_to(context)
    if forbidden := sorted(set(str(inside)) & set("*?[]$\\\n")):
        msg = (
            f"the folder {str(inside)!r} cannot be named in a Dockerfile: it contains {', '.join(map(repr, forbidden))}"
        )
        raise WorkflowError(msg)
    return PurePosixPath(inside.as_posix())


def render_dockerfile(category: str, notebooks: Sequence[PurePosixPath], extras: Sequence[str]) -> str:
    """
    Return a Dockerfile whose image serves notebooks at `/mpw-{category}/`, port 8888.

    The image is built in the folder of the package's project, with the version of the running Python.

    Args:
        category: the category of the workflows.
        notebooks: the paths of the notebooks, relative to the folder in which the image is built.
        extras: the extras of the package that its tasks need.

    """
    package = f".[{','.join(extras)}]" if extras else "."
    copies = [f"COPY {json.dumps([str(notebook), '/notebooks/'])}" for notebook in notebooks]
    command = [
        "jupyter",
        "lab",
        "--allow-root",
        "--no-browser",
        "--ServerApp.ip=0.0.0.0",
        f"--ServerApp.port={_PORT}",
        f"--ServerApp.base_url=/mpw-{category}/",
        "--ServerApp.root_dir=/notebooks",
        "--MappingKernelManager.cull_idle_timeout=300",
    ]
    lines = [
        f"FROM python:{sys.version_info.major}.{sys.version_info.minor}",
        "ENV LANG=C.UTF-8",
        "ENV IS_NOTEBOOK_EXECUTION_ENVIRONMENT=true",
        "COPY . /app",
        "WORKDIR /app",
        "RUN python -m pip install --upgrade pip",
        f"RUN python -m pip install {shlex.quote(package)}",
        # This is installed after the package, which may still require a release of this library that reports nothing.
        f"RUN python -m pip install 'dkist-processing-core[notebook]>={version('dkist-processing-core')}'",
        f"RUN mkdir -p {_SETTINGS_FILE.parent}",
        f"RUN echo {shlex.quote(json.dumps(_SETTINGS))} > {_SETTINGS_FILE}",
        *copies,
        f"EXPOSE {_PORT}",
        f"CMD {json.dumps(command)}",
    ]
    return "\n".join(lines) + "\n"
