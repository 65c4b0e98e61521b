"""
`dkist-core outbox`: the commands about messages on this host that wait for a broker.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

from dkist_processing_core.cli.serving import listen_option

outbox_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@outbox_app.command("list")
def outbox_list(
    *,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="List the messages that the broker refused, each with its reason.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the list as JSON.")] = False,
) -> None:
    """
    List the journals of this host and their numbers of messages.

    An outbox keeps the messages for one broker until this broker confirms them. The counts: published = confirmed +
    pending + set aside. A mark (● or >) shows the outbox of the current settings. Journals of telemetry follow, with
    their spans, metric points and log records. No file is changed. A journal that cannot be read is listed with the
    reason; the exit code is also 0 in this case.
    """
    if set_aside:
        from dkist_processing_core.cli.outbox.set_aside import show_set_aside

        show_set_aside(in_json=as_json)
    else:
        from dkist_processing_core.cli.outbox.listing import show

        show(in_json=as_json)


@outbox_app.command("drain")
def outbox_drain(
    *,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Stop after this time; the command may need up to one more second to end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Deliver the pending messages and telemetry of the settings now.

    These include the messages of killed processes. The command connects at once, even if the broker was unreachable a
    moment ago. It ends when no message is pending, or with the error of the broker. While another process delivers, the
    command waits for it. The exit code is 0 if all messages were delivered, 1 if messages are still pending or were set
    aside now, 130 after Ctrl-C. Messages that were set aside earlier are reported, but do not count. If the settings
    name no broker, the exit code is 1 if messages for any broker are pending. It is also 1 if telemetry is still
    pending, or if a collector has refused some now.
    """
    from dkist_processing_core.cli.outbox.delivery import deliver

    raise typer.Exit(deliver(timeout))


@outbox_app.command("relay")
def outbox_relay(
    *,
    listen: Annotated[
        str | None,
        listen_option(
            "Serve the metrics of delivery for Prometheus at /metrics, and the health at each other path: with status "
            "200, or 503 while nothing can be delivered. It needs the extra `consumer`."
        ),
    ] = None,
) -> None:
    """
    Deliver the outbox and the telemetry continuously.

    Run this command as a service: it delivers the messages, spans, metrics and log records that the processes of this
    host leave behind. If the folder, a file, the broker or a collector is not available, it waits without a limit. It
    logs each problem. SIGTERM or Ctrl-C ends it within two seconds, with exit code 0; the rest stays on disk.
    """
    from dkist_processing_core.cli.outbox.delivery import relay

    relay(listen)


Outbox = Annotated[
    str | None,
    typer.Option(
        "--outbox",
        metavar="OUTBOX",
        help="The outbox, if it is not the one of the settings: its eight hexadecimal digits, or its file.",
        show_default=False,
    ),
]


@outbox_app.command("retry")
def outbox_retry(
    numbers: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="NUMBER", help="The numbers of the messages, from `list --set-aside`.", show_default=False
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All messages that are set aside.")] = False,
    outbox: Outbox = None,
) -> None:
    """
    Make messages that are set aside pending again.

    The next publisher, drain or relay tries to deliver them. If a number is unknown, no message is changed and the exit
    code is 2.
    """
    if every == bool(numbers):
        raise typer.BadParameter("expected either the numbers of messages, from `list --set-aside`, or --all")
    from dkist_processing_core.cli.outbox.change import retry

    retry(numbers or None, outbox)


@outbox_app.command("retarget")
def outbox_retarget(
    outbox: Annotated[
        str, typer.Argument(metavar="OUTBOX", help="The other outbox: its eight hexadecimal digits, or its file.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """
    Move the messages of another outbox into this one.

    Use this if the broker of the other outbox has moved or will not return. All messages are moved, pending or set
    aside. Their exchanges become those of the settings. Nothing else changes. The command shows the numbers and asks
    for confirmation.
    """
    from dkist_processing_core.cli.outbox.change import retarget

    retarget(outbox, is_agreed=yes)
