"""
Export the workflows of a package: as DAGs, as one archive, as notebooks, or as notebooks with a Dockerfile.

Not here: the search for workflows (find), and the contents of the files (workflow, _archive, _dockerfile).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from dkist_processing_core.build_utils._archive import archive_name, archived
from dkist_processing_core.build_utils._dockerfile import category_of, inside_context, render_dockerfile
from dkist_processing_core.build_utils.check import Form, content_of, refuse
from dkist_processing_core.build_utils.find import Found, find_workflows, name_clashes, no_workflow_message
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.export.files import folder_of, put_files, put_new_file
from dkist_processing_core.export.notebook_file import put_notebooks

logger = logging.getLogger(__name__)


def export_dags(workflow_package: ModuleType, path: Path | str) -> list[Path]:
    """
    Export every workflow of a package into a folder, and return the paths of the files.

    No file is written if one of the workflows cannot be exported.

    Raises:
        WorkflowError: A workflow cannot be exported; the message names each such workflow.
    """
    return put_files(folder_of(path), as_files(_contents(_found_in(workflow_package))))


def export_archive(workflow_package: ModuleType, path: Path | str) -> Path:
    """
    Export every workflow of a package into one archive, `{package}_{version}.zip` in a folder, and return its path.

    If the archive is unpacked into Airflow's DAGs folder, its files are in a folder of the same name. The same
    workflows give the same bytes.

    Raises:
        WorkflowError: There is no workflow, the workflows have several versions, or one of them cannot be exported.
    """
    found = find_workflows(workflow_package)
    if not found:
        raise WorkflowError(no_workflow_message(workflow_package))
    name = archive_name(workflow_package.__name__, found)
    (file,) = put_files(folder_of(path), {f"{name}.zip": archived(_contents(found), name)})
    return file


def export_notebooks(workflow_package: ModuleType, path: Path | str) -> list[Path]:
    """
    Export every workflow of a package as a notebook into a folder, and return the paths of the files.

    No file is written if one of the workflows cannot be exported, or if a notebook was changed or run after its export.

    Raises:
        WorkflowError: A workflow cannot be exported, or a notebook would be overwritten; the message names each such
            workflow or file.
    """
    return _put_notebooks(_found_in(workflow_package), folder_of(path))


def export_notebook_dockerfile(workflow_package: ModuleType, path: Path | str) -> Path:
    """
    Export a package's notebooks, and the `Dockerfile` of a worker for processing by hand; return the Dockerfile's path.

    The Dockerfile is written into the current folder, which is the folder of the package's project and in which the
    image is built. The notebooks are written into the folder `path` below it. The image holds the package with every
    extra that its tasks need. It serves the notebooks with JupyterLab at `/mpw-{category}/`, port 8888. No file is
    overwritten, and no file is written if there is any error.

    Raises:
        WorkflowError: The folder is not below the current one, a Dockerfile exists already, the workflows have several
            categories, or as for `export_notebooks`.
    """
    found = find_workflows(workflow_package)
    category, folder, dockerfile = (
        category_of(workflow_package.__name__, found),
        inside_context(folder_of(path)),
        Path("Dockerfile"),
    )
    if dockerfile.exists() or dockerfile.is_symlink():
        msg = f"there is a Dockerfile in {Path.cwd()} already, which is not overwritten; move it"
        raise WorkflowError(msg)
    if not any(Path(name).exists() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
        logger.warning("%s is not the folder of a project: `pip install .` will fail in the image", Path.cwd())
    # The extra `frozen` is left out, since it also pins the release itself: an image may be built from unreleased code.
    extras = dict.fromkeys(extra for each in found for node in each.workflow.nodes for extra in node.pip_extras)
    notebooks = [folder / f"{each.workflow.dag_name}.ipynb" for each in found]
    put_new_file(dockerfile, render_dockerfile(category, notebooks, list(extras)).encode())
    try:
        _put_notebooks(found, Path(folder))
    except BaseException:
        dockerfile.unlink()
        raise
    return dockerfile


def as_files(contents: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of DAGs by file name, from their sources by DAG name."""
    return {f"{dag_name}.py": content.encode() for dag_name, content in contents.items()}


def _found_in(workflow_package: ModuleType) -> list[Found]:
    found = find_workflows(workflow_package)
    if not found:
        logger.warning("nothing is exported: %s", no_workflow_message(workflow_package))
    return found


def _put_notebooks(found: list[Found], folder: Path) -> list[Path]:
    contents = _contents(found, "notebook")
    return put_notebooks(folder, {f"{dag_name}.ipynb": text for dag_name, text in contents.items()})


def _contents(found: list[Found], form: Form = "dag") -> dict[str, str]:
    problems, contents = [problem for _, problem in name_clashes(found)], {}
    for each in found:
        try:
            contents[each.workflow.dag_name] = content_of(each, form)
        except WorkflowError as error:
            problems.append(str(error))
    refuse(problems)
    return contents
