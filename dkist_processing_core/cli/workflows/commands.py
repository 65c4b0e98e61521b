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
        help="The package whose modules define workflows, as it is imported; the current folder is looked in first.",
        show_default=False,
    ),
]


@workflows_app.command("validate")
def workflows_validate(package: Package) -> None:
    """
    Check each workflow of a package before it is released.

    It must have tasks and no cycle, and export to a file that compiles and, where Airflow is installed, loads. Nothing
    is written. The exit code is 0 if nothing is wrong, 1 if something is, 2 if there is no such package.
    """
    from dkist_processing_core.cli.workflows.check import validate

    if not validate(package):
        raise typer.Exit(1)


@workflows_app.command("export")
def workflows_export(
    package: Package,
    *,
    path: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to; it is made if need be.", show_default=True)
    ] = Path("dags"),
    as_zip: Annotated[
        bool, typer.Option("--zip", help="Write one archive, PACKAGE_VERSION.zip, instead of a file for each workflow.")
    ] = False,
) -> None:
    """
    Write each workflow of a package as a DAG for Airflow.

    Nothing is written if one of them cannot be exported; what is there is replaced whole. Airflow reads the files from
    its DAGs folder, into which an archive is unpacked. The same workflows give the same bytes.
    """
    from dkist_processing_core.cli.workflows.check import export

    export(package, path, as_zip=as_zip)


@workflows_app.command("notebooks")
def workflows_notebooks(
    package: Package,
    *,
    path: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to; it is made if need be.", show_default=True)
    ] = Path("notebooks"),
    dockerfile: Annotated[
        bool,
        typer.Option(
            "--dockerfile", help="Write the Dockerfile of a worker that serves them, too, into the current folder."
        ),
    ] = False,
) -> None:
    """
    Write each workflow of a package as a Jupyter notebook.

    It is for processing by hand: a cell for the recipe run id, then one for each task in dependency order. Nothing
    is written over that somebody has worked with, and nothing is written if one of them cannot be exported.
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
    Draw the tasks of each workflow, and what waits for what.

    Tasks stand in an order in which they can run. A line that reaches a task from above or from the left comes from
    what it waits for; one that leaves it below or to the right leads to what waits for it.
    """
    from dkist_processing_core.cli.workflows.show import show

    show(package, workflow, as_mermaid=mermaid)
