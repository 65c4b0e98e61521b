"""
The doctor's checks of the inboxes: whether each can be used, and how many dead letters wait for a decision.

Not here: consumers of an inbox that nothing runs (doctor.consumers), and the dead letters (cli.dead_letters).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing

from dkist_processing_core.cli.doctor.check import Check, ok, skipped, wrong
from dkist_processing_core.errors import (
    DKISTProcessingCoreError,
    ExtraMissingError,
    InboxMissingError,
    InboxVersionError,
)
from dkist_processing_core.journal.place import INBOX_FILE, place
from dkist_processing_core.settings.interface import Settings


def check_inboxes(settings: Settings, named: Sequence[str]) -> Iterator[Check]:
    """
    Yield a check of the inbox of the settings, if there is one, and of others by their addresses.

    An inbox is neither made nor migrated.
    """
    for url in (None, *named):
        is_named = bool(url or settings.dkist_core_inbox)
        if not is_named and not os.path.lexists(place(settings).folder / INBOX_FILE):
            continue
        try:
            yield _checked(settings, url)
        except ModuleNotFoundError as error:
            if is_named:
                yield wrong("inbox", str(ExtraMissingError("consumer", "an inbox is read", str(error.name))))
        except InboxMissingError as error:
            if is_named:
                yield skipped("inbox", str(error), "the first start of a consumer makes it")
        except InboxVersionError as error:
            yield skipped("inbox", str(error))
        except DKISTProcessingCoreError as error:
            yield wrong("inbox", str(error), None if is_named else "correct the cause: consumers wait until then")


def _checked(settings: Settings, url: str | None) -> Check:
    from dkist_processing_core.inbox import Database, DeadLetters  # noqa: PLC0415 - an extra

    with closing(Database.open_existing(url, settings)) as database:
        count = sum(group.count for group in DeadLetters(database).groups())
        command = "dkist-core dead-letters list" if url is None else "dkist-core dead-letters list --inbox …"
        return ok(
            "inbox",
            f"{database.where} can be read; dead letters: {count}",
            f"`{command}` shows them" if count else None,
        )
