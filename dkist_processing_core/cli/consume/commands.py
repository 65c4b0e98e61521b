"""
`dkist-core consume`: run a consumer that acts on events.

Not here: the consumer itself, which is imported when the command is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
import logging
from typing import Annotated

import typer

from dkist_processing_core.cli.serving import Health, Listen, check_one_address


def _checked_since(text: str) -> str:
    from dkist_processing_core.cli.since import since_option

    since_option(text)
    return text


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
    health: Health = None,
    listen: Listen = None,
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
