"""
Pages on paper, and for viewers who ask for less motion.

Not here: pages on screens (test_face, test_run_in_browser).
"""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page

from dkist_processing_core.dashboard.addresses.links import attempt_address, compare_address, run_address
from dkist_processing_core.identity import Run
from tests.dashboard.ground import Served, Visit, overflow
from tests.stored import ENDED, RUNNING, ended_run, running_run

_NOW = datetime.now(UTC)
_BEFORE = "scheduled__2026-11-21T12:00:00+00:00"
_ENDED, _EARLIER = (Run("l0_to_l1_visp", "1.2.3", each, 7) for each in (ENDED, _BEFORE))
_RUNNING = Run("l1_to_l2_dlnirsp", "dev", RUNNING, 42)
PATHS = {
    "now": "/",
    "runs": "/runs",
    "failures": "/failures",
    "bus": "/bus",
    "run": run_address(_ENDED),
    "running": run_address(_RUNNING),
    "attempt": attempt_address(_ENDED, "Calibrate", 1),
    "compare": compare_address(_EARLIER, _ENDED),
    "workflow": "/workflow?name=l0_to_l1_visp",
}
# A sheet of A4 without the margins of a browser, in pixels of CSS.
_PAPER = {"width": 718, "height": 1047}
_CONTROLS = "button, .button, input, select, textarea, [download], .pager, .skip"
_CONTROL = "Go back in time"
_MOVING = """() => document.getAnimations().map(each => each.animationName ?? String(each))"""
_SMOOTH = """() => [...document.querySelectorAll("*")].filter(each => {
    const style = getComputedStyle(each);
    return style.scrollBehavior !== "auto" || parseFloat(style.transitionDuration) || style.animationName !== "none";
}).map(each => each.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module", autouse=True)
def _published(served_module: Served) -> None:
    """
    Two runs that have failed, and one that goes on.
    """
    ended = (ended_run(_BEFORE, begin=_NOW - timedelta(hours=3)), ended_run(begin=_NOW - timedelta(hours=1)))
    served_module.publish(*ended[0], *ended[1], *running_run(now=_NOW))


def _on_paper(page: Page) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": _PAPER["width"], "height": _PAPER["height"]})


@pytest.mark.parametrize("name", PATHS)
def test_a_printed_page_has_its_content_and_no_controls(look: Visit, name: str) -> None:
    """
    On a sheet of A4 nothing is cut off at the side, no part scrolls, and dark colours are those of paper.
    """
    page = look.open(PATHS[name], theme="dark")
    headings = page.locator("h1:visible, h2:visible, h3:visible").all_inner_texts()
    _on_paper(page)

    printed = page.locator("h1:visible, h2:visible, h3:visible").all_inner_texts()
    controls = page.locator(_CONTROLS).locator("visible=true").all_inner_texts()
    cut = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter(each => {
            const { overflowX, overflowY } = getComputedStyle(each);
            const hides = ["auto", "scroll", "hidden"].some(how => how === overflowX || how === overflowY);
            return hides && each.clientWidth > 1
                && (each.scrollWidth > each.clientWidth + 1 || each.scrollHeight > each.clientHeight + 1);
        }).map(each => each.outerHTML.slice(0, 80))"""
    )
    ground = page.evaluate("getComputedStyle(document.documentElement).colorScheme")

    assert [each for each in headings if each not in printed and each != _CONTROL] == []
    assert (controls, cut, ground) == ([], [], "light")
    assert overflow(page) == 0


def test_a_page_of_paper_names_all_sections(look: Visit) -> None:
    """
    The outline of the PDF that the browser makes has the headings that are on the screen.
    """
    page = look.open(PATHS["run"])
    headings = page.locator("h2:visible").all_inner_texts()
    made = page.pdf(format="A4", tagged=True, outline=True)

    titles = re.findall(rb"/Title \(((?:[^()\\]|\\.)*)\)", made)
    found = {title.decode("latin-1").replace("\\", "") for title in titles}
    assert made.startswith(b"%PDF-")
    assert set(headings) - found == {_CONTROL}


@pytest.mark.parametrize("name", ["now", "run", "running"])
def test_nothing_moves_for_viewers_who_ask_for_less_motion(look: Visit, name: str) -> None:
    """
    Neither an animation nor a transition nor smooth scrolling, also of what has just changed.
    """
    page = look.open(PATHS[name], reduced_motion="reduce")
    page.evaluate("document.querySelectorAll('main *').forEach(each => each.classList.add('changed'))")

    assert page.evaluate(_MOVING) == []
    assert page.evaluate(_SMOOTH) == []


def test_what_has_changed_is_marked_for_other_viewers(look: Visit) -> None:
    """
    So the test before would notice an animation.
    """
    page = look.open("/", reduced_motion="no-preference")
    page.evaluate("document.querySelector('main h1').classList.add('changed')")

    assert page.evaluate(_MOVING) == ["changed"]
