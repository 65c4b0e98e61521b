"""
`dkist-core dashboard`: keep the store of runs, and serve pages about it.

Not here: the dashboard itself (dashboard.service), which is imported when the command is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer


def dashboard(
    *,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The address to listen on, by default that of this host alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port; 0 for a free one.")] = 8088,
) -> None:
    """
    Serve pages about the runs and the bus.

    The command keeps the store of runs up to date, as `collect` does. It ends at SIGTERM or Ctrl-C.
    """
    from dkist_processing_core.cli.dashboard.dashboard import serve_until_ended

    serve_until_ended(host=host, port=port)
