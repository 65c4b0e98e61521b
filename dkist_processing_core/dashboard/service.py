"""
The process of the dashboard: it keeps the store of runs, as `collect` does, and serves pages about it.

Not here: the application (app), and the server (http.server).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from dkist_processing_core.bus import open_bus
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.consumer.exposing import Serving
from dkist_processing_core.consumer.group import Group
from dkist_processing_core.consumer.member import Member
from dkist_processing_core.dashboard.app import Application
from dkist_processing_core.dashboard.backend import Backend
from dkist_processing_core.dashboard.bus.letters import Letters
from dkist_processing_core.dashboard.bus.status import BusStatus
from dkist_processing_core.dashboard.http.server import served
from dkist_processing_core.dashboard.options import options
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.settings.interface import Settings


class Dashboard:
    """The dashboard of one store. `run` has its threads."""

    def __init__(self, settings: Settings, **given: Any) -> None:
        """
        Store the settings. No connection is opened.

        Args:
            settings: The settings of this process.
            given: Options that take the place of settings, as for `dashboard.options.options`.

        Raises:
            ConfigurationError: An option is wrong.
        """
        self._settings = settings
        self._options = options(settings, **given)
        self._group = Group(settings)

    def stop(self) -> None:
        """Make `run` return in good order. Any thread and any signal handler may call this."""
        self._group.stop()

    def ending(self) -> SignalSafeFlag:
        """Return a flag for another thread, which is raised when the end is requested."""
        return self._group.ending()

    def run(self, opened: Callable[[str], object]) -> None:
        """
        Serve until SIGTERM, SIGINT or `stop`. A bus or a database that cannot be reached is waited for.

        Args:
            opened: It is called with the address when pages are served.

        Raises:
            DKISTProcessingCoreError: Nothing can be served there, or the consumer has ended by this error.
        """
        found = self._options
        status = BusStatus(self._settings)
        site = Site(
            bus=open_bus(self._settings).where,
            store="",
            version=version("dkist-processing-core"),
            bus_status=status,
            letters=Letters(self._settings),
            is_read_only=found.rules.is_read_only,
            trace_url=found.trace_url,
            log_url=found.log_url,
        )
        backend = Backend(site)
        application = Application(found, backend)
        with ExitStack() as stack:
            # What the pages use is closed after their server.
            used = stack.enter_context(ExitStack())
            used.enter_context(status.kept())
            serving = served(
                application.app,
                found.host,
                found.port,
                measures=application.measures,
                before_end=application.live.end,
                failed=self._group.stop,
            )
            opened(stack.enter_context(serving))
            exposing = Serving(backend.attached, has_metrics=True)
            self._group.run(lambda: self._members(backend, used), sources=[application.measures.read], serving=exposing)

    def _members(self, backend: Backend, used: ExitStack) -> Iterator[Member]:
        """Yield the consumer that keeps the store, when that can be reached."""
        found = self._group.when_reachable(self._open_store)
        if found is not None:
            collector, member, opened = found
            used.push(opened)
            backend.open_store(collector)
            yield member

    def _open_store(self) -> tuple[Collector, Member, ExitStack]:
        with ExitStack() as opening:
            collector = opening.enter_context(Collector(self._settings))
            return collector, opening.enter_context(collector.service()), opening.pop_all()
