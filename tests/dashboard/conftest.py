"""
Fixtures of the tests of the dashboard: Chromium, a dashboard on the embedded journal, and a visitor.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@pytest.fixture(scope="module")
def served_module(_state_root: Path) -> Iterator[Served]:
    """
    A dashboard that the tests of a module share, which only look at it.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = _state_root / f"dashboard-{uuid.uuid4().hex}"
        folder.mkdir(mode=0o700)
        patch.setenv("DKIST_CORE_STATE_DIR", str(folder))
        with dashboard() as served:
            yield served


@contextmanager
def _visiting(browser: Browser, served: Served) -> Iterator[Visit]:
    """
    Yield a visitor, and fail if the browser complains or asks another address.
    """
    visit = Visit(browser, served.address)
    yield visit
    visit.close()
    assert (visit.complaints, visit.foreign) == ([], [])


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    """
    A visitor of the dashboard of the test.
    """
    with _visiting(browser, served) as visit:
        yield visit


@pytest.fixture
def look(browser: Browser, served_module: Served) -> Iterator[Visit]:
    """
    A visitor of the dashboard of the module.
    """
    with _visiting(browser, served_module) as visit:
        yield visit
