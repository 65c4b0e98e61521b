"""
The metrics of `collect`, `consume` and `outbox relay`, as a real Prometheus and a real collector get them.
"""

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_in
from prometheus_client.samples import Sample

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.events import Event
from dkist_processing_core.metrics.declarations import RUN_ACTIVE, RUN_DURATION
from dkist_processing_core.metrics.measurement import Distribution, Measurement, Number, measured
from dkist_processing_core.metrics.sending import sent
from dkist_processing_core.metrics.serving import served
from dkist_processing_core.metrics.snapshot import Snapshot
from dkist_processing_core.outbox._measures import measurements_of
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed, finished, started
from tests.otlp_requests import append
from tests.running import command, run_command, run_python
from tests.services.broker import Broker
from tests.services.otlp import Answer, OtlpReceiver
from tests.services.prometheus import PrometheusServer
from tests.services.sockets import closed_port, free_ports
from tests.waiting import wait_until

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
ACTORS = """
from dkist_processing_core import Consumer

actor = Consumer("actor", max_tries=1)

@actor.on("task.failed")
def act(failure):
    if failure.task_name == "Bad":
        raise RuntimeError("this event cannot be handled")
"""
TASK = """
from dkist_processing_core import TaskBase

class Calibrate(TaskBase):
    def run(self):
        pass

with Calibrate(recipe_run_id=1, workflow_name="visp", workflow_version="dev") as task:
    task()
"""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """
    Run a service of `dkist-core` that serves metrics at a free port, and yield their address.
    """
    (port,) = free_ports(1)
    with (folder / f"{arguments[0]}.log").open("w") as log:
        process = subprocess.Popen(
            command(*arguments, "--listen", str(port)), cwd=folder, stdout=subprocess.DEVNULL, stderr=log
        )
        with process:
            try:
                wait_until(lambda: process.poll() is not None or answers(port))
                assert process.poll() is None, Path(log.name).read_text()
                yield f"http://127.0.0.1:{port}/metrics"
            finally:
                process.kill()


def answers(port: int) -> bool:
    """
    Return True if a port of this host accepts connections.
    """
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def samples_at(address: str) -> list[Sample]:
    """
    Return what a service serves now.
    """
    request = urllib.request.Request(address, headers={"Accept": OPEN_METRICS})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    return [sample for each in open_metrics_in(text) for sample in each.samples]  # type: ignore[no-untyped-call]


def value_at(address: str, name: str, **labels: str) -> float | None:
    """
    Return the sum of the samples with a name and these labels; None without one.
    """
    values = [each.value for each in samples_at(address) if each.name == name and labels.items() <= each.labels.items()]
    return sum(values) if values else None


def publish(*events: Event) -> None:
    """
    Publish events on the bus of the settings.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*events)


@pytest.mark.once
@pytest.mark.processes
def test_an_exemplar_has_the_span_that_a_collector_got(otlp: OtlpReceiver, tmp_path: Path) -> None:
    """
    Grafana opens the trace of an attempt from a bucket of a histogram.
    """
    ran = run_python(TASK, otlp.grpc_env)
    (span,) = otlp.wait_for(lambda it: [each for each in it.spans() if each.name == "Calibrate"])
    with serving(tmp_path, "collect") as address:
        wait_until(lambda: value_at(address, "dkist_core_attempt_ended_total", cicd_pipeline_name="visp") == 1)
        found = [
            each.exemplar.labels
            for each in samples_at(address)
            if each.name == "dkist_core_attempt_duration_seconds_bucket" and each.exemplar
        ]

    assert ran.returncode == 0, ran.stderr
    assert found == [{"trace_id": span.trace_id, "span_id": span.span_id}]


@pytest.mark.once
@pytest.mark.processes
@pytest.mark.prometheus
@pytest.mark.rabbitmq
def test_a_prometheus_scrapes_collect_consume_and_relay(owned: Broker, tmp_path: Path) -> None:
    """
    One query for each process: what has ended, what was handled, and what was delivered.
    """
    (tmp_path / "actors.py").write_text(ACTORS)
    del owned
    with (
        serving(tmp_path, "outbox", "relay") as relay,
        serving(tmp_path, "consume", "actors:actor") as consume,
        serving(tmp_path, "collect") as collect,
    ):
        wait_until(lambda: value_at(consume, "dkist_core_consumer_backlog") is not None)
        publish(started("A"), finished("A", duration_seconds=3.0), started("Bad"), failed("Bad"))
        wait_until(lambda: value_at(collect, "dkist_core_attempt_ended_total") == 2)
        wait_until(lambda: value_at(consume, "dkist_core_inbox_messages", dkist_core_inbox_state="dead") == 1)
        targets = {"relay": relay, "consume": consume, "collect": collect}
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [address.split("/")[2]]}]}
            for name, address in targets.items()
        ]
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        with PrometheusServer(tmp_path / "prometheus", settings) as prometheus:
            prometheus.wait_for(lambda it: set(it.targets().values()) == {"up"})

            def answer(query: str) -> list[float]:
                found = prometheus.wait_for(lambda it: it.query(query))
                return sorted(float(each["value"][1]) for each in found)

            assert answer('dkist_core_attempt_ended_total{error_type="exception"}') == [1]
            assert answer("dkist_core_attempt_duration_seconds_sum > 0") == [3]
            assert answer("sum(dkist_core_attempt_active) or vector(0)") == [0]
            assert answer('dkist_core_consumer_connected{messaging_consumer_group_name="actor"}') == [1, 1]
            # A consumer of failures also receives the ends that may contradict them.
            assert answer('messaging_client_consumed_messages_total{job="consume"}') == [2]
            assert answer('messaging_process_duration_seconds_count{job="consume", error_type="RuntimeError"}') == [1]
            assert answer('dkist_core_inbox_messages{job="consume", dkist_core_inbox_state="dead"}') == [1]
            assert answer('dkist_core_consumer_lag_seconds{job="consume"}') == [0]
            assert answer(
                "dkist_core_outbox_published_total == on() group_left() dkist_core_outbox_confirmed_total"
            ) == [4]
            assert answer("dkist_core_outbox_pending + dkist_core_outbox_set_aside") == [0]


@pytest.mark.prometheus
def test_a_prometheus_takes_labels_with_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Names of functions and variables of the environment may have lone surrogates, which UTF-8 does not have.
    """
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "site=Haleakal\udce1,allocation=a\x07b")
    odd = ["\ud800", *map(chr, range(32)), "\x7f", "\x85", "\u2028", "\uffff", '"', "\\"]
    values = [Number(1.0, {"cicd.pipeline.name": f"of{each}it"}) for each in odd]
    snapshot = Snapshot([lambda: [Measurement(RUN_ACTIVE, values)]], read_settings())
    with served(("127.0.0.1", 0), lambda: (True, {}), snapshot) as address:
        targets = [{"targets": [address.split("/")[2]]}]
        settings = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "odd", "static_configs": targets}],
        }
        with PrometheusServer(tmp_path / "prometheus", settings) as prometheus:
            found = prometheus.wait_for(lambda it: it.query(RUN_ACTIVE.series_name))
            (info,) = prometheus.wait_for(lambda it: it.query("target_info"))

    names = {each["metric"]["cicd_pipeline_name"] for each in found}
    assert names == {f"of{each}it" for each in ["\ufffd", *odd[1:]]}
    assert (info["metric"]["site"], info["metric"]["allocation"]) == ("Haleakal\ufffd", "a\x07b")


@pytest.mark.once
def test_a_relay_measures_the_answers_of_the_broker(owned: Broker, tmp_path: Path) -> None:
    """
    Messages that it delivers count as sent, each with the time until its confirm.
    """
    del owned
    with Publisher(AmqpBus(read_settings()), delivers=False) as publisher:
        publisher.publish(*(started(name) for name in "ABC"))
    waiting = {each.metric.name: each.values[0] for each in measurements_of(read_settings())}
    with serving(tmp_path, "outbox", "relay") as address:
        wait_until(lambda: value_at(address, "messaging_client_sent_messages_total") == 3)
        count = value_at(
            address, "messaging_client_operation_duration_seconds_count", messaging_destination_name="workflow.events.x"
        )
        oldest = value_at(address, "dkist_core_outbox_oldest_time_seconds")
        with urllib.request.urlopen(address.removesuffix("metrics"), timeout=10) as answer:
            health = answer.read()

    assert getattr(waiting["dkist.core.outbox.pending"], "value", 0) == 3
    assert "dkist.core.outbox.oldest.time" in waiting
    assert (count, oldest, health) == (3, None, b'{"broker": "ok"}\n')


def test_each_relay_of_a_host_reports_what_itself_delivers() -> None:
    """
    A backend adds up both. The age of the oldest message is seen in an outbox that no relay delivers, too.
    """
    collector = {"otel_exporter_otlp_endpoint": "http://127.0.0.1:4317"}
    one, other, left = (
        DKISTProcessingCoreConfiguration(
            mesh_config={"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}}, **more
        )
        for port, more in ((1, collector), (2, {**collector, "otel_sdk_disabled": True}), (3, {}))
    )
    for settings, names in ((one, "A"), (other, "AB"), (left, "ABC")):
        with Publisher(AmqpBus(settings), delivers=False) as publisher:
            publisher.publish(*(started(name) for name in names))
    append(one, "traces", "a")

    values: dict[str, list[float]] = {}
    for each in (*measurements_of(one), *measurements_of(other)):
        values.setdefault(each.metric.name, []).extend(getattr(value, "value", 0) for value in each.values)

    assert values["dkist.core.outbox.published"] == values["dkist.core.outbox.pending"] == [1, 2]
    assert sum(values["dkist.core.telemetry.pending"]) == 1
    assert len(values["dkist.core.outbox.oldest.time"]) == 2 * 3


def health_at(address: str) -> tuple[int, dict[str, str]]:
    """
    Return the status and the facts of the health of a service.
    """
    try:
        with urllib.request.urlopen(address.removesuffix("metrics"), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.once
def test_the_health_of_a_relay_is_that_of_what_it_delivers_to(
    otlp: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It names each signal that has a collector, and a broker only if there is one.
    """
    for name, value in otlp.http_env.items():
        monkeypatch.setenv(name, value)
    otlp.answer("traces", *[Answer(status=503, retry_after="0.2")] * 1000)
    append(read_settings(), "traces", "a")

    with serving(tmp_path, "outbox", "relay") as address:
        wait_until(lambda: health_at(address)[0] == 503)
        during = health_at(address)
        otlp.answer("traces")
        wait_until(lambda: health_at(address)[0] == 200)
        after = health_at(address)

    assert during == (503, {"traces": "unavailable", "metrics": "ok", "logs": "ok"})
    assert after == (200, {"traces": "ok", "metrics": "ok", "logs": "ok"})
    assert [span.name for span in otlp.spans()] == ["a"]


@pytest.mark.once
@pytest.mark.parametrize("arguments", [("outbox", "relay"), ("collect",), ("consume", "actors:actor")])
def test_a_service_ends_at_its_start_with_a_wrong_interval(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """
    Each service has the same error, as for each other wrong setting.
    """
    (tmp_path / "actors.py").write_text(ACTORS)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRIC_EXPORT_INTERVAL": "abc"}

    done = run_command(*arguments, cwd=tmp_path, **environment)

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "OTEL_METRIC_EXPORT_INTERVAL" in line] == [
        "error: OTEL_METRIC_EXPORT_INTERVAL is 'abc', expected a number of milliseconds from 1 on, for example 60000"
    ]


@pytest.mark.once
@pytest.mark.parametrize("arguments", [("outbox", "relay"), ("collect",), ("consume", "actors:actor")])
def test_a_service_reports_at_its_start_that_a_configuration_file_does_not_describe_it(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """
    It may describe another collector than the variables, which the service follows. A wrong interval ends it here.
    """
    (tmp_path / "actors.py").write_text(ACTORS)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRIC_EXPORT_INTERVAL": "abc"}

    done = run_command(*arguments, cwd=tmp_path, **environment, OTEL_CONFIG_FILE="/etc/otel.yaml")

    assert done.stderr.count("OTEL_CONFIG_FILE names /etc/otel.yaml, which describes only the telemetry of tasks") == 1


def test_a_pause_that_a_collector_requests_counts_for_snapshots(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    None is sent before its end, not even the last one of a process.
    """
    for name, value in {**otlp.http_env, "OTEL_METRIC_EXPORT_INTERVAL": "10"}.items():
        monkeypatch.setenv(name, value)
    otlp.answer("metrics", Answer(status=429, retry_after="40"))

    with sent(Snapshot([lambda: RUNS], read_settings())):
        otlp.wait_for(lambda it: it.requests("metrics"))

    assert len(otlp.requests("metrics")) == 1


RUNS = [
    Measurement(
        RUN_DURATION,
        [Distribution([1] + [0] * len(RUN_DURATION.bounds), 0.25, {"cicd.pipeline.name": "W"}, 5.0)],
    )
]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_metrics_are_sent_to_a_collector(otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """
    Each interval has all values, and the end as well.
    """
    environment = otlp.grpc_env if protocol == "grpc" else otlp.http_env
    for name, value in {**environment, "OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_SERVICE_NAME": "store"}.items():
        monkeypatch.setenv(name, value)
    numbers = iter(range(1, 1000))
    with sent(Snapshot([lambda: RUNS, lambda: [measured(RUN_ACTIVE, next(numbers))]], read_settings())):
        arrived = otlp.wait_for(lambda it: [each for each in it.metrics() if each.name == RUN_ACTIVE.name][2:])
        histogram = next(each for each in otlp.metrics() if each.name == RUN_DURATION.name)
    before = len(otlp.metrics())
    with sent(Snapshot([lambda: RUNS], read_settings())):
        pass
    otlp.wait_for(lambda it: len(it.metrics()) > before)

    assert arrived[0].points[0].value >= 3
    assert arrived[0].resource["service.name"] == "store"
    assert histogram.points[0].bounds == RUN_DURATION.bounds
    assert (histogram.points[0].count, histogram.points[0].value) == (1, 0.25)


def test_values_that_processes_share_are_sent_by_one_of_them(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A collector adds up the values of all processes; Prometheus gets them from each.
    """
    for name, value in otlp.http_env.items():
        monkeypatch.setenv(name, value)
    snapshot = Snapshot(
        [lambda: [measured(RUN_ACTIVE, 1)]], read_settings(), shared=[lambda: RUNS], sends_shared=lambda: False
    )
    with sent(snapshot):
        pass
    otlp.wait_for(lambda it: it.metrics())

    assert {each.name for each in otlp.metrics()} == {RUN_ACTIVE.name}
    assert [each.metric for each in snapshot.measurements()] == [RUN_ACTIVE, RUN_DURATION]


def test_a_dead_collector_is_one_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """
    The process goes on, and tries again at each interval.
    """
    reads: list[int] = []

    def read() -> Sequence[Measurement]:
        reads.append(1)
        return RUNS

    with closed_port() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
        with sent(Snapshot([read], read_settings())):
            wait_until(lambda: len(reads) > 3)

    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith(
        "the metrics of this process are not sent, and are tried again: no connection to 127.0.0.1:"
    )


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5"])
def test_a_wrong_interval_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """
    The error has the name of the variable, and what is expected.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
    expected = f"OTEL_METRIC_EXPORT_INTERVAL is '{value}', expected a number of milliseconds"
    with pytest.raises(ConfigurationError, match=expected), sent(Snapshot([], read_settings())):
        pass
