"""
`dkist-core outbox`: the commands about what waits on this host for a broker.

Not here: what they do, which each imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

outbox_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@outbox_app.command("drain")
def outbox_drain(
    *,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="Give up after so long, whatever happens.", show_default=False),
    ] = None,
) -> None:
    """
    Deliver now what waits in the outbox of the settings.

    Also what processes that were killed have left, and also where the broker could not be reached a moment ago. Ends
    when nothing waits any more, or with what the broker says; while another process delivers it is waited for. The exit
    code is 0 if everything was delivered, 1 if something still waits or was set aside just now, 130 after Ctrl-C.
    """
    from dkist_processing_core.cli._outbox_drain import deliver

    raise typer.Exit(deliver(timeout))
