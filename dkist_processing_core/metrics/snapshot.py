"""
One snapshot of all metrics of a process, from the parts that measure.

Not here: the parts (collect, consumer, outbox), and the server (serving).
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from dkist_processing_core import semconv
from dkist_processing_core.errors import DKISTProcessingCoreError, ExtraMissingError
from dkist_processing_core.metrics.measurement import Measurement
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.metrics.exposition import Exposition

# The form that Prometheus requests: https://prometheus.io/docs/instrumenting/content_negotiation/
_PROMETHEUS_ACCEPTS = "application/openmetrics-text;version=1.0.0"
Source = Callable[[], Iterable[Measurement]]
logger = logging.getLogger(__name__)


class Snapshot:
    """Reads the parts of a process when it is asked; several threads may ask."""

    def __init__(
        self,
        sources: Sequence[Source],
        settings: Settings,
        *,
        shared: Sequence[Source] = (),
        sends_shared: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Store the parts. Nothing is read yet.

        Args:
            sources: Each returns some of the measurements; a metric is in one of them only.
            settings: The settings of this process, by which its attributes and its collector are named.
            shared: Sources of values that other processes serve as well, such as totals in a database.
            sends_shared: Whether this is the one of them that sends these values to the collector.
        """
        self._sources = sources
        self._shared = shared
        self._sends_shared = sends_shared
        self.settings = settings
        self.resource = resource_of(settings)
        self.began_at = time.time()
        """When the process began to measure, in seconds since 1970."""
        self._reading = threading.Lock()
        self._exposition: Exposition | None = None
        # The sources that could not be read the last time.
        self._failed: set[Source] = set()

    def measurements(self, *, to_send: bool = False) -> list[Measurement]:
        """
        Return the present values. A part that cannot be read, as in an outage of its database, is left out.

        Args:
            to_send: Leave out the values that another process sends: a collector adds up those of all processes.
        """
        found: list[Measurement] = []
        for source in (*self._sources, *(() if to_send and not self._sends_shared() else self._shared)):
            try:
                found += source()
            except DKISTProcessingCoreError as error:
                if source not in self._failed:
                    self._failed.add(source)
                    logger.warning("some metrics are left out: %s", error)
            else:
                self._failed.discard(source)
        return found

    def prepare(self) -> None:
        """Render the present values, so that the first request renders only what has changed since."""
        # An error is that of a request, which meets it again.
        with suppress(Exception):
            self.rendered(_PROMETHEUS_ACCEPTS, patience=0.0)

    def rendered(self, accept: str, *, patience: float) -> tuple[bytes, str] | None:
        """
        Return the present values as text for Prometheus, and its content type.

        Args:
            accept: The forms that the client accepts, as in the header `Accept` of HTTP.
            patience: How many seconds to wait for another thread that reads; then the result is None.
        """
        from dkist_processing_core.metrics.exposition import Exposition  # noqa: PLC0415 - it needs an extra

        if not self._reading.acquire(timeout=patience):
            return None
        try:
            self._exposition = self._exposition or Exposition(self.resource)
            return self._exposition.rendered(self.measurements(), accept)
        finally:
            self._reading.release()


def check_extra() -> None:
    """
    Check that metrics can be served.

    Raises:
        ExtraMissingError: prometheus-client is missing.
    """
    try:
        import prometheus_client  # noqa: F401, PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ExtraMissingError("consumer", "metrics are served", str(error.name)) from error


def resource_of(settings: Settings) -> dict[str, str]:
    """Return the attributes of this process, as its spans have them; each process has an instance id."""
    return {"service.instance.id": str(uuid.uuid4())} | semconv.resource_attributes(settings)
