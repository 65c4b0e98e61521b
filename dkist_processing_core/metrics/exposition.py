"""
A snapshot in the two text forms of Prometheus: OpenMetrics with exemplars, and the older one.

It needs prometheus-client, which the extra `consumer` installs. Not here: answering requests (serving).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric as Exposed
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar as ExposedExemplar
from prometheus_client.utils import floatToGoString

from dkist_processing_core.metrics.measurement import Distribution, Exemplar, Kind, Measurement

_KINDS = {
    Kind.COUNTER: "counter",
    Kind.UP_DOWN_COUNTER: "gauge",
    Kind.GAUGE: "gauge",
    Kind.HISTOGRAM: "histogram",
}


def rendered(measurements: Sequence[Measurement], resource: Mapping[str, str], accept: str = "") -> tuple[bytes, str]:
    """
    Return a snapshot as text, and its content type.

    Args:
        measurements: The metrics with their values.
        resource: The attributes of this process, which become the labels of `target_info`.
        accept: The forms that the client accepts, as in the header `Accept` of HTTP.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Snapshot(measurements, resource)), content_type


class _Snapshot:
    """What prometheus-client takes for a registry."""

    def __init__(self, measurements: Sequence[Measurement], resource: Mapping[str, str]) -> None:
        self._measurements = measurements
        self._resource = resource

    def collect(self) -> Iterator[Exposed]:
        yield from map(_exposed, self._measurements)
        info = Exposed("target", "The process that serves these metrics.", "info")
        info.add_sample("target_info", _labels(self._resource), 1)
        yield info


def _exposed(measurement: Measurement) -> Exposed:
    metric = measurement.metric
    exposed = Exposed(metric.prometheus_name, metric.meaning, _KINDS[metric.kind], metric.prometheus_unit)
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    for value in measurement.values:
        labels = _labels(value.attributes)
        if isinstance(value, Distribution):
            counts = list(accumulate(value.counts))
            for place, (bound, count) in enumerate(zip(bounds, counts, strict=True)):
                exemplar = _exemplar(value.exemplars.get(place))
                exposed.add_sample(f"{exposed.name}_bucket", labels | {"le": bound}, count, exemplar=exemplar)
            exposed.add_sample(f"{exposed.name}_count", labels, counts[-1])
            exposed.add_sample(f"{exposed.name}_sum", labels, value.total)
        else:
            exposed.add_sample(metric.series_name, labels, value.value)
    return exposed


def _labels(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name.replace(".", "_"): value for name, value in attributes.items()}


def _exemplar(exemplar: Exemplar | None) -> ExposedExemplar | None:
    if exemplar is None:
        return None
    return ExposedExemplar({"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}, exemplar.value, exemplar.at)
