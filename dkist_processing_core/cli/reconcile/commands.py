"""
`dkist-core reconcile`: the ends of runs that no callback of Airflow reported.

Not here: the implementation, which the command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

from dkist_processing_core.cli.run_ids import complete_workflow_name


def reconcile(
    *,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            metavar="NAME",
            help="Only runs of this workflow, or with * and ? of those whose names match.",
            show_default=False,
            autocompletion=complete_workflow_name,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published, and publish nothing.")] = (
        False
    ),
    all_gone: Annotated[
        bool,
        typer.Option(
            "--all-gone",
            help="Also end runs that Airflow does not know if it knows none of the runs in the store, as after the "
            "loss of its database. By default such an Airflow may be the wrong one.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead.")] = False,
) -> None:
    """
    Publish the ends of runs that no callback reported.

    Airflow's REST API is asked about each run of an engine that has no end in the store: a run may have been marked by
    hand or deleted, its callback may be lost. An end is published if Airflow regards the run as over for a minute, and
    the bus does not have it. Failed tasks of runs that ended within 7 days are also announced by the failure message of
    release 7.x, `recipe.run.failure`, unless they were before.

    The settings are DKIST_CORE_AIRFLOW_URL, and DKIST_CORE_AIRFLOW_USERNAME and
    DKIST_CORE_AIRFLOW_PASSWORD, or DKIST_CORE_AIRFLOW_TOKEN_FILE. The exit code is 1 if Airflow did not answer about
    every run.
    """
    from dkist_processing_core.cli.reconcile.once import reconcile_once

    raise typer.Exit(reconcile_once(workflow, dry_run=dry_run, all_gone=all_gone, as_json=as_json))
