"""
`dkist-core dashboard`: keep the store of runs, and serve pages about it.

Not here: the dashboard itself (dashboard.service), which is imported when the command is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    *,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The address to listen on, instead of DKIST_CORE_DASHBOARD_HOST, by default that of this host alone. "
            "Any other one needs --token-file, or --user-header with --trusted-proxy.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="The port, instead of DKIST_CORE_DASHBOARD_PORT, by default 8088; 0 for a free one.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database of the store of runs, instead of DKIST_CORE_INBOX.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let nothing be changed by pages or by programs.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file of the token of operators, who may also retry and discard dead letters.",
            show_default=False,
        ),
    ] = None,
    read_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file of the token of readers, people and programs that only look.",
            show_default=False,
        ),
    ] = None,
    user_header: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The header by which a reverse proxy names a user who is logged in; these users are operators.",
            show_default=False,
        ),
    ] = None,
    trusted_proxies: Annotated[
        list[str],
        typer.Option(
            "--trusted-proxy",
            metavar="ADDRESS",
            help="The address, or the network, of a reverse proxy whose headers are trusted; may be given more than "
            "once.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    trace_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The address of a trace, with {trace_id} and {span_id}, for links to traces.",
            show_default=False,
        ),
    ] = None,
    log_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The address of the log of an attempt, with {workflow}, {version}, {run_id}, {task} and {attempt}, "
            "for attempts that report none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Serve pages about the runs and the bus.

    The command keeps the store of runs up to date, as `collect` does. A token is requested by the page to log in;
    programs send it in the header `Authorization: Bearer TOKEN`. Each option has a setting DKIST_CORE_DASHBOARD_*. The
    command ends at SIGTERM or Ctrl-C. A bus or a database that cannot be reached is waited for.
    """
    from dkist_processing_core.cli.dashboard.dashboard import serve_until_ended

    serve_until_ended(
        store,
        host=host,
        port=port,
        is_read_only=read_only,
        token_file=token_file,
        read_token_file=read_token_file,
        user_header=user_header,
        trusted_proxies=trusted_proxies,
        trace_url=trace_url,
        log_url=log_url,
    )
