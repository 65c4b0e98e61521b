"""
Find the workflows of a package, and validate them.

Not here: the checks of one workflow (check), and the export of all (exports).
"""

import logging
from pathlib import Path
from types import ModuleType

from dkist_processing_core.build_utils.check import check_workflows, refuse
from dkist_processing_core.build_utils.exports import as_files
from dkist_processing_core.build_utils.find import find_workflows, name_clashes, no_workflow_message
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.export.files import folder_of, put_files
from dkist_processing_core.text import counted
from dkist_processing_core.workflow import Workflow

logger = logging.getLogger(__name__)


def extract_workflows_from_package(workflow_package: ModuleType) -> list[Workflow]:
    """
    Return the workflows that a package's public modules and its `__init__` module define.

    They are sorted by the names of the modules, with `__init__` last, and within a module in the order of definition.
    An imported workflow belongs to the module that defines it, and is omitted if another distribution defines it.

    Raises:
        WorkflowError: A module cannot be imported, or two workflows have the same name and version.
    """
    found = find_workflows(workflow_package)
    refuse([problem for _, problem in name_clashes(found)])
    return [each.workflow for each in found]


def validate_workflows(workflow_package: ModuleType, export_path: Path | str | None = None) -> None:
    """
    Check that every workflow of a package has tasks, has no cycle, and exports to a file that compiles and loads.

    Without Airflow the files cannot be loaded: a warning is logged, and only the other checks are done.

    Args:
        workflow_package: the package whose modules define workflows.
        export_path: the folder for the exported files if no problem is found; by default the files are not kept.

    Raises:
        WorkflowError: There are problems, or there is no workflow; the message lists all problems of all workflows.
    """
    found = find_workflows(workflow_package)
    if not found:
        raise WorkflowError(no_workflow_message(workflow_package))
    checked = check_workflows(found)
    refuse(
        [*(problem for _, problem in name_clashes(found)), *(problem for each in checked for problem in each.problems)]
    )
    unloaded = [each for each in checked if each.loaded is None]
    if unloaded:
        logger.warning(
            "Airflow is not installed: the loading of the workflows of %s was not checked (%s); "
            "all other checks passed",
            workflow_package.__name__,
            counted(len(unloaded), "workflow"),
        )
    if export_path is not None:
        put_files(folder_of(export_path), as_files({each.found.workflow.dag_name: each.content for each in checked}))
