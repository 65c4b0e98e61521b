"""
`dkist-core events`: the commands that show new and past events.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from datetime import datetime
from typing import Annotated

import typer

from dkist_processing_core.cli.run_ids import BY_RUN_ID, complete_run_id, complete_task_name, complete_workflow_name
from dkist_processing_core.cli.since import since_option

events_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _event_names(incomplete: str) -> list[str]:
    from dkist_processing_core.cli.events.show import event_names

    return [name for name in event_names() if name.startswith(incomplete)]


def _checked_types(names: list[str]) -> list[str]:
    if names:
        from dkist_processing_core.cli.events.show import check_types

        check_types(names)
    return names


Types = Annotated[
    list[str],
    typer.Option(
        "--type",
        metavar="EVENT",
        help="Show only events of this type, for example task.failed; may be given more than once.",
        callback=_checked_types,
        autocompletion=_event_names,
    ),
]
OfWorkflow = Annotated[
    str | None,
    typer.Option(
        "--workflow",
        metavar="NAME",
        help="Show only events of this workflow.",
        autocompletion=complete_workflow_name,
    ),
]
OfTask = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="Show only events of this task.", autocompletion=complete_task_name),
]
OfRun = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN_ID",
        help=f"Show only events of this run, named {BY_RUN_ID}.",
        autocompletion=complete_run_id,
    ),
]
AllReports = Annotated[
    bool,
    typer.Option("--all-reports", help="Show all reports of an occurrence, instead of each occurrence once."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write each event as one line of JSON, as it is on the bus.")]


@events_app.command("tail")
def events_tail(
    *,
    types: Types = [],  # noqa: B006 - typer copies it
    workflow: OfWorkflow = None,
    task: OfTask = None,
    run: OfRun = None,
    all_reports: AllReports = False,
    as_json: AsJson = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Use a durable subscription of this name: the next call also shows the events published until then.",
        ),
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Start with the oldest event on the bus.")] = False,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait",
            help="End with exit code 1 if the broker cannot be reached at the start, instead of waiting for it.",
        ),
    ] = False,
) -> None:
    """
    Show new events, one per line, until Ctrl-C.
    """
    from dkist_processing_core.cli.events.show import Filters, tail

    if name is not None and replay:
        raise typer.BadParameter(
            "found --replay and --name: --replay starts with the oldest event, --name with the first that "
            "it has not shown; use only one of them"
        )
    tail(Filters(types, workflow, task, run, all_reports, as_json), name=name, replay=replay, waits=not no_wait)


@events_app.command("list")
def events_list(
    *,
    types: Types = [],  # noqa: B006 - typer copies it
    workflow: OfWorkflow = None,
    task: OfTask = None,
    run: OfRun = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=since_option,
            metavar="SINCE",
            help="Show only events since then: 30m, 2h or 7d ago, today, a time such as 2026-11-22T09:00, or first.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Show only the newest N events, the oldest of them first; 0 shows all. The default is 100 on a "
            "terminal, otherwise 0, also with --json.",
            show_default=False,
        ),
    ] = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="Of failed attempts, show only those that no other attempt follows, or of which that is not known.",
        ),
    ] = False,
    all_reports: AllReports = False,
    as_json: AsJson = False,
) -> None:
    """
    List the events that the bus still has, oldest first.

    Times are in the time zone of this host, and with --json in UTC.
    The bus keeps events for up to seven days. If the broker cannot be reached, the list has the events of this host
    that wait for it, and the exit code is 1.
    """
    from dkist_processing_core.cli.events.show import Filters, show_list

    filters = Filters(types, workflow, task, run, all_reports, as_json)
    show_list(filters, since=since, limit=limit, only_final=final)
