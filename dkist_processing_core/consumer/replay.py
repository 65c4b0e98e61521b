"""
Read the events that the bus still has, to the end.

Not here: the use of the events.
"""

from collections.abc import Iterator
from datetime import datetime

from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import Event
from dkist_processing_core.settings.interface import Settings


def replayed(
    settings: Settings,
    *names: str,
    workflow: str | None = None,
    task: str | None = None,
    every_report: bool = False,
    since: datetime | None = None,
) -> Iterator[Event]:
    """
    Yield every event that the bus has, oldest first; with `since` perhaps also a few from before that time.

    It ends after the events that the bus had at the start, even if new ones keep arriving.
    """
    with subscribe(
        *names,
        workflow=workflow,
        task=task,
        replay=since or True,
        timeout=0.0,
        every_report=every_report,
        connect="fail",
        settings=settings,
    ) as events:
        for event in events:
            if events.has_caught_up:
                # This event is newer than the replay.
                return
            yield event
