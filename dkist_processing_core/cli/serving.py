"""
The options of the commands that run as a service: where they serve their health and their metrics.

Not here: the server (metrics.serving).
"""

from typing import Annotated, Any

import typer

_ADDRESS = "[HOST:]PORT"


def _checked(text: str, what: str) -> str:
    # Imported for these options alone: the help must not take seconds.
    from dkist_processing_core.metrics.serving import address_of  # noqa: PLC0415

    try:
        address_of(text, what)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def _checked_health(text: str) -> str:
    return _checked(text, "health")


def _checked_listen(text: str) -> str:
    return _checked(text, "listen")


def listen_option(help_text: str) -> Any:
    """Return the option `--listen` with its help; its value is a usable address, as the user wrote it."""
    return typer.Option(parser=_checked_listen, metavar=_ADDRESS, help=help_text, show_default=False)


Health = Annotated[
    str | None,
    typer.Option(
        parser=_checked_health,
        metavar=_ADDRESS,
        help="Answer requests over HTTP about the health of the service, by default from this host only: with status "
        "200, or 503 while the bus or the database cannot be used.",
        show_default=False,
    ),
]
Listen = Annotated[
    str | None,
    listen_option(
        "Serve the metrics for Prometheus at /metrics, and the health at each other path. It takes the place of "
        "--health."
    ),
]


def check_one_address(health: str | None, listen: str | None) -> None:
    """Raise an error if a user has given both addresses."""
    if health is not None and listen is not None:
        raise typer.BadParameter(
            "found --health and --listen, expected one of them: --listen serves the health as well"
        )
