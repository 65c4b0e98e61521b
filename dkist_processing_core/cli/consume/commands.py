"""
`dkist-core consume`: run a consumer that acts on events.

Not here: the consumer itself, which is imported when the command is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
import logging
from typing import Annotated

import typer


def _checked_since(text: str) -> str:
    from dkist_processing_core.cli.since import since_option

    since_option(text)
    return text


def checked_health(text: str) -> str:
    """Return a user's address of a service's health unchanged; raise an error for one that cannot be used."""
    return _checked(text, "health")


def checked_listen(text: str) -> str:
    """Return a user's address of a service's metrics unchanged; raise an error for one that cannot be used."""
    return _checked(text, "listen")


def _checked(text: str, what: str) -> str:
    from dkist_processing_core.metrics.serving import address_of

    try:
        address_of(text, what)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def check_one_address(health: str | None, listen: str | None) -> None:
    """Raise an error if a user has given both addresses."""
    if health is not None and listen is not None:
        raise typer.BadParameter(
            "found --health and --listen, expected one of them: --listen serves the health as well"
        )


def consume(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CONSUMER",
            help="The module, or a script as path/to/script.py, and the name of the consumer in it. If the module has "
            "only one consumer, the name is optional.",
            show_default=False,
        ),
    ],
    *,
    since: Annotated[
        str | None,
        typer.Option(
            parser=_checked_since,
            metavar="SINCE",
            help="Also take in the past events since then that the bus still has, each once: 30m, 2h or 7d ago, today, "
            "a time such as 2026-11-22T09:00, or first.",
        ),
    ] = None,
    until_idle: Annotated[
        bool,
        typer.Option("--until-idle", help="End when no event is left on the bus, and none is due."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="The number of threads that call handlers, instead of the consumer's.",
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            parser=checked_health,
            metavar="[HOST:]PORT",
            help="Answer requests over HTTP about the health of the consumer, by default from this host only: with "
            "status 200, or 503 while the bus or the database cannot be used.",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            parser=checked_listen,
            metavar="[HOST:]PORT",
            help="Serve the metrics for Prometheus at /metrics, and the health at each other path. It takes the place "
            "of --health.",
        ),
    ] = None,
) -> None:
    """
    Run a consumer until SIGTERM or Ctrl-C.

    Events that are being handled are then finished, and the exit code is 0. A bus or a database that cannot be reached
    is waited for. The exit code is 1 if one of them refuses the consumer, 2 if there is no such consumer.
    """
    from dkist_processing_core.cli import output
    from dkist_processing_core.cli.targets import load_consumer
    from dkist_processing_core.text.terminal import interrupt_ends

    output.do_without_output()
    # A service's log has its start and its end, and the end of an outage.
    logging.getLogger("dkist_processing_core.consumer").setLevel(logging.INFO)
    consumer = load_consumer(target)
    check_one_address(health, listen)
    with interrupt_ends():
        consumer.run(since=since, until_idle=until_idle, workers=workers, health=health, listen=listen)
