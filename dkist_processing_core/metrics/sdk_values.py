"""
A snapshot as the values of OpenTelemetry's SDK, which its encoder turns into OTLP.

It imports the SDK. Not here: the text for Prometheus (exposition).
"""

import time
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.metrics import Exemplar as SdkExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from dkist_processing_core import semconv
from dkist_processing_core.metrics.measurement import Distribution, Exemplar, Kind, Measurement, Number

_NANOSECONDS = 1e9


def data_of(measurements: Sequence[Measurement], resource: Mapping[str, str], began_at: float) -> MetricsData:
    """
    Return a snapshot of cumulative values.

    Args:
        measurements: The metrics with their values.
        resource: The attributes of this process.
        began_at: When it began, in seconds since 1970.
    """
    now = time.time_ns()
    metrics = [_metric(measurement, now, began_at) for measurement in measurements if measurement.values]
    of_scope = ScopeMetrics(InstrumentationScope(semconv.SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(Resource(dict(resource)), [of_scope], "")])


def _metric(measurement: Measurement, now: int, began_at: float) -> Metric:
    metric, cumulative = measurement.metric, AggregationTemporality.CUMULATIVE
    numbers = [_number(each, now, began_at) for each in measurement.values if isinstance(each, Number)]
    data: Gauge | Sum | Histogram
    if metric.kind is Kind.HISTOGRAM:
        found = [each for each in measurement.values if isinstance(each, Distribution)]
        data = Histogram([_distribution(each, metric.bounds, now, began_at) for each in found], cumulative)
    elif metric.kind is Kind.GAUGE:
        data = Gauge(numbers)
    else:
        data = Sum(numbers, cumulative, metric.kind is Kind.COUNTER)
    return Metric(metric.name, metric.meaning, metric.unit, data)


def _number(number: Number, now: int, began_at: float) -> NumberDataPoint:
    return NumberDataPoint(dict(number.attributes), _start(number, began_at), now, number.value)


def _distribution(found: Distribution, bounds: Sequence[float], now: int, began_at: float) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=dict(found.attributes),
        start_time_unix_nano=_start(found, began_at),
        time_unix_nano=now,
        count=sum(found.counts),
        sum=found.total,
        bucket_counts=list(found.counts),
        explicit_bounds=bounds,
        # They are not known, and optional in OTLP; the SDK's type requires them.
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
        exemplars=[_exemplar(each) for each in found.exemplars.values()],
    )


def _start(value: Number | Distribution, began_at: float) -> int:
    return int((began_at if value.began_at is None else value.began_at) * _NANOSECONDS)


def _exemplar(exemplar: Exemplar) -> SdkExemplar:
    return SdkExemplar(
        {}, exemplar.value, int(exemplar.at * _NANOSECONDS), int(exemplar.span_id, 16), int(exemplar.trace_id, 16)
    )
