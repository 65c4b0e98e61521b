"""
A page as a viewer gets it: as a whole, or only its live parts.

Not here: the values of a page (pages), the templates (rendering), and sending the parts (live).
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.addresses.times import moment_in
from dkist_processing_core.dashboard.asked import Asked, Page, PageError, PageFunction
from dkist_processing_core.dashboard.backend import Backend, Freshness
from dkist_processing_core.dashboard.html import rendering
from dkist_processing_core.dashboard.http.access import Role, Rules
from dkist_processing_core.errors import DKISTProcessingCoreError

_T = TypeVar("_T")
STATIC = Path(__file__).parents[1] / "static"
"""The folder of the files that pages load."""
SAVE = "save"
"""The parameter of the address of a page that is saved as one file."""
_NOT_FOUND, _UNAVAILABLE = 404, 503
_MOST_COSTLY, _COSTLY_SECONDS = 2, 0.5


class Viewing:
    """The pages of one dashboard. Its methods read the store, and are called in threads."""

    def __init__(self, pages: Mapping[str, PageFunction], rules: Rules, backend: Backend) -> None:
        """Store the page of each path, who may do what, and what is shown."""
        self._pages = pages
        self._rules = rules
        self._backend = backend
        self._costly = threading.BoundedSemaphore(_MOST_COSTLY)

    def revision(self) -> object:
        """Return a value that differs after each change of what pages show, other than by the time."""
        bus = self._backend.site.bus_status.latest()
        of_bus = self._backend.bus_state, bus.problem, bus.part_problem, bus.dead, bus.pending, bus.set_aside
        with self._backend.questions() as questions:
            return questions.revision(), of_bus

    def whole(
        self, path: str, query: Mapping[str, str], role: Role, *, saved_from: str | None = None
    ) -> tuple[str, int]:
        """
        Return the HTML of a page and its status; of one that cannot be shown, the page that explains it.

        Args:
            path: The path of the page.
            query: The parameters of its address.
            role: The role of the viewer.
            saved_from: The address of the dashboard for a page that is one file, without scripts; None for another one.
        """
        try:
            page, freshness = self._page(path, query)
        except PageError as error:
            page, freshness = _refusal(str(error), error.status), None
        except DKISTProcessingCoreError as error:
            page, freshness = _refusal(str(error), _UNAVAILABLE), None
        common = self._common(path, query, role, freshness, is_live=page.is_live)
        if saved_from is not None:
            # A form in a file cannot change anything.
            common |= {"saved_from": saved_from, "live_address": None, "save_address": None}
            common |= {"may_change": False, "form_token": None, "may_log_out": False}
        return rendering.whole(page, common), page.status

    def refusal(self, path: str, status: int, message: str) -> str:
        """Return a page that explains why a request is refused."""
        return rendering.whole(_refusal(message, status), self._common(path, {}, None))

    def login(self, after: str, error: str | None) -> str:
        """Return the page to log in, for the address that follows it."""
        page = Page("Log in", "login.html", {"after": after, "error": error})
        return rendering.whole(page, self._common("/login", {}, None))

    def parts(self, of: str, role: Role) -> dict[str, str]:
        """
        Return the live parts of the page at an address, by their ids.

        Raises:
            PageError: There is no such page, or it is not live.
        """
        try:
            split = urlsplit(of)
        except ValueError as error:
            msg = f"found {of!r}, expected the address of a page"
            raise PageError(msg) from error
        query = dict(parse_qsl(split.query))
        if split.scheme or split.netloc or "at" in query:
            msg = f"found the address {of!r}, expected that of a page about the present"
            raise PageError(msg)
        if split.path not in self._pages:
            # This is final, other than a run that the store does not have yet.
            raise PageError(self._no_page(split.path))
        page, freshness = self._page(split.path, query)
        if not page.is_live:
            msg = f"the page at {of!r} does not change until it is loaded again"
            raise PageError(msg)
        return rendering.live_parts(page, self._common(split.path, query, role, freshness))

    def answer_of(self, path: str, query: Mapping[str, str], answer: Callable[[Asked, Freshness], _T]) -> _T:
        """
        Return the answer of a function to a request.

        Raises:
            PageError: The address is wrong, or too many others ask for what takes long.
            DKISTProcessingCoreError: The store cannot be used now.
        """
        if any("\0" in text for text in query.values()):
            raise PageError("found a NUL character in the address, which no name contains")
        now = datetime.now(UTC)
        at = moment_in("at", query.get("at"), now)
        is_costly = at is not None or path.endswith("/compare")
        with self._room() if is_costly else nullcontext(), self._backend.questions() as questions:
            asked = Asked(path, query, questions, now, at, self._backend.site)
            return answer(asked, self._backend.freshness(questions))

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Let only few requests at a time read whole runs; others would wait for them."""
        if not self._costly.acquire(timeout=_COSTLY_SECONDS):
            msg = "other requests about the past, or for comparisons, are being answered; try again in some seconds"
            raise PageError(msg, _UNAVAILABLE)
        try:
            yield
        finally:
            self._costly.release()

    def _page(self, path: str, query: Mapping[str, str]) -> tuple[Page, Freshness]:
        page = self._pages.get(path)
        if page is None:
            raise PageError(self._no_page(path), _NOT_FOUND)
        return self.answer_of(path, query, lambda asked, freshness: (page(asked), freshness))

    def _no_page(self, path: str) -> str:
        return f"there is no page {path!r}, expected one of {', '.join(self._pages)}"

    def _common(
        self,
        path: str,
        query: Mapping[str, str],
        role: Role | None,
        freshness: Freshness | None = None,
        *,
        is_live: bool = True,
    ) -> dict[str, object]:
        """Return the values that each page has; only those that are the same for all viewers of a role."""
        may_change = role is Role.OPERATOR
        # A page about the past does not change, and one for everybody is not rendered from the store.
        is_live = is_live and role is not None and not query.get("at")
        site = self._backend.site
        return {
            # People who have not logged in need not know where bus and store are.
            "site": replace(site, bus="", store="") if role is None else site,
            "path_of_page": path,
            "live_address": address("/live", of=address(path, **query)) if is_live else None,
            "save_address": address(path, **{**query, SAVE: "1"}) if role is not None else None,
            # The address of the dashboard in a page that is one file.
            "saved_from": None,
            "saved_at": datetime.now(UTC),
            "static": static_address,
            # None for a page that shows nothing of the store.
            "freshness": freshness,
            "may_change": may_change,
            # Each form of a page contains it as the field `form_token`.
            "form_token": self._rules.form_token if may_change else None,
            "may_log_out": role is not None and bool(self._rules.tokens),
        }


def _refusal(message: str, status: int) -> Page:
    return Page("Not shown", "error.html", {"message": message}, status)


def static_address(name: str) -> str:
    """Return the address of a file that browsers may keep: it contains the digest of the file."""
    return f"/static/{name}?{digest_of(name)}"


@cache
def digest_of(name: str) -> str:
    """Return the digest of a file that pages load."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:16]
