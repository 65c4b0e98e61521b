"""
`dkist-core watch`: keep the store of runs, find what is not reported, and notify people.

Not here: the watcher itself (watch.service), which is imported when the command is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from dkist_processing_core.cli.serving import Health, Listen, check_one_address


def _duration(text: str) -> timedelta:
    from dkist_processing_core.consumer.since import duration_of

    found = duration_of(text)
    if found is None:
        raise typer.BadParameter(f"found {text!r}, expected a number followed by s, m, h or d, for example 90s or 1h")
    return found


def _interval(text: str) -> timedelta:
    return timedelta() if text == "0" else _duration(text)


def watch(
    *,
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FILE",
            help="The file of the starts of runs that are expected, instead of DKIST_CORE_EXPECT.",
            show_default=False,
        ),
    ] = None,
    notify: Annotated[
        Path | None,
        typer.Option(
            "--notify",
            metavar="FILE",
            help="The file of the routes by which people are notified, instead of DKIST_CORE_NOTIFY.",
            show_default=False,
        ),
    ] = None,
    idle_after: Annotated[
        timedelta,
        typer.Option(
            "--idle-after",
            parser=_duration,
            metavar="DURATION",
            help="The time without a report after which a run is overdue that neither runs an attempt nor ends.",
        ),
    ] = "1h",  # type: ignore[assignment] # the parser reads it
    reconcile_every: Annotated[
        timedelta,
        typer.Option(
            "--reconcile-every",
            parser=_interval,
            metavar="DURATION",
            help="How often Airflow is asked about runs whose end is missing, if DKIST_CORE_AIRFLOW_URL names it; 0 "
            "for never.",
        ),
    ] = "5m",  # type: ignore[assignment] # the parser reads it
    health: Health = None,
    listen: Listen = None,
) -> None:
    """
    Find what is not reported, and notify people.

    The command keeps the store of runs up to date, as `collect` does. It publishes task.overdue and workflow.overdue
    for attempts and runs without a sign of life and for runs that have not started although they were expected. It asks
    Airflow for ends that no callback reported. It ends at SIGTERM or Ctrl-C. A bus or a database that cannot be
    reached is waited for.
    """
    from dkist_processing_core.cli.watch.watch import watch_until_ended

    check_one_address(health, listen)
    watch_until_ended(
        expect=expect,
        notify=notify,
        idle_after=idle_after.total_seconds(),
        reconcile_every=reconcile_every.total_seconds(),
        health=health,
        listen=listen,
    )
