"""
`dkist-core run`, `timeline` and `stack`: the commands about one run of a workflow.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

from dkist_processing_core.cli.run_ids import BY_RUN_ID, complete_run_id, complete_task_name, complete_workflow_name


def _recipe_run_id(text: str) -> int:
    from dkist_processing_core.errors import IdentityError
    from dkist_processing_core.identity import parse_recipe_run_id

    try:
        return parse_recipe_run_id(text)
    except IdentityError as error:
        raise typer.BadParameter(str(error)) from None


def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:WORKFLOW",
            help="The module, or a script as path/to/script.py, and the name of the workflow in it. If the module has "
            "only one workflow, the name is optional.",
            show_default=False,
        ),
    ],
    *,
    recipe_run_id: Annotated[
        int,
        typer.Option(parser=_recipe_run_id, metavar="N", help="The recipe run to process.", show_default=False),
    ],
    max_parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The maximum number of tasks that run at the same time; by default the number of processors.",
        ),
    ] = None,
    environments: Annotated[
        bool,
        typer.Option(
            "--environments",
            help="Run each task in an environment with the release that the workflow's package and version name.",
        ),
    ] = False,
) -> None:
    """
    Run a workflow on this host, with one process for each task.

    The exit code is 0 if all tasks finished, 1 if the run failed, 2 if there is no such workflow, 130 after Ctrl-C.
    """
    from dkist_processing_core.cli.output import do_without_output
    from dkist_processing_core.cli.targets import load_workflow

    do_without_output()

    result = load_workflow(target).run(recipe_run_id, max_parallel=max_parallel, environments=environments)
    if not result:
        raise typer.Exit(1)


def timeline(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_ID",
            help=f"The run, {BY_RUN_ID}; by default the latest run.",
            show_default=False,
            autocompletion=complete_run_id,
        ),
    ] = None,
    *,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            metavar="NAME",
            help="Draw a run of this workflow: runs of several workflows in Airflow may have the same id.",
            show_default=False,
            autocompletion=complete_workflow_name,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the state of the run as JSON instead.")] = False,
) -> None:
    """
    Draw a run on a time axis.

    Each attempt of a task has a bar with its times of waiting, preparation and running. The cause of a failure is below
    the bar. If the broker cannot be reached, the run is drawn from the events of this host that wait for it, and the
    exit code is 1.
    """
    from dkist_processing_core.cli.runs.timeline import show_timeline

    show_timeline(run_id, workflow=workflow, as_json=as_json)


def stack(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID",
            help=f"The run, {BY_RUN_ID}.",
            show_default=False,
            autocompletion=complete_run_id,
        ),
    ],
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="The task of which an attempt runs on this host.",
            show_default=False,
            autocompletion=complete_task_name,
        ),
    ],
) -> None:
    """
    Show where a running attempt is.

    The attempt runs on this host. It is shown with its phase, its progress, and the stacks of its threads as its
    process recorded them last: each half second, unless native code holds the interpreter. The process is not stopped.
    If py-spy is installed, its stacks with the frames of native code follow, for which it stops the process a moment.
    """
    from dkist_processing_core.cli.runs.stack import show_stack

    show_stack(run_id, task)
