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

from dkist_processing_core.metrics.measurement import Distribution, Exemplar, Kind, Measurement, Metric, Number
from dkist_processing_core.text import encodable

_KINDS = {
    Kind.COUNTER: "counter",
    Kind.UP_DOWN_COUNTER: "gauge",
    Kind.GAUGE: "gauge",
    Kind.HISTOGRAM: "histogram",
}


_Attributes = tuple[tuple[str, str], ...]
_EOF = b"# EOF\n"


class Exposition:
    """
    Renders snapshots, and keeps the text of each value until the value changes.

    Most values are those of the last time, and rendering a histogram takes a hundred times as long as comparing it.
    """

    def __init__(self, resource: Mapping[str, str]) -> None:
        """Store the attributes of this process, which become the labels of `target_info`."""
        self._resource = resource
        self._kept: dict[str, dict[tuple[str, _Attributes], tuple[Number | Distribution, bytes]]] = {}

    def rendered(self, measurements: Sequence[Measurement], accept: str = "") -> tuple[bytes, str]:
        """
        Return a snapshot as text, and its content type.

        Args:
            measurements: The metrics with their values.
            accept: The forms that the client accepts, as in the header `Accept` of HTTP.
        """
        encode, content_type = choose_encoder(accept)

        def text_of(exposed: Exposed) -> bytes:
            text: bytes = encode(_Registry(exposed))
            return text.removesuffix(_EOF)

        before = self._kept.get(content_type, {})
        kept = self._kept[content_type] = {}
        parts: list[bytes] = []
        for measurement in measurements:
            head = text_of(_exposed(measurement.metric, ()))
            parts.append(head)
            for value in measurement.values:
                key = measurement.metric.name, tuple(value.attributes.items())
                known = before.get(key)
                if known is None or known[0] != value:
                    known = value, text_of(_exposed(measurement.metric, [value])).removeprefix(head)
                kept[key] = known
                parts.append(known[1])
        info = Exposed("target", "The process that serves these metrics.", "info")
        info.add_sample("target_info", _labels(self._resource), 1)
        parts.append(text_of(info))
        if content_type.startswith("application/openmetrics-text"):
            parts.append(_EOF)
        return b"".join(parts), content_type


class _Registry:
    """What prometheus-client takes for a registry."""

    def __init__(self, exposed: Exposed) -> None:
        self._exposed = exposed

    def collect(self) -> Iterator[Exposed]:
        yield self._exposed


def _exposed(metric: Metric, values: Sequence[Number | Distribution]) -> Exposed:
    exposed = Exposed(metric.prometheus_name, metric.meaning, _KINDS[metric.kind], metric.prometheus_unit)
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    for value in values:
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
    return {encodable(name).replace(".", "_"): encodable(value) for name, value in attributes.items()}


def _exemplar(exemplar: Exemplar | None) -> ExposedExemplar | None:
    if exemplar is None:
        return None
    return ExposedExemplar({"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}, exemplar.value, exemplar.at)
