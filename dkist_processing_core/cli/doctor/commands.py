"""
`dkist-core doctor`, the command.

Not here: the implementations of the commands, which each command imports when it is called.
"""

# ruff: noqa: PLC0415 - `--version`, `--help` and the completion of a shell must not take seconds
from typing import Annotated

import typer


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> None:
    """
    Check that events can leave this host.

    Looks at settings, journal, broker and collectors, sends a probe through the broker, and says what to do about what
    it finds. Exchanges and queues that are missing are made. The exit code is 1 if something is wrong.
    """
    from dkist_processing_core.cli.doctor.examination import examine

    if not examine(as_json=as_json):
        raise typer.Exit(1)
