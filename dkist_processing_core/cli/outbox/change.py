"""
`dkist-core outbox retry` and `retarget`: an operator's decisions about messages that cannot be delivered.

Not here: the changes themselves (bus, outbox).
"""

from functools import partial

import typer

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.journal import Journal
from dkist_processing_core.outbox import find, retargeting, set_aside
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_text

_DELIVERY = "the next publisher, dkist-core outbox drain or relay delivers them"


def retry(numbers: list[int] | None, outbox: str | None) -> None:
    """Make messages that are set aside pending again; without numbers, all of them."""
    settings = read_settings()
    path = find(settings, outbox)
    known = {entry.seq for entry in set_aside(path)}
    if not known and not numbers:
        print_text(without_secrets(f"nothing is set aside in {path}", settings))
        return
    unknown = sorted(set(numbers or ()) - known)
    if unknown:
        msg = (
            f"not set aside in {path}: {', '.join(map(str, unknown))}; dkist-core outbox list --set-aside "
            f"shows the messages that are"
        )
        raise typer.BadParameter(without_secrets(msg, settings))
    with Journal.open(path) as journal:
        count = journal.retry(numbers)
    text = f"pending again in {path}: {count}{f'; {_DELIVERY}' if count else ''}"
    print_text(without_secrets(text, settings))


def retarget(outbox: str, *, is_agreed: bool) -> None:
    """Move all messages from one outbox to the outbox of the settings, after the user's agreement."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    path = find(settings, outbox)
    with retargeting(settings, path) as found:
        books = found.books
        if not books.pending and not books.set_aside:
            print_text(hide(f"nothing to move: {path} is empty"))
            return
        print_text(f"pending: {books.pending:,}, set aside: {books.set_aside:,}")
        print_text(hide(f"from  {found.source}"))
        print_text(hide(f"to    {found.target}"))
        if not is_agreed:
            typer.confirm("move these messages?", abort=True)
        moved = found.carry_out()
    print_text(f"moved: {moved:,}; {_DELIVERY}")
