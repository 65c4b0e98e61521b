"""
A store in memory for tests of pages without a server: the values of a page, and its HTML.

Not here: a dashboard with its server (serving, ground).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import METADATA
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.asked import Asked, Page
from dkist_processing_core.dashboard.backend import Backend, Freshness
from dkist_processing_core.dashboard.bus.letters import Letters
from dkist_processing_core.dashboard.bus.status import BusStatus
from dkist_processing_core.dashboard.html.viewing import Viewing
from dkist_processing_core.dashboard.http.access import Role, Rules
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.events import Event
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON

NOW = NOON + timedelta(minutes=5)
TRACE_URL = "https://traces.example/{trace_id}?span={span_id}"
LOG_URL = "https://logs.example/{workflow}/{version}/{run_id}/{task}/{attempt}"


def site(**options: Any) -> Site:
    """
    Return the facts of a dashboard, with templates of links to traces and logs unless the options have others.
    """
    settings = read_settings()
    known: dict[str, Any] = {"bus": "amqp://bus.example", "store": "sqlite://", "version": "1.0"}
    known |= {"trace_url": TRACE_URL, "log_url": LOG_URL}
    return Site(bus_status=BusStatus(settings), letters=Letters(settings), **known | options)


class OneStore:
    """
    A store with some reports.
    """

    def __init__(self, connection: Connection, store: Store) -> None:
        """
        Store the connection to it.
        """
        self.questions = Questions(connection)
        self.connection = connection
        self._store = store

    def add(self, *reports: Event) -> None:
        """
        Add reports.
        """
        for report in reports:
            self._store.add(self.connection, report)
        while self._store.fold(self.connection, 100):
            pass

    def page(self, address: str, *, now: datetime = NOW, **options: Any) -> Page:
        """
        Return the page at an address; the options are those of the site.
        """
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query))
        at = datetime.fromisoformat(query["at"]) if "at" in query else None
        return PAGES[parts.path](Asked(parts.path, query, self.questions, now, at, site(**options)))

    def statements(self, address: str) -> list[str]:
        """
        Return the statements with which the page at an address reads the store.
        """
        found: list[str] = []

        def listen(*values: Any) -> None:
            found.append(values[2])

        event.listen(self.connection, "before_cursor_execute", listen)
        self.page(address)
        event.remove(self.connection, "before_cursor_execute", listen)
        return found

    def html(self, address: str) -> str:
        """
        Return the HTML of the page at an address.
        """
        text, status = self.answer(address)
        assert status == 200
        return text

    def answer(self, address: str) -> tuple[str, int]:
        """
        Return the HTML and the status of the answer at an address.
        """
        parts = urlsplit(address)
        return self._viewing().whole(parts.path, dict(parse_qsl(parts.query)), Role.OPERATOR)

    def parts(self, address: str) -> dict[str, str]:
        """
        Return the live parts of the page at an address.
        """
        return self._viewing().parts(address, Role.OPERATOR)

    def _viewing(self) -> Viewing:
        return Viewing(PAGES, Rules(), _Opened(self.questions))


class _Opened(Backend):
    """
    The backend of an open store, without consumers.
    """

    def __init__(self, questions: Questions) -> None:
        """
        Store what answers questions about it.
        """
        super().__init__(site())
        self._questions = questions

    @contextmanager
    def questions(self) -> Iterator[Questions]:
        """
        Yield it.
        """
        yield self._questions

    def freshness(self, questions: Questions) -> Freshness:  # noqa: ARG002 - it is that of the whole store
        """
        Return that the bus can be reached.
        """
        return Freshness(is_bus_reachable=True, complete_until=None)


@contextmanager
def one_store(reports: Iterable[Event], *, now: datetime = NOW) -> Iterator[OneStore]:
    """
    Yield a store of reports that were received at `now`.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    METADATA.create_all(engine)
    with engine.connect() as connection, connection.begin():
        store = OneStore(connection, Store(clock=now.timestamp))
        store.add(*reports)
        yield store
    engine.dispose()
