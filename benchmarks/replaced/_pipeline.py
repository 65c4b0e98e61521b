"""
A pipeline of eight tasks, as its author writes it for either release, and the file that each release exports.

Not here: looking at the exported file (_looks), and running its command (_worker).
"""

import ast
from pathlib import Path

from benchmarks.launch import MODULE, SOURCE, TASK, VERSION
from benchmarks.replaced._sides import ReplacedError, Side, run

TASKS = 8
FILES = {
    f"{MODULE}.py": SOURCE
    + "".join(f"\n\nclass Task{number}({TASK}):\n    pass\n" for number in range(2, TASKS + 1))
    + f"\n\nTASKS = [{TASK}, {', '.join(f'Task{number}' for number in range(2, TASKS + 1))}]\n"
}
_EXPORT = f"""
import sys
from {MODULE} import TASKS
from dkist_processing_core import Workflow
workflow = Workflow(
    input_data="l0", output_data="l1", category="bench", workflow_package="{MODULE}", workflow_version="{VERSION}"
)
for upstream, task in zip([None, *TASKS], TASKS):
    workflow.add_node(task, upstreams=upstream)
print(workflow.export_dag(sys.argv[1]))
"""
_RECIPE_RUN_ID = "{{dag_run.conf['recipe_run_id']}}"


def export(side: Side, folder: Path) -> Path:
    """Return the file that a release exports for the pipeline."""
    folder.mkdir()
    source = folder / "source"
    source.mkdir()
    for name, text in FILES.items():
        (source / name).write_text(text)
    said = run(
        *(side.python, "-P", "-c", _EXPORT, folder / "dags"),
        cwd=folder,
        PYTHONPATH=str(source),
        AIRFLOW_HOME=str(folder / "airflow"),
    )
    return Path(said.splitlines()[-1])


def command_of(exported: str) -> str:
    """Return the command of a file's first task as the replaced release has it, with a number for its recipe run."""
    commands = [
        keyword.value.value
        for node in ast.walk(ast.parse(exported))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "bash_command" and isinstance(keyword.value, ast.Constant)
    ]
    if not commands:
        raise ReplacedError("the exported file holds no command")
    command = str(commands[0]).replace(_RECIPE_RUN_ID, "1")
    if "{{" in command:
        raise ReplacedError(f"the command needs more than a recipe run id\n{command}")
    return command
