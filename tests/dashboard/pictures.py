"""
Take the pictures of the dashboard for the documents: `python -m tests.dashboard.pictures docs/images`.

They show a made-up workflow of the last hours. Not here: what is looked at in tests (ground).
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from dkist_processing_core.dashboard.addresses.links import run_address
from dkist_processing_core.events import Event
from dkist_processing_core.testing import FixedClock, SampleRun
from tests.dashboard.ground import Visit, chromium, dashboard
from tests.dashboard.histories import EDGES, RUNS, TASKS, VERSIONS, WORKFLOW, run_of_history

WIDTH = 1280
"""The width of a picture in pixels."""
NAMES = ("dashboard-now.png", "dashboard-run.png")
_HEIGHTS = (640, 1130)


def _running(now: datetime) -> SampleRun:
    """Return a run in which two tasks make progress."""
    clock = FixedClock(now - timedelta(seconds=100))
    run = SampleRun(
        WORKFLOW,
        workflow_version=VERSIONS[-1],
        tasks=TASKS,
        edges=EDGES,
        recipe_run_id=99,
        max_attempts=2,
        clock=clock,
    )
    run.start()
    run.succeed("ParseL0")
    run.fail("Calibrate")
    clock.advance(8)
    for name in ("Calibrate", "Polcal"):
        run.begin(name)
        clock.advance(30)
        run.sample(name)
        run.progress(name, 7, 20)
    return run


def _events(run: SampleRun, now: datetime) -> Iterator[Event]:
    begin = now - timedelta(hours=len(VERSIONS) * RUNS)
    for place in range(len(VERSIONS) * RUNS):
        yield from run_of_history(place, begin).events
    yield from run.events


def _beginning(page: Page, height: int) -> bytes:
    """Return a picture of the beginning of a page, without the footer, which has paths of this machine."""
    return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)


def take(folder: Path) -> None:
    """Write the pictures into a folder."""
    now = datetime.now(UTC)
    run = _running(now)
    with dashboard() as served:
        served.publish(*_events(run, now))
        with chromium() as browser:
            visit = Visit(browser, served.address)
            for name, path, height in zip(NAMES, ("/", run_address(run.run)), _HEIGHTS, strict=True):
                picture = _beginning(visit.open(path, width=WIDTH), height)
                image = Image.open(BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
                image.save(folder / name, optimize=True)
            visit.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        os.environ["DKIST_CORE_STATE_DIR"] = state
        take(Path(sys.argv[1]))
