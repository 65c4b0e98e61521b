"""
Fixtures of the tests of the dashboard: Chromium, a dashboard on the embedded journal, and a visitor.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.dashboard.ground import Served, Visit, chromium, dashboard


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """
    Chromium for the tests of a module: an event loop runs in this thread meanwhile, which other tests must not have.
    """
    with chromium() as browser:
        yield browser


@pytest.fixture
def served() -> Iterator[Served]:
    """
    A dashboard on an empty embedded journal.
    """
    with dashboard() as served:
        yield served


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    """
    A visitor of the dashboard, who fails the test if the browser complains or asks another address.
    """
    visit = Visit(browser, served.address)
    yield visit
    visit.close()
    assert (visit.complaints, visit.foreign) == ([], [])
