"""
A page that is saved as one file: it looks the same without the dashboard, and asks nothing of anything.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from dkist_processing_core.dashboard.addresses.links import run_address
from dkist_processing_core.identity import Run
from tests.dashboard.ground import Served, Visit
from tests.dashboard.serving import running
from tests.facts import started
from tests.stored import ENDED, RUNNING, ended_run, running_run

_LINKS = """(isInside) => [...document.querySelectorAll("a, form")]
    .filter((each) => each.matches('[href^="#"]') === isInside)
    .map((each) => each.href?.baseVal ?? each.href ?? each.action)
"""
_BACKGROUND = "getComputedStyle(document.querySelector('.card')).backgroundColor"


@pytest.mark.chromium
def test_a_saved_page_is_one_file(served: Served, visit: Visit, browser: Browser, tmp_path: Path) -> None:
    """
    The link on the page makes it; opened from the disk, it has its content and its colours.
    """
    served.publish(*running_run())
    page = visit.open()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save this page as one file").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    background = page.evaluate(_BACKGROUND)

    requests, complaints = [], []
    context = browser.new_context(offline=True)

    def opened() -> Page:
        saved = context.new_page()
        saved.on("request", lambda request: requests.append(_address(request)))
        saved.on("console", lambda message: complaints.append(message.text))
        saved.goto(file.as_uri())
        return saved

    saved = opened()
    expect(saved.locator("main")).to_contain_text("Invert")
    same = saved.evaluate(_BACKGROUND)
    link = saved.get_by_role("link", name="l1_to_l2_dlnirsp").first.evaluate("each => each.href")
    context.close()

    assert file.name == "dkist-core-now.html"
    assert (requests, complaints) == ([file.as_uri()], [])
    assert same == background
    assert link.startswith(served.address)


@pytest.mark.chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_saved_page_looks_like_the_page(
    served: Served, visit: Visit, browser: Browser, theme: Literal["light", "dark"], tmp_path: Path
) -> None:
    """
    Its picture is that of the page in a browser without JavaScript, pixel by pixel.
    """
    served.publish(*ended_run())
    path = run_address(Run("l0_to_l1_visp", "1.2.3", ENDED, 7))
    page = visit.open(path, theme=theme, java_script_enabled=False)
    file = tmp_path / "page.html"
    file.write_bytes(page.request.get(f"{page.url}&save=1").body())
    context = browser.new_context(
        offline=True,
        viewport=page.viewport_size,
        color_scheme=theme,
        locale="en-GB",
        java_script_enabled=False,
    )
    saved = context.new_page()
    saved.goto(file.as_uri())
    pictures = [each.locator("main").screenshot() for each in (page, saved)]
    context.close()

    assert pictures[0] == pictures[1]


@pytest.mark.chromium
@pytest.mark.parametrize(
    ("path", "fragments"),
    [("/", {"main", "live_late"}), (run_address(Run("l0_to_l1_visp", "1.2.3", ENDED, 7)), {"main"})],
)
def test_links_inside_of_a_saved_page_stay_in_it(
    served: Served, visit: Visit, browser: Browser, path: str, fragments: set[str], tmp_path: Path
) -> None:
    """
    All others, and the forms, lead to the dashboard, whatever the events contain.
    """
    hostile = 'text href="/elsewhere" with $1 and \\1'
    served.publish(*ended_run(), started(hostile, time=datetime.now(UTC), workflow_name=hostile))
    page = visit.open(path)
    link = page.get_by_role("link", name="Save this page as one file").get_attribute("href")
    assert link is not None
    file = tmp_path / "page.html"
    file.write_bytes(page.request.get(served.at(link)).body())
    context = browser.new_context(offline=True)
    saved = context.new_page()
    saved.goto(file.as_uri())
    inside, outside = (saved.evaluate(_LINKS, is_inside) for is_inside in (True, False))
    text = saved.locator("main").inner_text()
    saved.locator(".skip").focus()
    saved.keyboard.press("Enter")
    saved.wait_for_url(f"{file.as_uri()}#main")
    context.close()

    assert set(inside) == {f"{file.as_uri()}#{each}" for each in fragments}
    assert [each for each in outside if not each.startswith(served.address)] == []
    assert served.at("/runs") in outside
    assert path != "/" or hostile in text


def _address(request: Request) -> str:
    return request.url


@pytest.mark.parametrize(
    "path", ["/runs?q=a", "/failures", "/bus", f"/run?workflow=l1_to_l2_dlnirsp&version=dev&id={RUNNING}"]
)
def test_each_page_can_be_saved(path: str) -> None:
    """
    Without scripts, files, or what allows a change.
    """
    with running() as site:
        site.publish(*running_run())
        shown = site.get(path).text
        text = site.get(path + ("&" if "?" in path else "?") + "save=1").text

    assert "save=1" in shown
    assert "<style>" in text
    assert [part for part in ("<script", "<link", "/static/", "form_token") if part in text] == []
