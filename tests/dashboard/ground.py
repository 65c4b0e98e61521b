"""
The ground of the tests of the dashboard: a dashboard on the embedded journal, and pages of it in Chromium.

Not here: the fixtures (conftest), and reports of whole runs (tests.stored).
"""

import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from sqlalchemy import func, select

from dkist_processing_core.collect.collector import NAME
from dkist_processing_core.collect.tables import REPORTS
from dkist_processing_core.dashboard.service import Dashboard
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, encode
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.counts import first_unhandled
from dkist_processing_core.inbox.tables import inbox
from dkist_processing_core.settings.reading import read_settings
from tests.waiting import SECONDS, wait_until

WIDTHS = (360, 1280, 2560)
"""The widths, in pixels, at which each page is to be readable: a phone, a desk, a wall."""
_HEIGHTS = {360: 740, 1280: 800, 2560: 1440}
_LOAD_MILLISECONDS = SECONDS * 1000
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
_GRAVE = ("serious", "critical")


class Served:
    """
    A dashboard that serves the bus and the store of the settings.
    """

    def __init__(self, address: str) -> None:
        """
        Store the address, which ends with `/`.
        """
        self.address = address
        self._settings = read_settings()
        self._published: set[bytes] = set()

    def at(self, path: str) -> str:
        """
        Return the whole address of a path.
        """
        return self.address + path.removeprefix("/")

    def is_ready(self) -> bool:
        """
        Return True if bus and store are in use.
        """
        try:
            with urllib.request.urlopen(self.at("/health/ready"), timeout=SECONDS) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except urllib.error.URLError:
            # It is not, or has ended.
            return False

    def publish(self, *events: Event) -> None:
        """
        Publish events, and wait until the pages show them.
        """
        with Publisher.open(self._settings) as publisher:
            publisher.publish(*events)
            self._published |= {encode(event) for event in events}
            assert publisher.flush(SECONDS)
        with closing(Database.open_existing(None, self._settings)) as database:
            wait_until(lambda: self._has_all(database))

    def _has_all(self, database: Database) -> bool:
        of_store = inbox.c.consumer == NAME
        with database.reading() as connection:
            # In the order in which an event goes through the process.
            if connection.execute(select(func.count()).where(of_store)).scalar_one() < len(self._published):
                return False
            if first_unhandled(connection, NAME) is not None:
                return False
            return connection.execute(select(REPORTS.c.number).limit(1)).first() is None


@contextmanager
def dashboard(*, is_awaited: bool = True, **options: Any) -> Iterator[Served]:
    """
    Serve a dashboard with the settings of the environment, on a free port of this host, during the block.

    Args:
        is_awaited: Whether the block begins when bus and store are in use, and not before.
        options: Those of the dashboard.
    """
    opened = threading.Event()
    addresses: list[str] = []
    errors: list[BaseException] = []

    def note(address: str) -> None:
        addresses.append(address)
        opened.set()

    served = Dashboard(read_settings(), **{"port": 0} | options)

    def run() -> None:
        try:
            served.run(note)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread of the test
            errors.append(error)
        finally:
            opened.set()

    thread = threading.Thread(target=run, name="dashboard under test")
    thread.start()
    try:
        assert opened.wait(SECONDS)
        if addresses:
            found = Served(addresses[0])
            if is_awaited:
                wait_until(lambda: bool(errors) or found.is_ready())
            if not errors:
                yield found
    finally:
        served.stop()
        thread.join(SECONDS)
    if errors:
        raise errors[0]
    assert not thread.is_alive()


@contextmanager
def chromium() -> Iterator[Browser]:
    """
    Run Chromium during the block.

    Meanwhile an event loop of Playwright runs in this thread, in which no other one can begin.
    """
    program = shutil.which("chromium")
    assert program is not None, "Chromium is missing: run tests/services/install_packages.sh as root"
    # Its sandbox refuses to run as root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


class Visit:
    """
    A visitor with a browser, and what the browser complains of.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        """
        Store the browser, and the address of the dashboard.
        """
        self.browser = browser
        self._address = address
        self._pages: list[Page] = []
        self.complaints: list[str] = []
        """Errors in the console, among them what the content security policy has refused, and exceptions."""
        self.foreign: list[str] = []
        """Requests to other addresses than the dashboard's."""

    def open(self, path: str = "/", *, width: int = 1280, theme: str = "light", **options: Any) -> Page:
        """
        Open a page in a new window.

        Args:
            path: The path with the query.
            width: The width of the window, in pixels.
            theme: The colour scheme of the system: `light` or `dark`.
            options: Further options of Playwright's `new_context`, as `java_script_enabled` and `timezone_id`.
        """
        size = {"width": width, "height": _HEIGHTS.get(width, 800)}
        settings: dict[str, Any] = {"viewport": size, "color_scheme": theme, "locale": "en-GB"}
        page = self.browser.new_context(**settings | options).new_page()
        page.set_default_timeout(_LOAD_MILLISECONDS)
        expect.set_options(timeout=_LOAD_MILLISECONDS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note_request)
        self._pages.append(page)
        page.goto(self._address + path.removeprefix("/"))
        return page

    def _note(self, message: ConsoleMessage) -> None:
        # A stream that ends is not a fault of the page.
        is_of_stream = urlsplit(message.location.get("url", "")).path == "/live"
        if message.type in ("error", "warning") and not is_of_stream:
            self.complaints.append(message.text)

    def _note_request(self, request: Request) -> None:
        if urlsplit(request.url)[:2] != urlsplit(self._address)[:2] and not request.url.startswith("data:"):
            self.foreign.append(request.url)

    def close(self) -> None:
        """
        Close all windows.
        """
        for page in self._pages:
            page.context.close()


def grave_violations(page: Page) -> list[str]:
    """
    Return the serious and critical violations of accessibility that axe-core finds in a page, with their elements.
    """
    found = Axe().run(page, options={**_RULES, "resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {each['help']}: {_first_of(each['nodes'])}" for each in found if each["impact"] in _GRAVE]


def _first_of(nodes: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{node['html'][:200]} ({node.get('failureSummary', '')[:300]})" for node in nodes[:3])


def overflow(page: Page) -> int:
    """
    Return by how many pixels a page is wider than its window.
    """
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


def check_on_screens(page: Page) -> None:
    """
    Fail if a page is wider than one of the windows, or has a serious violation of accessibility in one of the themes.
    """
    wider = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        wider[width] = overflow(page)
    page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    on_a_phone = grave_violations(page)
    page.set_viewport_size({"width": WIDTHS[1], "height": 800})
    page.emulate_media(color_scheme="dark")

    assert wider == dict.fromkeys(WIDTHS, 0)
    assert (on_a_phone, grave_violations(page)) == ([], [])
