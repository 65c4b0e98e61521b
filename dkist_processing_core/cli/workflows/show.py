"""
`dkist-core workflows show`: draw the workflows of a package.

Not here: the drawing of a workflow (draw.graph), and the syntax of Mermaid (draw.mermaid).
"""

import typer
from rich.text import Text

from dkist_processing_core.build_utils import extract_workflows_from_package
from dkist_processing_core.build_utils.find import no_workflow_message
from dkist_processing_core.cli.draw.graph import draw_workflow
from dkist_processing_core.cli.draw.mermaid import flowchart
from dkist_processing_core.cli.targets import load_package
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import write_line
from dkist_processing_core.workflow import Workflow


def show(package_name: str, requested: str | None, *, as_mermaid: bool) -> None:
    """Print the drawings of a package's workflows, or only of the one with this name."""
    package = load_package(package_name)
    workflows = extract_workflows_from_package(package)
    if not workflows:
        raise WorkflowError(no_workflow_message(package))
    if requested is not None:
        names = ", ".join(dict.fromkeys(workflow.workflow_name for workflow in workflows))
        workflows = [workflow for workflow in workflows if requested in (workflow.workflow_name, workflow.dag_name)]
        if not workflows:
            raise typer.BadParameter(f"{package_name} has no workflow {requested!r}; it has {names}")
    if as_mermaid:
        write_line("\n".join(flowchart(workflows)))
        return
    console = Terminal(highlight=False)
    width = console.columns
    for at, workflow in enumerate(workflows):
        if at:
            console.print()
        console.print_line(_heading(workflow))
        console.print()
        for line in draw_workflow(workflow, width=width, ascii_only=console.options.ascii_only):
            console.print(line, soft_wrap=True)


def _heading(workflow: Workflow) -> Text:
    size = f"{counted(len(workflow.nodes), 'task')}, {counted(len(workflow.graph.edges), 'edge')}"
    return Text.assemble((workflow.workflow_name, "bold"), f" {workflow.workflow_version}  ", (size, "dim"))
