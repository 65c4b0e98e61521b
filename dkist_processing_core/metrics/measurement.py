"""
One snapshot of metrics as plain values: what is measured, and the numbers and distributions of one moment.

Not here: the metrics that there are (declarations), and the forms in which a snapshot is sent (exposition, sdk_values).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How the values of a metric change, by OpenTelemetry's names."""

    COUNTER = "counter"
    """A sum that never falls."""
    UP_DOWN_COUNTER = "up-down counter"
    """A sum that may fall; a gauge in Prometheus."""
    GAUGE = "gauge"
    """A value that cannot be added to that of another process."""
    HISTOGRAM = "histogram"


_UNITS = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of a metric."""

    name: str
    """By OpenTelemetry's rules."""
    kind: Kind
    unit: str
    """By UCUM; an annotation in braces for things that are counted; empty for a state."""
    meaning: str
    attributes: tuple[str, ...] = ()
    """The names of its attributes; one that does not apply to a value is left out there."""
    bounds: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets; the last bucket has none."""

    @property
    def prometheus_unit(self) -> str:
        """The unit in a name for Prometheus; empty for things that are counted, and for a state."""
        return _UNITS.get(self.unit, "")

    @property
    def prometheus_name(self) -> str:
        """
        The name in Prometheus, without the suffix of a counter.

        See https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/.
        """
        name = self.name.replace(".", "_")
        return f"{name}_{self.prometheus_unit}" if self.prometheus_unit else name

    @property
    def series_name(self) -> str:
        """The name by which a query in Prometheus finds its values."""
        return f"{self.prometheus_name}_total" if self.kind is Kind.COUNTER else self.prometheus_name


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measured value, and the span in which it was measured."""

    value: float
    at: float
    """When, in seconds since 1970."""
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Number:
    """The value of a counter or a gauge for one set of attributes."""

    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)
    began_at: float | None = None
    """When a sum was zero, in seconds since 1970; None for the start of the process."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of a histogram for one set of attributes."""

    counts: Sequence[int]
    """The number of values in each bucket, one more than there are bounds."""
    total: float
    """The sum of all values."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    began_at: float | None = None
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)
    """An exemplar of some buckets, by their place."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric with its present values."""

    metric: Metric
    values: Sequence[Number | Distribution]


def measured(metric: Metric, value: float, attributes: Mapping[str, str] | None = None) -> Measurement:
    """Return a measurement with one number."""
    return Measurement(metric, [Number(value, attributes or {})])
