"""
`dkist-core workflows validate`, `export` and `notebooks`.

Not here: the checks and the files (build_utils), and the drawing (workflows.show).
"""

from dataclasses import replace
from pathlib import Path

from rich.text import Text

from dkist_processing_core import build_utils
from dkist_processing_core.build_utils.check import Checked, check_workflows
from dkist_processing_core.build_utils.find import find_workflows, name_clashes, no_workflow_message
from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.targets import load_package
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.runs import State
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import ATTENTION, Terminal
from dkist_processing_core.text.terminal import write_line


def validate(name: str) -> bool:
    """Print the checks of each workflow with the problems below it, and return True if there is no problem."""
    package = load_package(name)
    found = find_workflows(package)
    if not found:
        raise WorkflowError(no_workflow_message(package))
    console = Terminal(highlight=False)
    marks = (ASCII if console.options.ascii_only else UNICODE).marks
    clashes = list(name_clashes(found))
    checked = [
        replace(each, problems=[*each.problems, *(problem for other, problem in clashes if other is each.found)])
        for each in check_workflows(found)
    ]
    for each in checked:
        state = State.FAILED if each.problems else State.FINISHED
        mark = (f"{marks[state]} ", STYLES[state])
        console.print_line(Text.assemble(mark, _headline(each)))
        for problem in each.problems:
            console.print_line(Text(f"  {problem}", STYLES[State.FAILED]), 4)
    if any(not each.problems and each.loaded is None for each in checked):
        words = "not loaded: Airflow is not installed here; install dkist-processing-core[airflow] to check this"
        console.print_line(Text(words, ATTENTION))
    return not any(each.problems for each in checked)


def _headline(checked: Checked) -> str:
    workflow = checked.found.workflow
    tasks = counted(len(workflow.nodes), "task")
    done = "" if checked.problems else f": no cycle, exports, compiles{', loads' if checked.loaded else ''}"
    return f"{workflow.workflow_name} {workflow.workflow_version}, {tasks}{done}"


def export(name: str, folder: Path, *, as_zip: bool) -> None:
    """Export the workflows of a package, and print the paths of the written files."""
    package = load_package(name)
    if not find_workflows(package):
        raise WorkflowError(no_workflow_message(package))
    files = [build_utils.export_archive(package, folder)] if as_zip else build_utils.export_dags(package, folder)
    for file in files:
        write_line(str(file))


def export_notebooks(name: str, folder: Path, *, with_dockerfile: bool) -> None:
    """Export the workflows of a package as notebooks, and print the Dockerfile's path or those of all notebooks."""
    package = load_package(name)
    if not find_workflows(package):
        raise WorkflowError(no_workflow_message(package))
    if with_dockerfile:
        write_line(str(build_utils.export_notebook_dockerfile(package, folder)))
    for file in build_utils.export_notebooks(package, folder):
        write_line(str(file))
