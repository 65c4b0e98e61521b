"""
The option `--since` of commands that read past events.

Not here: its forms (consumer.since).
"""

from datetime import datetime

import typer


def since_option(text: str) -> datetime | None:
    """Return the moment that a user's text means; None for the oldest event."""
    # Imported for this option alone: the help must not take seconds.
    from dkist_processing_core.consumer.since import moment_of  # noqa: PLC0415

    try:
        return moment_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
