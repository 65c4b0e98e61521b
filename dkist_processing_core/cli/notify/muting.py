"""
`dkist-core notify mute`, `unmute` and `mutes`.

Not here: their rows (notify.mutes), and their effect (notify.grouping).
"""

import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.cli.store.family import family_named
from dkist_processing_core.errors import DKISTProcessingCoreError, ExtraMissingError
from dkist_processing_core.events import format_time
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.console import print_text
from dkist_processing_core.text.terminal import one_line, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dkist_processing_core.inbox import Database
    from dkist_processing_core.notify.mutes import Kind

_FORM = "%Y-%m-%d %H:%M:%S"


def mute(family: str | None, workflow: str | None, *, until: datetime | None, seconds: float | None) -> None:
    """
    Mute a family or a workflow until a time, or for a duration.

    Raises:
        DKISTProcessingCoreError: There is no such family, or no database.
    """
    with _database() as database:
        from dkist_processing_core.notify import mutes  # noqa: PLC0415 - it needs an extra

        kind, name = _muted(database, family, workflow)
        ends_at = time.time() + (seconds or 0.0) if until is None else until.timestamp()
        with database.transaction() as transaction:
            mutes.mute(transaction, kind, name, ends_at)
    _print(f"muted until {_shown(ends_at)}: the {kind} {name}")


def unmute(family: str | None, workflow: str | None) -> None:
    """
    End the mute of a family or a workflow.

    Raises:
        DKISTProcessingCoreError: It is not muted, or there is no such family.
    """
    with _database() as database:
        from dkist_processing_core.notify import mutes  # noqa: PLC0415 - as above

        kind, name = _muted(database, family, workflow)
        with database.transaction() as transaction:
            was_muted = mutes.unmute(transaction, kind, name)
    if not was_muted:
        raise DKISTProcessingCoreError(f"the {kind} {name!r} is not muted; `dkist-core notify mutes` lists what is")
    _print(f"no longer muted: the {kind} {name}")


def show_mutes(*, as_json: bool) -> None:
    """Print what is muted now."""
    with _database() as database:
        from dkist_processing_core.notify.mutes import mutes_at  # noqa: PLC0415 - as above

        with database.reading() as connection:
            found = mutes_at(connection, time.time())
    if as_json:
        muted = [{"kind": each.kind, "name": each.name, "until": format_time(_moment(each.until))} for each in found]
        write_json({"mutes": muted})
        return
    for each in found:
        _print(f"until {_shown(each.until)}: the {each.kind} {each.name}")
    if not found:
        print_text("nothing is muted")


def _muted(database: "Database", family: str | None, workflow: str | None) -> "tuple[Kind, str]":
    if family is None:
        assert workflow is not None, "the caller has checked it"
        return "workflow", workflow
    from dkist_processing_core.collect.questions.questions import Questions  # noqa: PLC0415 - as above
    from dkist_processing_core.notify.open_families import open_families_named  # noqa: PLC0415 - as above

    with database.reading() as connection:
        try:
            return "family", family_named(Questions(connection), family)
        except DKISTProcessingCoreError:
            # The store may lag behind the notices.
            found = open_families_named(connection, family)
            if len(found) != 1:
                raise
            return "family", found.pop()


@contextmanager
def _database() -> "Iterator[Database]":
    try:
        from dkist_processing_core.inbox import Database  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "mutes are stored", str(error.name)) from error
    with closing(Database.open_existing(None, read_settings())) as database:
        yield database


def _print(text: str) -> None:
    print_text(one_line(without_secrets(text, None)))


def _shown(seconds: float) -> str:
    return local_time(_moment(seconds), _FORM, None)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
