"""
A page in a window that is hidden holds no connection, and shows the latest state when it is seen again.
"""

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.ground import Served, Visit
from tests.stored import running_run

_HIDE = """(isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


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
