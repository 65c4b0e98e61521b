"""
The process of the dashboard: it keeps the store of runs, as `collect` does, and serves pages about it.

Not here: the application (app), and the server (server).
"""

from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.consumer.group import Group
from dkist_processing_core.dashboard.app import Application
from dkist_processing_core.dashboard.bus_status import BusStatus
from dkist_processing_core.dashboard.letters import Letters
from dkist_processing_core.dashboard.options import options
from dkist_processing_core.dashboard.server import served
from dkist_processing_core.dashboard.site import Site
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

    def run(self, opened: Callable[[str], object]) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; `opened` is called with the address."""
        found = self._options
        with ExitStack() as stack:
            collector = stack.enter_context(Collector(self._settings))
            member = stack.enter_context(collector.service())
            status = BusStatus(self._settings)
            stack.enter_context(status.kept())
            site = Site(
                bus=collector.bus.where,
                store=collector.where,
                version=version("dkist-processing-core"),
                bus_status=status,
                letters=Letters(self._settings),
                is_read_only=found.rules.is_read_only,
                trace_url=found.trace_url,
                log_url=found.log_url,
            )
            application = Application(found, site, collector.questions)
            serving = served(application.app, found.host, found.port, application.live.end)
            opened(stack.enter_context(serving))
            self._group.run(lambda: [member])
