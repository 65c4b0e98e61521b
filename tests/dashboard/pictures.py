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

from dkist_processing_core.dashboard.links import run_address
from dkist_processing_core.events import Event
from dkist_processing_core.testing import FixedClock, SampleRun
from tests.dashboard.ground import Visit, chromium, dashboard
from tests.dashboard.histories import EDGES, RUNS, TASKS, VERSIONS, WORKFLOW, run_of_history

WIDTH, HEIGHT = 1280, 800
"""The size of a picture in pixels; it may be less high."""
NAMES = ("dashboard-now.png", "dashboard-run.png")


def _running(now: datetime) -> SampleRun:
    """Return a run in which two tasks make progress."""
    clock = FixedClock(now - timedelta(minutes=9))
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
    clock.advance(60)
    for name in ("Calibrate", "Polcal"):
        run.begin(name)
        clock.advance(90)
        run.sample(name)
        run.progress(name, 7, 20)
    return run


def _events(run: SampleRun, now: datetime) -> Iterator[Event]:
    begin = now - timedelta(hours=len(VERSIONS) * RUNS)
    for place in range(len(VERSIONS) * RUNS):
        yield from run_of_history(place, begin).events
    yield from run.events


def _above_footer(page: Page) -> bytes:
    """Return a picture of the first screen of a page, without the footer, which has paths of this machine."""
    top = page.locator("footer").bounding_box()
    assert top is not None
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(top["y"], HEIGHT)}
    return page.screenshot(clip=clip, full_page=True)  # type: ignore[arg-type]


def take(folder: Path) -> None:
    """Write the pictures into a folder."""
    now = datetime.now(UTC)
    run = _running(now)
    with dashboard() as served:
        served.publish(*_events(run, now))
        with chromium() as browser:
            visit = Visit(browser, served.address)
            for name, path in zip(NAMES, ("/", run_address(run.run)), strict=True):
                picture = _above_footer(visit.open(path, width=WIDTH))
                image = Image.open(BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
                image.save(folder / name, optimize=True)
            visit.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        os.environ["DKIST_CORE_STATE_DIR"] = state
        take(Path(sys.argv[1]))
