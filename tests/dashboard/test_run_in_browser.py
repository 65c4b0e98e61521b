"""
The pages about a run and about an attempt in a browser: followed from one to the other, through time, and live.

Not here: their values (test_run_pages).
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from playwright.sync_api import expect

from dkist_processing_core.dashboard.addresses.links import attempt_address, run_address
from dkist_processing_core.identity import Run
from dkist_processing_core.testing.fixed import FixedClock
from dkist_processing_core.testing.sample_run import SampleRun
from dkist_processing_core.testing.sample_runs import run_with_killed_attempt
from tests.dashboard.ground import Served, Visit, check_on_screens
from tests.stored import ENDED, RUNNING, ended_run, running_run

_NOW = datetime.now(UTC)
_BEGIN = _NOW - timedelta(hours=1)
_ENDED, _RUNNING = Run("l0_to_l1_visp", "1.2.3", ENDED, 7), Run("l1_to_l2_dlnirsp", "dev", RUNNING, 42)
_KILLED = run_with_killed_attempt(workflow_name="killed", clock=FixedClock(_BEGIN))
_MIDDLE = (_BEGIN + timedelta(seconds=30)).isoformat()
PATHS = {
    "run": run_address(_ENDED),
    "past": run_address(_ENDED, at=_MIDDLE),
    "running": run_address(_RUNNING),
    "profiles": run_address(_KILLED.run),
    "failed": attempt_address(_ENDED, "Calibrate", 1),
    "killed": attempt_address(_KILLED.run, "Calibrate", 1),
    "going on": attempt_address(_RUNNING, "Invert", 2),
}


@pytest.fixture(scope="module", autouse=True)
def _published(served_module: Served) -> None:
    """
    A run that has failed, one that goes on, and one with a killed attempt on the dashboard of the module.
    """
    served_module.publish(*ended_run(begin=_BEGIN), *running_run(now=_NOW), *_KILLED.events)


@pytest.mark.parametrize("name", PATHS)
def test_a_page_fits_each_screen_and_is_accessible_in_both_themes(look: Visit, name: str) -> None:
    """
    No page is wider than its window, and axe-core finds no serious violation.
    """
    check_on_screens(look.open(PATHS[name]))


@pytest.mark.parametrize("has_javascript", [True, False])
def test_a_failed_attempt_is_opened_from_the_graph_of_its_run(look: Visit, *, has_javascript: bool) -> None:
    """
    The node leads to the last attempt, whose page leads to the others and back.
    """
    page = look.open(PATHS["run"], java_script_enabled=has_javascript)

    page.locator("#live_graph").get_by_role("link", name="Calibrate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Calibrate, attempt 2")
    expect(page.locator(".frames li").first).to_contain_text("raise LimbError")
    page.locator("#live_tries").get_by_role("link", name="1").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Calibrate, attempt 1")
    page.locator("main > p").get_by_role("link").nth(1).click()
    expect(page.locator("#live_state .state").first).to_have_text("failed")


@pytest.mark.parametrize("has_javascript", [True, False])
def test_a_viewer_goes_back_in_time(look: Visit, *, has_javascript: bool) -> None:
    """
    To a time on the slider, to the reports before and after it, to a written time, and back to the present.
    """
    page = look.open(PATHS["run"], java_script_enabled=has_javascript)

    page.locator(".slider a").first.click()
    expect(page.locator(".past")).to_contain_text("As it was at")
    expect(page.locator("#live_state .state").first).to_have_text("running")
    expect(page.locator("#live_state")).to_contain_text("6 waiting")
    page.get_by_role("link", name="Next report").click()
    expect(page.locator("#live_state")).to_contain_text("1 dispatched")
    page.get_by_role("link", name="Previous report").click()
    expect(page.locator("#live_state")).to_contain_text("6 waiting")
    page.get_by_label("Time in UTC").fill(_MIDDLE)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#live_graph")).to_contain_text("9/20 frame")
    page.get_by_role("link", name="Present", exact=True).click()
    expect(page.locator("#live_state .state").first).to_have_text("failed")
    expect(page.locator(".past")).to_have_count(0)


def test_a_slider_is_one_stop_of_the_keyboard(look: Visit) -> None:
    """
    The arrow keys go from one time to the next. A time is named in the zone of the viewer, like all others.
    """
    page = look.open(PATHS["run"], timezone_id="Pacific/Honolulu")
    steps = page.locator(".slider a")
    reached = page.locator('.slider a:not([tabindex="-1"])')
    before = steps.nth(-2)

    expect(reached).to_have_count(1)
    reached.focus()
    page.keyboard.press("ArrowLeft")
    expect(before).to_be_focused()
    title = _BEGIN.astimezone(timezone(timedelta(hours=-10)))
    expect(steps.first).to_have_attribute("aria-label", title.strftime("%Y-%m-%d %H:%M:%S"))
    page.keyboard.press("Enter")
    expect(page.locator(".past")).to_contain_text("As it was at")


def test_a_run_is_followed_live_to_its_end(visit: Visit, served: Served) -> None:
    """
    States, progress and bars change without a request of the viewer, and no node moves.
    """
    run = SampleRun(max_attempts=2, clock=FixedClock(datetime.now(UTC) - timedelta(minutes=1)))
    published = 0

    def publish() -> None:
        nonlocal published
        served.publish(*run.events[published:])
        published = len(run.events)

    run.start()
    run.begin("ParseL0")
    run.progress("ParseL0", 1, 4)
    publish()
    page = visit.open(run_address(run.run))
    nodes = page.locator("#live_graph .node")
    places = [node.get_attribute("transform") for node in nodes.locator("> g").all()]
    expect(nodes.first).to_contain_text("running · 1/4 frame")

    run.finish("ParseL0")
    run.fail("Calibrate")
    publish()
    expect(nodes.first).to_contain_text("finished")
    expect(nodes.nth(1)).to_contain_text("failed")
    run.succeed("Calibrate")
    run.succeed("WriteL1")
    run.end()
    publish()
    expect(page.locator("#live_state .state").first).to_have_text("finished")
    expect(page.locator("#live_timeline tbody tr")).to_have_count(4)
    expect(page.locator("#live_events tbody tr").last).to_contain_text("workflow.finished")
    assert [node.get_attribute("transform") for node in nodes.locator("> g").all()] == places
    assert len(places) == len(run.tasks)


def test_a_page_prints_its_graph_and_its_timeline_whole(look: Visit) -> None:
    """
    On paper nothing can be scrolled.
    """
    page = look.open(PATHS["run"])
    page.emulate_media(media="print")

    hidden = page.evaluate(
        "[...document.querySelectorAll('.graph, .timeline')].map((box) => box.scrollWidth - box.clientWidth)"
    )
    expect(page.locator(".steps")).to_be_hidden()
    assert hidden == [0, 0]
