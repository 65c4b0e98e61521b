"""
The doctor's checks of the names of consumers: whether the bus keeps events for one that nothing reads.

Not here: the broker itself (doctor.broker), and dead letters (cli.dead_letters).
"""

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from dkist_processing_core.bus import Bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.cli.doctor.check import Check, skipped
from dkist_processing_core.errors import BusError, DKISTProcessingCoreError, JournalError
from dkist_processing_core.journal import Journal
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import counted, duration

_UNUSED_SECONDS = 24 * 3600.0


def check_consumers(settings: Settings, inboxes: Sequence[str], timeout: float) -> Iterator[Check]:
    """Yield a note for each consumer of the inboxes and of the settings whose queue has events and no reader."""
    bus = AmqpBus(settings)
    # An inbox that cannot be used is another check, and a refused account cannot read queues.
    with contextlib.suppress(BusError):
        names = dict.fromkeys(name for url in (None, *inboxes) for name in _known(settings, bus, url))
        if not names:
            return
        with bus.connect(timeout) as link:
            for name in names:
                load = link.queue_load(name)
                if load is None or not load.messages or load.consumers:
                    continue
                remove = f"`rabbitmqctl --vhost {shlex.quote(settings.isb_vhost)} delete_queue {shlex.quote(name)}`"
                yield skipped(
                    "consumers",
                    f"the queue of the consumer {name!r} holds {counted(load.messages, 'event')}, and nothing reads it",
                    f"start the consumer; if it was renamed or removed, {remove} removes its queue, "
                    "which otherwise expires 7 days after its last reader",
                )


def check_subscriptions(bus: Bus) -> Iterator[Check]:
    """Yield a note for each name that has unread events in the embedded journal and was not used for a day."""
    found: list[tuple[str, float]] = []
    # Whether the file can be used is another check.
    with contextlib.suppress(JournalError):
        if os.path.lexists(bus.journal_path):
            found = Journal.look(bus.journal_path, _unused)
    for name, used in found:
        yield skipped(
            "consumers",
            f"the journal has events that {name!r} has not read, and it was last used {_age(used)} ago",
            "start the consumer; if it was renamed or removed, no action is needed: "
            "after 7 days the journal keeps no events for it",
        )


def _unused(journal: Journal) -> list[tuple[str, float]]:
    # A reader stores every hour that it uses the name.
    query = (
        "SELECT name, used FROM subscription WHERE position < ? AND used < ? AND typeof(used) = 'real' ORDER BY name"
    )
    return [(name, used) for name, used in journal.rows(query, journal.last(), time.time() - _UNUSED_SECONDS)]


def _age(used: float) -> str:
    return duration(time.time() - used)


def _known(settings: Settings, bus: AmqpBus, inbox: str | None) -> list[str]:
    """Return the names of the consumers that an inbox has compared with this broker; none without an inbox."""
    try:
        # The extra `consumer` may be missing.
        from dkist_processing_core.collect.collector import NAME  # noqa: PLC0415
        from dkist_processing_core.consumer.completeness import archive_of  # noqa: PLC0415
        from dkist_processing_core.inbox import Database  # noqa: PLC0415
        from dkist_processing_core.inbox.positions import consumers_of  # noqa: PLC0415

        with closing(Database.open_existing(inbox, settings)) as database, database.reading() as connection:
            # The store is caught up by the commands that read it, from the archive.
            return [name for name in consumers_of(connection, archive_of(bus)) if name != NAME]
    except (ImportError, DKISTProcessingCoreError):
        return []
