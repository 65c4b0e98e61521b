"""
`dkist-core notify`: the commands about notices to people.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dkist_processing_core.cli.run_ids import complete_family, complete_workflow_name

notify_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_LONGEST_NAME = 250

RoutesFile = Annotated[
    Path | None,
    typer.Option(
        "--notify",
        metavar="FILE",
        help="The file of the routes, instead of that of DKIST_CORE_NOTIFY.",
        show_default=False,
    ),
]
Family = Annotated[
    str | None,
    typer.Argument(
        metavar="FAMILY",
        help="The family of failures, by 4 or more characters of its beginning.",
        show_default=False,
        autocompletion=complete_family,
    ),
]
OfWorkflow = Annotated[
    str | None,
    typer.Option(
        "--workflow",
        metavar="NAME",
        help="This workflow instead of a family.",
        show_default=False,
        autocompletion=complete_workflow_name,
    ),
]


def _duration(text: str) -> float:
    from dkist_processing_core.consumer.since import duration_of

    found = duration_of(text)
    if not found:
        raise typer.BadParameter(f"found {text!r}, expected a duration as 90s, 30m, 2h or 7d")
    return found.total_seconds()


def _moment(text: str) -> datetime:
    from dkist_processing_core.consumer.since import in_utc

    try:
        found = in_utc(datetime.fromisoformat(text))
    except ValueError:
        found = None
    if found is None or found <= datetime.now(UTC):
        raise typer.BadParameter(f"found {text!r}, expected a time in the future as 2026-11-30T09:00")
    return found


@notify_app.command("check")
def notify_check(*, routes_file: RoutesFile = None) -> None:
    """
    Check the routes and their secrets, and list them.

    Nothing is sent. The exit code is 1 if a field is wrong or a secret is missing.
    """
    from dkist_processing_core.cli.notify.routes import check

    check(routes_file)


@notify_app.command("test")
def notify_test(
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The name of the route.", show_default=False)],
    *,
    routes_file: RoutesFile = None,
) -> None:
    """
    Send a sample to the receiver of a route, and report its answer.

    The exit code is 1 if it was not delivered. It is not tried again.
    """
    from dkist_processing_core.cli.notify.routes import send_sample

    send_sample(route, routes_file)


@notify_app.command("mute")
def notify_mute(
    family: Family = None,
    *,
    workflow: OfWorkflow = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            parser=_moment,
            metavar="TIME",
            help="Until then, such as 2026-11-30T09:00; without a zone it is local time.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", parser=_duration, metavar="DURATION", help="For so long: 90s, 30m, 2h or 7d.", show_default=False
        ),
    ] = None,
) -> None:
    """
    Send no notice about a family or a workflow until a time.

    What occurs meanwhile is counted, and stated in the next summary afterwards. Of overlapping mutes, each lasts until
    its own end. A further mute of the same family or workflow replaces the former one.
    """
    from dkist_processing_core.cli.notify.muting import mute

    if (until is None) == (seconds is None):
        raise typer.BadParameter("expected either --until or --for")
    _check_one(family, workflow)
    mute(family, workflow, until=until, seconds=seconds)


@notify_app.command("unmute")
def notify_unmute(family: Family = None, *, workflow: OfWorkflow = None) -> None:
    """
    End a mute before its time.

    The exit code is 1 if there is none.
    """
    from dkist_processing_core.cli.notify.muting import unmute

    _check_one(family, workflow)
    unmute(family, workflow)


@notify_app.command("mutes")
def notify_mutes(*, as_json: Annotated[bool, typer.Option("--json", help="Write the list as JSON.")] = False) -> None:
    """List what is muted, and until when."""
    from dkist_processing_core.cli.notify.muting import show_mutes

    show_mutes(as_json=as_json)


def _check_one(family: str | None, workflow: str | None) -> None:
    if (family is None) == (workflow is None):
        raise typer.BadParameter("expected either a family of failures or --workflow")
    if len(family or workflow or "") > _LONGEST_NAME:
        raise typer.BadParameter(f"expected a name of at most {_LONGEST_NAME} characters")
