"""
The connection of a page: a hidden one has none, and one that ends by its plan or with the session is followed up.
"""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dkist_processing_core.dashboard.html import live
from tests.dashboard.ground import Served, Visit, dashboard
from tests.stored import running_run

_HIDE = """(isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.chromium
def test_a_page_whose_session_has_ended_leads_to_the_login(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that ends by its plan is no loss; only the next one is refused."""
    monkeypatch.setattr(live, "STREAM_SECONDS", 1.0)
    file = tmp_path / "token"
    file.write_text("t" * 20)
    file.chmod(0o600)
    with dashboard(token_file=file) as served:
        visit = Visit(browser, served.address)
        page = visit.open()
        page.locator("input[name=token]").fill("t" * 20)
        page.locator("input[name=token]").press("Enter")
        expect(page.locator("#connection")).to_have_attribute("data-state", "on")
        for _ in range(2):
            with page.expect_request("**/live?**"):
                pass
        states = page.locator("#lost").text_content()
        page.context.clear_cookies()
        page.wait_for_url("**/login?**")
        visit.close()

    assert not states


@pytest.mark.chromium
def test_a_hidden_page_is_not_followed(served: Served, visit: Visit) -> None:
    """It gets the changes when it is seen again; so many windows can be open."""
    pages = [visit.open() for _ in range(7)]
    for page in pages[:6]:
        page.evaluate(_HIDE, arg=True)
    served.publish(*running_run())
    expect(pages[6].locator("main")).to_contain_text("Invert")
    hidden = [text_of(page) for page in pages[:6]]
    pages[0].evaluate(_HIDE, arg=False)
    expect(pages[0].locator("main")).to_contain_text("Invert")

    assert not any("Invert" in text for text in hidden)


def text_of(page: Page) -> str:
    """Return the text of a page."""
    return page.locator("main").inner_text()
