"""
The process of the dashboard: it keeps the store of runs, as `collect` does, and serves pages about it.

Not here: the application (app), and the server (server).
"""

from collections.abc import Callable
from contextlib import ExitStack

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.consumer.group import Group
from dkist_processing_core.dashboard.app import Application
from dkist_processing_core.dashboard.server import served
from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.settings.interface import Settings


class Dashboard:
    """The dashboard of one store. `run` has its threads."""

    def __init__(self, settings: Settings, *, host: str = "127.0.0.1", port: int = 8088) -> None:
        """Store where to serve. No connection is opened."""
        self._settings = settings
        self._address = host, port
        self._group = Group(settings)

    def stop(self) -> None:
        """Make `run` return in good order. Any thread and any signal handler may call this."""
        self._group.stop()

    def run(self, opened: Callable[[str], object]) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; `opened` is called with the address."""
        with ExitStack() as stack:
            collector = stack.enter_context(Collector(self._settings))
            member = stack.enter_context(collector.service())
            site = Site(bus=collector.bus.where, store=collector.where, version="")
            application = Application(site, collector.questions)
            opened(stack.enter_context(served(application.app, *self._address, application.live.end)))
            self._group.run(lambda: [member])
