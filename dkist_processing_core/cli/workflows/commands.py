"""
`dkist-core workflows`: the commands about the workflows that a package defines.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from pathlib import Path
from typing import Annotated

import typer

workflows_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Package = Annotated[
    str,
    typer.Argument(
        metavar="PACKAGE",
        help="The import name of the package whose modules define workflows; the current folder is searched first.",
        show_default=False,
    ),
]


@workflows_app.command("validate")
def workflows_validate(package: Package) -> None:
    """
    Check each workflow of a package before its release.

    A workflow must have tasks and no cycle, and its exported file must compile. If Airflow is installed, the file must
    also load. No file is written. The exit code is 0 if there is no problem, 1 if there is one, 2 if there is no such
    package.
    """
    from dkist_processing_core.cli.workflows.check import validate

    if not validate(package):
        raise typer.Exit(1)


@workflows_app.command("export")
def workflows_export(
    package: Package,
    *,
    path: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="The folder for the files; it is created if it does not exist.", show_default=True
        ),
    ] = Path("dags"),
    as_zip: Annotated[
        bool,
        typer.Option("--zip", help="Write one archive, PACKAGE_VERSION.zip, instead of one file for each workflow."),
    ] = False,
) -> None:
    """
    Write each workflow of a package as a DAG for Airflow.

    If one workflow cannot be exported, no file is written. An existing file is replaced as a whole. Airflow reads the
    files from its DAGs folder; unpack an archive there. The same workflows give the same bytes.
    """
    from dkist_processing_core.cli.workflows.check import export

    export(package, path, as_zip=as_zip)


@workflows_app.command("notebooks")
def workflows_notebooks(
    package: Package,
    *,
    path: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="The folder for the files; it is created if it does not exist.", show_default=True
        ),
    ] = Path("notebooks"),
    dockerfile: Annotated[
        bool,
        typer.Option(
            "--dockerfile",
            help="Also write the Dockerfile of a worker that serves the notebooks, into the current folder.",
        ),
    ] = False,
) -> None:
    """
    Write each workflow of a package as a Jupyter notebook.

    A notebook is for processing by hand. It has a cell for the recipe run id, then one cell for each task in dependency
    order. A notebook that was changed or run after its export is not overwritten. In this case, or if one workflow
    cannot be exported, no file is written.
    """
    from dkist_processing_core.cli.workflows.check import export_notebooks

    export_notebooks(package, path, with_dockerfile=dockerfile)


@workflows_app.command("show")
def workflows_show(
    package: Package,
    *,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Show only this workflow.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Write a Mermaid flowchart instead.")] = False,
) -> None:
    """
    Draw the tasks of each workflow and the edges between them.

    The tasks are in an order in which they can run. A line that enters a task from above or from the left comes from an
    upstream task. A line that leaves it below or to the right leads to a downstream task.
    """
    from dkist_processing_core.cli.workflows.show import show

    show(package, workflow, as_mermaid=mermaid)
