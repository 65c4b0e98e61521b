"""
Metrics of long-running processes: their text for Prometheus, their form in OTLP, and the server that has them.
"""

import math
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import accumulate
from urllib.error import HTTPError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_in
from prometheus_client.parser import text_string_to_metric_families as text_metrics_in
from prometheus_client.samples import Sample

from dkist_processing_core.errors import ConfigurationError, ExtraMissingError, InboxUnavailableError
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.exposition import Exposition
from dkist_processing_core.metrics.measurement import (
    Distribution,
    Exemplar,
    Kind,
    Measurement,
    Metric,
    Number,
    measured,
)
from dkist_processing_core.metrics.sdk_values import data_of
from dkist_processing_core.metrics.serving import address_of, served
from dkist_processing_core.metrics.snapshot import Snapshot, check_extra, resource_of
from dkist_processing_core.settings.reading import read_settings

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DECLARED = [each for each in vars(declarations).values() if isinstance(each, Metric)]
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SPANS = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
_TIMES = st.floats(0, 2e9)


def attributes_of(metric: Metric) -> st.SearchStrategy[Mapping[str, str]]:
    """
    Return any attributes of a metric, of which each may be absent.
    """
    return st.fixed_dictionaries({}, optional=dict.fromkeys(metric.attributes, _TEXTS))


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    """
    Return any values of a declared metric.
    """
    metric = draw(st.sampled_from(DECLARED))
    sets = draw(st.lists(attributes_of(metric), max_size=3, unique_by=lambda each: tuple(sorted(each.items()))))
    # An empty label and a missing one are the same series in Prometheus.
    sets = [{name: value or "-" for name, value in each.items()} for each in sets]
    sets = [each for place, each in enumerate(sets) if each not in sets[:place]]
    if metric.kind is not Kind.HISTOGRAM:
        return Measurement(metric, [Number(draw(st.floats(0, 1e15)), each, draw(_TIMES)) for each in sets])
    values = []
    for each in sets:
        counts = draw(st.lists(st.integers(0, 10**6), min_size=len(metric.bounds) + 1, max_size=len(metric.bounds) + 1))
        exemplars = {}
        for place in draw(st.sets(st.sampled_from(range(len(counts))), max_size=2)):
            trace_id, span_id = draw(_SPANS)
            exemplars[place] = Exemplar(draw(st.floats(0, 1e9)), draw(_TIMES), f"{trace_id:032x}", f"{span_id:016x}")
        values.append(Distribution(counts, draw(st.floats(0, 1e15)), each, draw(_TIMES), exemplars))
    return Measurement(metric, values)


SNAPSHOTS = st.lists(measurements(), max_size=4, unique_by=lambda each: each.metric.name)


def expected_samples(found: Sequence[Measurement]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """
    Return the samples that a snapshot has in Prometheus, by name and labels.
    """
    samples = {}
    for measurement in found:
        name = measurement.metric.prometheus_name
        for value in measurement.values:
            labels = {key.replace(".", "_"): text for key, text in value.attributes.items()}
            if isinstance(value, Number):
                samples[measurement.metric.series_name, frozenset(labels.items())] = value.value
                continue
            for bound, count in zip([*measurement.metric.bounds, math.inf], accumulate(value.counts), strict=True):
                of_bucket = labels | {"le": str(float(bound)).replace("inf", "+Inf")}
                samples[f"{name}_bucket", frozenset(of_bucket.items())] = count
            samples[f"{name}_count", frozenset(labels.items())] = sum(value.counts)
            samples[f"{name}_sum", frozenset(labels.items())] = value.total
    return samples


def as_expected(sample: Sample) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
    """
    Return a parsed sample with its bound as a number, since each form writes large ones in another way.
    """
    labels = dict(sample.labels)
    if "le" in labels:
        labels["le"] = str(float(labels["le"])).replace("inf", "+Inf")
    return (sample.name, frozenset(labels.items())), sample.value


@given(SNAPSHOTS, SNAPSHOTS)
def test_both_texts_have_the_values_of_the_snapshot(earlier: list[Measurement], found: list[Measurement]) -> None:
    """
    A parser of each form reads names, labels and values back, whatever characters they have and came before.
    """
    exposition = Exposition({"service.name": "s"})
    for accept, metrics_in in (("text/plain", text_metrics_in), (OPEN_METRICS, open_metrics_in)):
        exposition.rendered(earlier, accept)
        body, content_type = exposition.rendered(found, accept)
        assert exposition.rendered(found, accept) == (body, content_type)
        assert content_type.startswith("text/plain" if accept == "text/plain" else "application/openmetrics-text")
        samples = [sample for each in metrics_in(body.decode()) for sample in each.samples]
        (target,) = [sample for sample in samples if sample.name == "target_info"]
        read = dict(map(as_expected, [sample for sample in samples if sample is not target]))
        assert target.labels == {"service_name": "s"}
        assert read == expected_samples(found)


@given(SNAPSHOTS)
def test_exemplars_are_in_the_text_that_can_have_them(found: list[Measurement]) -> None:
    """
    OpenMetrics has the span of each exemplar, in the bucket of its value.
    """
    body, _ = Exposition({}).rendered(found, OPEN_METRICS)
    read = [
        (sample.name, sample.exemplar.labels["trace_id"], sample.exemplar.labels["span_id"], sample.exemplar.value)
        for each in open_metrics_in(body.decode())  # type: ignore[no-untyped-call] # the library has no annotation here
        for sample in each.samples
        if sample.exemplar
    ]

    expected = [
        (f"{measurement.metric.prometheus_name}_bucket", exemplar.trace_id, exemplar.span_id, exemplar.value)
        for measurement in found
        for value in measurement.values
        if isinstance(value, Distribution)
        for exemplar in value.exemplars.values()
    ]
    assert sorted(read) == sorted(expected)
    assert b"trace_id" not in Exposition({}).rendered(found, "text/plain")[0]


@given(SNAPSHOTS)
def test_the_same_snapshot_is_encoded_for_a_collector(found: list[Measurement]) -> None:
    """
    Sums are cumulative, from the moment when they were zero, and histograms keep bounds, counts and exemplars.
    """
    request = encode_metrics(data_of(found, {"service.name": "s"}, began_at=1.0))

    (resource,) = request.resource_metrics
    arrived = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    assert set(arrived) == {each.metric.name for each in found if each.values}
    for measurement in found:
        for place, value in enumerate(measurement.values):
            metric = arrived[measurement.metric.name]
            if isinstance(value, Distribution):
                point = metric.histogram.data_points[place]
                assert list(point.bucket_counts) == list(value.counts)
                assert tuple(point.explicit_bounds) == measurement.metric.bounds
                assert {each.trace_id.hex() for each in point.exemplars} == {
                    each.trace_id for each in value.exemplars.values()
                }
            else:
                of_kind = metric.gauge if measurement.metric.kind is Kind.GAUGE else metric.sum
                point = of_kind.data_points[place]
                assert point.as_double == value.value
                assert metric.sum.is_monotonic == (measurement.metric.kind is Kind.COUNTER)
            assert {each.key: each.value.string_value for each in point.attributes} == dict(value.attributes)
            began_at = 0.0 if measurement.metric.kind is Kind.GAUGE else value.began_at or 0.0
            assert point.start_time_unix_nano == int(began_at * 1e9)


def test_names_follow_the_rules_of_both_systems() -> None:
    """
    Names are in our namespace or in one of the conventions, each once, and become valid names in Prometheus.
    """
    names = [each.name for each in DECLARED]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"(dkist\.core|cicd|http|messaging)(\.[a-z_]+)+", name) for name in names)
    # By the conventions, no name is also a namespace of another one.
    assert not [name for name in names for other in names if other.startswith(f"{name}.")]
    assert {each.series_name for each in DECLARED if each.kind is Kind.COUNTER} == {
        f"{each.prometheus_name}_total" for each in DECLARED if each.kind is Kind.COUNTER
    }
    assert declarations.ATTEMPT_DURATION.series_name == "dkist_core_attempt_duration_seconds"
    assert declarations.PEAK_MEMORY.series_name == "dkist_core_attempt_memory_peak_bytes"
    assert declarations.ATTEMPT_ENDED.series_name == "dkist_core_attempt_ended_total"


RUNS = Metric("dkist.core.runs", Kind.GAUGE, "{run}", "Runs.")


def good() -> tuple[bool, dict[str, object]]:
    """
    Return a good health.
    """
    return True, {"consumer": "c"}


def fetch(address: str, accept: str = "text/plain") -> tuple[str, str]:
    """
    Return content type and body of an answer.
    """
    request = urllib.request.Request(address, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_one_server_has_the_metrics_and_the_health() -> None:
    """
    The client's header chooses the form of the metrics.
    """
    with served(("127.0.0.1", 0), good, Snapshot([lambda: [measured(RUNS, 3)]], read_settings())) as address:
        text = fetch(f"{address}metrics")
        open_text = fetch(f"{address}metrics?x=1", OPEN_METRICS)
        health = fetch(address)

    assert text[0].startswith("text/plain; version=")
    assert "dkist_core_runs 3.0" in text[1]
    assert open_text[0].startswith("application/openmetrics-text")
    assert open_text[1].endswith("# EOF\n")
    assert health == ("application/json", '{"consumer": "c"}\n')


def test_a_part_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """
    The metrics of the others are served meanwhile, and one warning is logged for an outage.
    """
    outages = ["the database is away", "the database is away"]

    def unreadable() -> list[Measurement]:
        if outages:
            raise InboxUnavailableError(outages.pop())
        return [measured(RUNS, 1)]

    snapshot = Snapshot([unreadable, lambda: [measured(declarations.RUN_ACTIVE, 2)]], read_settings())
    found = [[each.metric.name for each in snapshot.measurements()] for _ in range(3)]

    assert found == [["cicd.pipeline.run.active"]] * 2 + [["dkist.core.runs", "cicd.pipeline.run.active"]]
    assert [record.message for record in caplog.records] == ["some metrics are left out: the database is away"]


def test_what_is_served_is_rendered_before_the_first_request() -> None:
    """
    Of thousands of series, this takes longer than a scrape should.
    """
    reads: list[float] = []

    def read() -> list[Measurement]:
        reads.append(1.0)
        return []

    with served(("127.0.0.1", 0), good, Snapshot([read], read_settings())):
        before = len(reads)

    assert before == 1


def test_silent_clients_hold_up_nothing() -> None:
    """
    Many connections without a request are open while others are answered.
    """
    with served(("127.0.0.1", 0), good, Snapshot([], read_settings())) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
        try:
            answers = [fetch(f"{address}metrics")[1], fetch(address)[1]]
        finally:
            for each in silent:
                each.close()

    assert "# TYPE target_info gauge" in answers[0]
    assert answers[1] == '{"consumer": "c"}\n'


def test_requests_do_not_pile_up_behind_a_slow_database() -> None:
    """
    One request at a time reads; another one is refused after its patience.
    """
    begun, goes_on = threading.Event(), threading.Event()

    def slow() -> list[Measurement]:
        begun.set()
        assert goes_on.wait(30)
        return []

    snapshot = Snapshot([slow], read_settings())
    first = threading.Thread(target=snapshot.rendered, args=("",), kwargs={"patience": 1.0})
    first.start()
    assert begun.wait(30)
    refused = snapshot.rendered("", patience=0.0)
    goes_on.set()
    first.join()

    assert refused is None
    assert snapshot.rendered("", patience=0.0) is not None


def test_an_error_in_this_package_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """
    A client of a request that fails sees its connection end.
    """

    def wrong() -> list[Measurement]:
        raise KeyError("a mistake")

    with served(("127.0.0.1", 0), good, Snapshot([wrong], read_settings())) as address:
        with pytest.raises((HTTPError, OSError)):
            fetch(f"{address}metrics")
        assert fetch(address)[1] == '{"consumer": "c"}\n'

    assert "a request to the server of health and metrics is not answered" in caplog.text


def test_metrics_have_the_attributes_of_the_process_that_spans_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The allocation identifies the process, and without one each process has a new id.
    """
    first, second = (resource_of(read_settings())["service.instance.id"] for _ in range(2))
    monkeypatch.setenv("NOMAD_ALLOC_ID", "a1")
    monkeypatch.setenv("DKIST_SERVICE_VERSION", "7.5.0")

    found = resource_of(read_settings())

    assert first != second
    assert (found["service.instance.id"], found["service.version"]) == ("a1", "7.5.0")
    assert found["service.name.alias"] == "dkist-processing"


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relay needs no inbox, and may be installed without the extra.
    """
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    expected = (
        "metrics are served with the extra 'consumer', and there is no module 'prometheus_client' here; install it"
    )
    with pytest.raises(ExtraMissingError, match=expected):
        check_extra()


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_metrics_are_served_on_ipv6_and_by_the_name_of_a_host(host: str) -> None:
    """
    An address of IPv6 is shown in brackets, as a client needs it.
    """
    with served((host, 0), good, Snapshot([], read_settings())) as address:
        assert ("[::1]" in address) is (host == "::1")
        assert fetch(address)[1] == '{"consumer": "c"}\n'


def test_a_port_in_use_is_one_clear_error() -> None:
    """
    The error has the address, and what is expected.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        expected = rf"nothing can be served at 127\.0\.0\.1:{port}: Address already in use; expected a free port"
        with pytest.raises(ConfigurationError, match=expected), served(("127.0.0.1", port), good):
            pass
    expected = r"nothing can be served at no\.such\.invalid:1: "
    with pytest.raises(ConfigurationError, match=expected), served(("no.such.invalid", 1), good):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:80", ("::", 80)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_an_address_has_a_port_and_perhaps_a_host(text: str, expected: tuple[str, int]) -> None:
    """
    A port alone is served to this host only.
    """
    assert address_of(text, "listen") == expected


@pytest.mark.parametrize("text", ["", "x", "host", "host:", ":x", "::1:80", "1:2:3", "[::1]", "host:70000", "[::1]80"])
def test_what_is_no_address_is_one_clear_error(text: str) -> None:
    """
    The error has the name of the option, and examples.
    """
    with pytest.raises(ValueError, match=r"listen is .*, expected PORT or HOST:PORT, for example"):
        address_of(text, "listen")
