"""
The meter provider of a process: the host application's, or our own, which is made when an instrument is first used.

Not here: our provider and its exporters (_providers).
"""

import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics

from dkist_processing_core.process import forks


class LazyMeterProvider(metrics.MeterProvider):
    """A provider that makes the SDK's one for the first meter: many tasks measure nothing, and need no import of it."""

    def __init__(self, make: Callable[[], metrics.MeterProvider | None]) -> None:
        """Store the function that makes the provider, and returns None if it cannot be made."""
        self._make = make

    @forks.computed_once
    def _made(self) -> Any:
        return self._make() or metrics.NoOpMeterProvider()

    @property
    def is_used(self) -> bool:
        """Whether there is a meter."""
        return "_made" in vars(self)

    def get_meter(self, *names: Any, **options: Any) -> metrics.Meter:
        """Return a meter of the SDK's provider."""
        meter: metrics.Meter = self._made.get_meter(*names, **options)
        return meter

    def force_flush(self, *timeout: Any, **options: Any) -> bool:
        """Collect the metrics, if there is a meter."""
        flush = getattr(self._made, "force_flush", None) if self.is_used else None
        return flush is None or bool(flush(*timeout, **options))


def hosts_meter_provider() -> metrics.MeterProvider | None:
    """Return the provider that the host application has set up, otherwise None; this check does not import the SDK."""
    sdk = sys.modules.get("opentelemetry.sdk.metrics")
    provider = metrics.get_meter_provider()
    return provider if sdk is not None and isinstance(provider, sdk.MeterProvider) else None
