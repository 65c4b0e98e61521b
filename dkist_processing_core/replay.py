"""
What the bus still has, read to its end.

Not here: what is done with it.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import Event

_QUIET_SECONDS = 1.5
_POLL_SECONDS = 0.1


def replayed(
    settings: DKISTProcessingCoreConfiguration,
    *names: str,
    workflow: str | None = None,
    task: str | None = None,
    every_report: bool = False,
    since: datetime | None = None,
) -> Iterator[Event]:
    """
    Give every event that the bus has, the oldest first; with `since` perhaps a few from before that time, too.

    The embedded journal knows its end. RabbitMQ does not tell where a stream ends, so there it is over when for a
    while nothing came that is older than this call: a bus that is never quiet has an end too.
    """
    quiet_seconds = _QUIET_SECONDS if open_bus(settings).is_remote else 0.0
    began = datetime.now(UTC)
    with subscribe(
        *names,
        workflow=workflow,
        task=task,
        replay=since or True,
        timeout=_POLL_SECONDS if quiet_seconds else 0.0,
        every_report=every_report,
        settings=settings,
    ) as events:
        quiet_since = time.monotonic()
        while True:
            for event in events:
                yield event
                if event.time <= began:
                    # After the yield: how long the event was worked on says nothing about the bus.
                    quiet_since = time.monotonic()
                elif quiet_seconds and time.monotonic() - quiet_since >= quiet_seconds:
                    return
            if time.monotonic() - quiet_since >= quiet_seconds:
                return
