"""The events that every side publishes, and their form for sides without events."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from dkist_processing_core.events import Reporter, TaskProgressed, encode
from dkist_processing_core.journal.message import to_message

KIB = 1024
_TIME = datetime(2026, 11, 22, 9, tzinfo=UTC)
# Words, numbers and paths as in a log, because redaction reads each of them.
_WORDS = "frame 0231 calibrated, dark subtracted, gain applied; wrote /scratch/visp/frame_0231.fits in 1.8 s; "


def event_at(number: int, size: int = KIB) -> TaskProgressed:
    """Return one of a series of events, each `size` bytes long as it travels."""
    return _event(number, _note(size))


@cache
def _note(size: int) -> str:
    missing = size - len(encode(_event(100_000, "")))
    return "".join(itertools.islice(itertools.cycle(_WORDS), max(0, missing)))


def _event(number: int, note: str) -> TaskProgressed:
    return TaskProgressed(
        time=_TIME + timedelta(milliseconds=number),
        reported_by=Reporter.TASK,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        workflow_name="l0_to_l1_visp",
        workflow_version="2.10.3",
        run_id="scheduled__20261122T090000Z__0a1b2c3d",
        recipe_run_id=1,
        task_name="ParseL0InputData",
        attempt=1,
        max_attempts=3,
        # Six digits each, so that all have one size.
        sequence=100_000 + number,
        done=100_000 + number,
        total=999_999,
        unit="frames",
        note=note,
    )


def write_messages(path: Path, count: int, size: int = KIB) -> None:
    """Write as many messages as any side needs."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            message = to_message(event_at(number, size), "")
            properties = message.properties
            row = [
                message.routing_key,
                message.body.decode(),
                properties.message_id,
                properties.type,
                properties.content_type,
                properties.correlation_id,
                properties.timestamp,
            ]
            file.write(json.dumps(row) + "\n")
