"""
`dkist-core outbox`: the commands about messages on this host that wait for a broker.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer

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
    List the journals of this host and the books of each.

    An outbox holds what waits for one broker: published = confirmed + pending + set aside. The dot marks that of the
    present settings. No file is changed. A journal that cannot be read is listed with the reason, and is no error of
    the list: the exit code is 0.
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
            help="Give up after so long, whatever happens, plus up to a second to end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Deliver now what waits in the outbox of the settings.

    Also what processes that were killed have left, and also where the broker could not be reached a moment ago. Ends
    when nothing waits any more, or with what the broker says; while another process delivers it is waited for. The exit
    code is 0 if everything was delivered, 1 if something still waits or was set aside just now, 130 after Ctrl-C. What
    was set aside before is told, and does not count. Where the settings name no broker, what waits for any does.
    """
    from dkist_processing_core.cli.outbox.delivery import deliver

    raise typer.Exit(deliver(timeout))


@outbox_app.command("relay")
def outbox_relay() -> None:
    """
    Go on delivering what waits in the outbox of the settings.

    A service to run beside the processes of this host: it delivers what they leave, waits for a folder, a file or a
    broker that is not there yet, for as long as that takes, and logs what it meets. SIGTERM or Ctrl-C ends it within
    two seconds, with exit code 0; what is left then stays on disk.
    """
    from dkist_processing_core.cli.outbox.delivery import relay

    relay()


Outbox = Annotated[
    str | None,
    typer.Option(
        "--outbox",
        metavar="OUTBOX",
        help="Another outbox than that of the settings, by its eight hexadecimal digits or its file.",
        show_default=False,
    ),
]


@outbox_app.command("retry")
def outbox_retry(
    numbers: Annotated[
        list[int] | None,
        typer.Argument(metavar="NUMBER", help="Which, as list --set-aside numbers them.", show_default=False),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are set aside.")] = False,
    outbox: Outbox = None,
) -> None:
    """
    Have messages that were set aside tried again.

    They wait for their broker as if for the first time: the next publisher, drain or relay delivers them. The exit code
    is 2, and nothing changed, if a number is unknown.
    """
    if every == bool(numbers):
        raise typer.BadParameter("name either the numbers of messages, as list --set-aside shows them, or --all")
    from dkist_processing_core.cli.outbox.change import retry

    retry(numbers or None, outbox)


@outbox_app.command("retarget")
def outbox_retarget(
    outbox: Annotated[
        str, typer.Argument(metavar="OUTBOX", help="From which, by its eight hexadecimal digits or its file.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """
    Move the messages of another outbox into that of the settings.

    For a broker that has moved or will not come back: what waits for it, and what it refused. The messages stay as they
    are, but for their exchanges, which become those of the settings. Shows what would be moved, and asks.
    """
    from dkist_processing_core.cli.outbox.change import retarget

    retarget(outbox, is_agreed=yes)
