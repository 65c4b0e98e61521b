"""
What the bus still has, read to its end.

Not here: what is done with it.
"""

from collections.abc import Iterator
from datetime import datetime

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import Event


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

    A bus that is never quiet has an end, too: what it had when this began.
    """
    with subscribe(
        *names,
        workflow=workflow,
        task=task,
        replay=since or True,
        timeout=0.0,
        every_report=every_report,
        settings=settings,
    ) as events:
        for event in events:
            if events.has_caught_up:
                return
            yield event
