"""
The consumers that a process runs to notify people by the routes of a file.

Not here: running them (consumer.group).
"""

import time
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.notify.counting import counting_consumer
from dkist_processing_core.notify.delivery import delivery
from dkist_processing_core.notify.routes import routes_in
from dkist_processing_core.settings.interface import Settings


def consumers(settings: Settings, path: Path, *, clock: Callable[[], float] = time.time) -> list[Consumer]:
    """
    Return the consumer that counts for the routes of a file, and one for each route that delivers its notices.

    Raises:
        ConfigurationError: The file cannot be read, or a route is wrong.
    """
    routes = routes_in(path)
    counting = counting_consumer(settings, routes, clock=clock)
    return [counting, *(delivery(settings, name, route) for name, route in routes.items())]
