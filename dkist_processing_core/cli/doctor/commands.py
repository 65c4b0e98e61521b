"""
`dkist-core doctor`, the command.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer


def doctor(
    *,
    inbox: Annotated[
        list[str],
        typer.Option(
            "--inbox",
            metavar="URL",
            help="Check this database of inboxes as well as that of the settings; may be given more than once.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON.")] = False,
) -> None:
    """
    Check that events can leave this host.

    The command checks the settings, the journal, the inboxes, the broker and the collectors. It sends a probe message
    through the broker, and gives advice on each problem. It creates missing exchanges and queues. The exit code is 1 if
    there is a problem.
    """
    from dkist_processing_core.cli.doctor.examination import examine

    if not examine(inbox, as_json=as_json):
        raise typer.Exit(1)
