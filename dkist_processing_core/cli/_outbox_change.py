"""
`dkist-core outbox retry` and `retarget`: what an operator decides about messages that do not get away.

Not here: the changes themselves (bus, outbox).
"""

from functools import partial

import typer

from dkist_processing_core.bus import Journal
from dkist_processing_core.cli._check import without_secrets
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.outbox import find, retargeting, set_aside
from dkist_processing_core.terminal import say

_DELIVERY = "the next publisher, dkist-core outbox drain or relay delivers them"


def retry(numbers: list[int] | None, outbox: str | None) -> None:
    """Have messages wait again, all that are set aside where no numbers are given."""
    settings = DKISTProcessingCoreConfiguration.read()
    path = find(settings, outbox)
    known = {entry.seq for entry in set_aside(path)}
    if not known and not numbers:
        say(without_secrets(f"nothing is set aside in {path}", settings))
        return
    unknown = sorted(set(numbers or ()) - known)
    if unknown:
        msg = (
            f"not set aside in {path}: {', '.join(map(str, unknown))}; dkist-core outbox list --set-aside shows what is"
        )
        raise typer.BadParameter(without_secrets(msg, settings))
    with Journal.open(path) as journal:
        count = journal.retry(numbers)
    told = f"waiting again in {path}: {count}{f'; {_DELIVERY}' if count else ''}"
    say(without_secrets(told, settings))


def retarget(outbox: str, *, is_agreed: bool) -> None:
    """Move everything from one outbox to that of the settings, if that is agreed to."""
    settings = DKISTProcessingCoreConfiguration.read()
    hide = partial(without_secrets, settings=settings)
    path = find(settings, outbox)
    with retargeting(settings, path) as found:
        books = found.books
        if not books.pending and not books.set_aside:
            say(hide(f"nothing to move: {path} is empty"))
            return
        say(f"pending: {books.pending:,}, set aside: {books.set_aside:,}")
        say(hide(f"from  {found.source}"))
        say(hide(f"to    {found.target}"))
        if not is_agreed:
            typer.confirm("move them?", abort=True)
        moved = found.carry_out()
    say(f"moved: {moved:,}; {_DELIVERY}")
