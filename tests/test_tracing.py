"""
Tests of spans, metrics and log records with a real OTLP receiver.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags

from dkist_processing_core import subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event, TaskEvent
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import (
    attempt_traceparent,
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
)
from dkist_processing_core.otlp.destination import Signal, collector_of, endpoint_of, is_plain
from dkist_processing_core.tracing import Carrier, Telemetry, run_parent
from dkist_processing_core.tracing._otlp import otlp_exporter
from tests.running import ROOT, run_python
from tests.services.otlp import Metric, OtlpReceiver, Span

RUN = "from tests.pipelines import diamond; diamond.run(recipe_run_id=5)"
OUTER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
THE_RUN = Run("W", "1", "local__1", 1)


def by_name(spans: list[Span]) -> dict[str, list[Span]]:
    """
    Return spans by their names.
    """
    return {name: [span for span in spans if span.name == name] for name in {span.name for span in spans}}


@pytest.mark.parametrize("transport", ["grpc", pytest.param("http", marks=pytest.mark.once)])
def test_a_run_is_one_trace_with_parents_right_across_processes(otlp: OtlpReceiver, transport: str) -> None:
    """
    Below the root span of the run are a span per attempt, then the phases, then the author's spans.
    """
    environment = otlp.grpc_env if transport == "grpc" else otlp.http_env

    done = run_python(RUN, {**environment, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"})
    assert done.returncode == 0, done.stderr

    spans = by_name(
        otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "test_diamond"] and receiver.spans())
    )
    (root,) = spans["test_diamond"]
    assert {span.trace_id for each in spans.values() for span in each} == {root.trace_id}
    assert root.parent_id == ""
    assert root.attributes["cicd.pipeline.result"] == "success"
    for name in ("First", "Left", "Right", "Last"):
        (attempt,) = spans[name]
        assert attempt.parent_id == root.span_id
        assert attempt.attributes["recipe.run.id"] == 5
        assert attempt.attributes["workflow.name"] == attempt.attributes["cicd.pipeline.name"] == "test_diamond"
        assert attempt.attributes["task.name"] == name
        assert attempt.attributes["cicd.pipeline.task.run.result"] == "success"
        assert root.start <= attempt.start <= attempt.end <= root.end
        phases = [s for phase in ("Pre Run", "Run", "Post Run") for s in spans[phase] if s.parent_id == attempt.span_id]
        assert [phase.name for phase in phases] == ["Pre Run", "Run", "Post Run"]
    (own,) = spans["own step"]
    assert own.parent_id in [span.span_id for span in spans["Run"] if span.parent_id == spans["First"][0].span_id]
    publishes = spans["publish workflow.events.x"]
    assert {span.attributes["messaging.operation.type"] for span in publishes} == {"send"}
    for span in publishes:
        key = span.attributes["rabbitmq.destination.routing_key"]
        assert span.attributes["messaging.destination.name"] == f"workflow.events.x:{key}"
        assert "messaging.rabbitmq.destination.routing_key" not in span.attributes
    everything = [span for each in spans.values() for span in each]
    assert {span.attributes["recipe.run.id"] for span in everything} == {5}
    attempts = {span.span_id: span for name in ("First", "Left", "Right", "Last") for span in spans[name]}
    identity = ("task.name", "workflow.version", "nomad.allocation.id")
    for span in (own, *(each for phase in ("Pre Run", "Run", "Post Run") for each in spans[phase])):
        attempt = attempts.get(span.parent_id, spans["First"][0])
        assert [span.attributes[name] for name in identity] == [attempt.attributes[name] for name in identity]
    events = {event.id: event for event in subscribe(replay=True, timeout=0.05)}
    assert events.keys() == {span.attributes["messaging.message.id"] for span in publishes}
    for event in events.values():
        assert event.traceparent is not None
        assert event.traceparent.startswith(f"00-{root.trace_id}-")
        assert event.traceparent.endswith("-01")


@pytest.mark.once
def test_a_failure_is_an_error_with_its_type_and_without_secrets(otlp: OtlpReceiver) -> None:
    """
    Attempt and phase have the status and `error.type`, the exception is recorded and redacted, and the run is an error.
    """
    environment = {**otlp.grpc_env, "PIPELINES_FAIL": "always", "A_SECRET": "wanted"}

    run_python(RUN, {**environment, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"})

    spans = by_name(
        otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "test_diamond"] and receiver.spans())
    )
    assert spans["test_diamond"][0].status_code == "ERROR"
    first, second = spans["Right"]
    assert first.span_id != second.span_id
    for attempt in (first, second):
        assert attempt.status_code == "ERROR"
        assert attempt.attributes["error.type"] == "ArithmeticError"
        assert attempt.attributes["cicd.pipeline.task.run.result"] == "failure"
        assert [event.attributes["exception.message"] for event in attempt.events] == ["[redacted]"]
    assert spans["Left"][0].status_code == "UNSET"


@pytest.mark.once
def test_a_run_that_began_with_a_traceparent_rides_it(otlp: OtlpReceiver) -> None:
    """
    All spans of the run are below the caller's span, and are sampled for any value of its flag.
    """
    run_python(RUN, {**otlp.grpc_env, "TRACEPARENT": OUTER, "OTEL_METRICS_EXPORTER": "none"})

    spans = otlp.wait_for(
        lambda receiver: [s for s in receiver.spans() if s.name == "test_diamond"] and receiver.spans()
    )
    assert {span.trace_id for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    (root,) = [span for span in spans if span.name == "test_diamond"]
    assert root.parent_id == "b7ad6b7169203331"


MEASURED = """
import logging
from dkist_processing_core import TaskBase
from opentelemetry.trace import StatusCode
class Measured(TaskBase):
    def __init__(self, recipe_run_id, workflow_name, workflow_version):
        super().__init__(recipe_run_id, workflow_name, workflow_version)
        self.frames = self.meter.create_counter(name=self.format_metric_name("frames"), unit="1", description="read")
    def run(self):
        self.frames.add(3, attributes=self.base_telemetry_attributes)
        logging.getLogger("author").warning("a %s", "line")
        with self.telemetry_span("doubtful") as span:
            span.set_status(StatusCode.ERROR, "as the author says")
        try:
            with self.telemetry_span("fine") as span:
                span.set_status(StatusCode.OK)
                raise ValueError("which is fine")
        except ValueError:
            pass
with Measured(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""


def test_the_author_s_metrics_spans_and_log_records_arrive(otlp: OtlpReceiver) -> None:
    """
    The status that the author has set stays, and log records have the ids of trace and run.

    All of it has the resource and the identity that it had in release 7.x.
    """
    deployed = {
        "DKIST_SERVICE_VERSION": "3.1",
        "NOMAD_ALLOC_ID": "a1",
        "NOMAD_ALLOC_NAME": "n",
        "NOMAD_GROUP_NAME": "g",
    }
    done = run_python(MEASURED, {**otlp.grpc_env, **deployed})
    assert done.returncode == 0, done.stderr

    spans = by_name(
        otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "Measured"] and receiver.spans())
    )
    (metric,) = otlp.wait_for(lambda receiver: [m for m in receiver.metrics() if m.name == "dkist.processing.frames"])
    (record,) = otlp.wait_for(lambda receiver: [r for r in receiver.logs() if r.body == "a line"])
    (attempt,) = spans["Measured"]
    assert attempt.parent_id == ""
    assert spans["doubtful"][0].status_code == "ERROR"
    assert spans["fine"][0].status_code == "OK"
    assert metric.unit == "1"
    assert record.trace_id == attempt.trace_id
    assert f"trace_id={attempt.trace_id} span_id={attempt.span_id}\n" in done.stderr
    assert record.attributes["cicd.pipeline.run.id"] == attempt.attributes["cicd.pipeline.run.id"]
    for each in (attempt, spans["doubtful"][0], spans["Run"][0], record, metric):
        resource = [each.resource[f"service.{name}"] for name in ("version", "instance.id", "name.alias")]
        assert resource == ["3.1", "a1", "dkist-processing"]
    for attributes in (
        attempt.attributes,
        spans["doubtful"][0].attributes,
        record.attributes,
        metric.points[0].attributes,
    ):
        assert [attributes[f"nomad.allocation.{name}"] for name in ("id", "name", "group")] == ["a1", "n", "g"]


def test_the_console_exporter_writes_spans() -> None:
    """
    `OTEL_TRACES_EXPORTER=console` prints spans without a collector.
    """
    done = run_python(MEASURED, {"OTEL_TRACES_EXPORTER": "console"})

    assert '"name": "Measured"' in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_exported_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    """
    Without an exporter, the SDK is not imported.
    """
    program = f"{MEASURED}\nimport sys; print('opentelemetry.sdk' in sys.modules)"

    done = run_python(program, environment)

    assert (done.returncode, done.stdout) == (0, "False\n")


def test_mesh_config_names_collectors_where_no_variable_does() -> None:
    """
    The standard variables have priority.
    """
    mesh = {"otlp-traces-endpoint": {"mesh_address": "collector", "mesh_port": 4317}}
    settings = DKISTProcessingCoreConfiguration(mesh_config=mesh)

    assert endpoint_of(settings, "traces") == "http://collector:4317"
    assert endpoint_of(settings, "logs") is None
    general = settings.model_copy(update={"otel_exporter_otlp_endpoint": "http://other:1"})
    assert endpoint_of(general, "traces") == "http://other:1"
    special = general.model_copy(update={"otel_exporter_otlp_traces_endpoint": "http://third:1"})
    assert endpoint_of(special, "traces") == "http://third:1"


def test_mesh_config_s_collector_gets_the_spans(otlp: OtlpReceiver) -> None:
    """
    A pipeline with only MESH_CONFIG is traced.
    """
    host, port = otlp.grpc_endpoint.removeprefix("http://").split(":")
    mesh = f'{{"otlp-traces-endpoint": {{"mesh_address": "{host}", "mesh_port": {port}}}}}'

    run_python(MEASURED, {"MESH_CONFIG": mesh})

    assert otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "Measured"])


def test_a_bare_address_means_plain_text_as_it_did_to_7(otlp: OtlpReceiver) -> None:
    """
    Deployments of 7.x use such an address.
    """
    bare = otlp.grpc_endpoint.removeprefix("http://")

    done = run_python(MEASURED, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": bare})

    assert otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "Measured"]), done.stderr


@pytest.mark.parametrize(
    ("signal", "variables", "plain"),
    [
        ("traces", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317"}, True),
        ("metrics", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector:4317"}, True),
        ("traces", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector:4317"}, None),
        ("logs", {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "collector:4317"}, None),
        ("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, None),
        *(
            ("traces", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317", variable: value}, None)
            for variable, value in (
                ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
                ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            )
        ),
    ],
)
def test_what_is_said_of_tls_outranks_the_bare_address(
    monkeypatch: pytest.MonkeyPatch,
    signal: Signal,
    variables: dict[str, str],
    plain: bool | None,  # noqa: FBT001
) -> None:
    """
    TLS is chosen by a scheme, by the variables of the specification, and for endpoints that 7.x did not support.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_plain(DKISTProcessingCoreConfiguration(), signal) is plain


def test_a_collector_that_is_named_by_a_bare_name_is_knocked_at_before_it_is_waited_for(refusing_port: int) -> None:
    """
    An unreachable collector causes almost no delay, for each form of its address.
    """
    settings = DKISTProcessingCoreConfiguration(otel_exporter_otlp_traces_endpoint=f"localhost:{refusing_port}")

    collector = collector_of(settings, "traces")

    assert collector is not None
    assert "no connection to localhost:" in str(collector.problem(5.0))


def test_a_dead_collector_is_reported_by_one_process_of_a_run(
    refusing_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A process that another one observes leaves it to that one, and each reports it once.
    """
    settings = DKISTProcessingCoreConfiguration(otel_exporter_otlp_traces_endpoint=f"http://127.0.0.1:{refusing_port}")
    collector = collector_of(settings, "traces")
    assert collector is not None
    telemetry = Telemetry(TracerProvider(shutdown_on_exit=False), collectors={"traces": collector})

    with telemetry.flushing(5.0, delivers=False):
        pass
    early = list(caplog.messages)
    for _ in range(2):
        with telemetry.flushing(5.0):
            pass

    assert early == []
    assert [message.partition(": ")[0] for message in caplog.messages] == ["traces are not exported"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_retries_of_an_author_s_own_exporter_are_logged(
    protocol: str, refusing_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Those of the library's exporters are not: Telemetry logs once that a collector is unreachable.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.4")  # one retry, after about a second
    endpoint = f"http://127.0.0.1:{refusing_port}"
    settings = DKISTProcessingCoreConfiguration(
        otel_exporter_otlp_protocol=protocol, otel_exporter_otlp_endpoint=endpoint
    )
    own = otlp_exporter(settings, "traces")
    authors = type(own).__mro__[1](endpoint=endpoint)

    with ThreadPoolExecutor() as both:
        list(both.map(lambda exporter: exporter.export([]), [own, authors]))

    retries = [message for message in caplog.messages if message.startswith("Transient error")]
    assert len(retries) == 1


def test_ids_are_derived_from_what_is_traced() -> None:
    """
    The vectors fix the ids: releases that take part in one trace must derive the same ones.
    """
    attempt = Attempt(THE_RUN, "A", attempt=1, max_attempts=1)

    assert f"{derived_trace_id(THE_RUN):032x}" == "e72a8443b50e5fd097719d2fc1952c29"
    assert f"{derived_run_span_id(THE_RUN):016x}" == "664e4757b3cd4b81"
    assert f"{derived_run_span_id(THE_RUN, '2026-11-22T09:00:00.000000Z'):016x}" != "664e4757b3cd4b81"
    assert f"{derived_attempt_span_id(attempt):016x}" == "a84fe422fcc51b34"


def test_a_carrier_takes_the_trace_to_another_process() -> None:
    """
    The variables of one process give the context of the next; the flag is always 01.
    """
    span = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))

    taken_up = run_parent(THE_RUN, Carrier.of(span).to_environ())

    assert (taken_up.trace_id, taken_up.span_id, taken_up.trace_flags) == (1, 2, 1)
    assert run_parent(THE_RUN, {"TRACEPARENT": OUTER}).trace_flags == 1
    assert run_parent(THE_RUN, {"TRACEPARENT": "nonsense"}).trace_id == derived_trace_id(THE_RUN)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "abc"),
    ],
)
def test_a_variable_that_only_the_sdk_checks_does_not_cost_the_run(
    otlp: OtlpReceiver, variable: str, value: str
) -> None:
    """
    The affected signals are not exported, with one message each. Task and events continue.
    """
    done = run_python(MEASURED, {**otlp.grpc_env, variable: value})

    assert done.returncode == 0, done.stderr
    assert [event.name for event in subscribe(replay=True, timeout=0.05)] == ["task.started", "task.finished"]
    for signal in ("traces", "metrics", "logs"):
        assert done.stderr.count(f"{signal} are not exported: ") <= 1
    assert "Traceback" not in done.stderr


def test_a_signal_that_cannot_be_set_up_leaves_the_others(otlp: OtlpReceiver) -> None:
    """
    One message names the signal and the reason. The established counter needs no meter provider.
    """
    done = run_python(MEASURED, {**otlp.grpc_env, "OTEL_METRIC_EXPORT_INTERVAL": "-1"})

    assert "metrics are not exported: ValueError: " in done.stderr
    assert "traces are not exported" not in done.stderr
    assert otlp.wait_for(lambda receiver: receiver.spans())
    assert {metric.name for metric in otlp.metrics()} <= {"dkist.processing.tasks.executed"}


def test_both_exporters_of_a_list_get_the_spans(otlp: OtlpReceiver) -> None:
    """
    The specification defines `OTEL_TRACES_EXPORTER=otlp,console`.
    """
    done = run_python(MEASURED, {**otlp.grpc_env, "OTEL_TRACES_EXPORTER": "otlp,console"})

    assert '"name": "Measured"' in done.stdout
    assert otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "Measured"])


@pytest.mark.parametrize("transport", ["grpc", "http"])
@pytest.mark.parametrize("signal_s_own", [False, True])
def test_what_the_file_of_settings_says_is_exported_to(
    otlp: OtlpReceiver, tmp_path: Path, transport: str, *, signal_s_own: bool
) -> None:
    """
    Endpoint and resource of `.env` are used in both transports. A signal's endpoint is used unchanged.
    """
    environment = dict(otlp.grpc_env if transport == "grpc" else otlp.http_env)
    endpoint = environment.pop("OTEL_EXPORTER_OTLP_ENDPOINT")
    lines = [f"{name}={value}" for name, value in environment.items()]
    if signal_s_own:
        lines.append(f"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={endpoint}{'/v1/traces' if transport == 'http' else ''}")
    else:
        lines.append(f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}")
    lines.append("OTEL_RESOURCE_ATTRIBUTES=site=Haleakal%C4%81, service.name=visp")
    (tmp_path / ".env").write_text("\n".join(lines))

    done = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{MEASURED}", {})

    assert done.returncode == 0, done.stderr
    (span,) = otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "Measured"])
    assert (span.resource["site"], span.resource["service.name"]) == ("Haleakalā", "visp")


LOGGING = """
import logging
from dkist_processing_core import TaskBase
class Logging(TaskBase):
    def run(self):
        logging.getLogger("author").warning("last resort")
        logging.basicConfig(format="mine: %(message)s")
        logging.getLogger("author").warning("a %s", "line")
        logging.getLogger("urllib3.connectionpool").warning("of a transport")
        logging.getLogger("author").warning("badly %d", "made")
        logging.makeLogRecord({"msg": "a copy"})
        print(logging.getLogger().handlers)
before = logging.getLogRecordFactory()
with Logging(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
assert logging.getLogRecordFactory() is before
logging.getLogger("author").warning("after the end")
"""


def test_exporting_log_records_does_not_change_the_author_s_logging(otlp: OtlpReceiver) -> None:
    """
    The handler of last resort, `basicConfig` and the root logger's handlers behave as without the export.
    """
    exported = run_python(LOGGING, otlp.grpc_env)
    plain = run_python(LOGGING, {})

    shown = [
        [line for line in told.stderr.splitlines() if line.endswith("last resort") or line.startswith("mine:")]
        for told in (plain, exported)
    ]
    assert plain.stderr.count("--- Logging error ---") == exported.stderr.count("--- Logging error ---") == 1
    assert (exported.returncode, exported.stdout) == (0, plain.stdout)
    for last_resort, *own in shown:
        assert last_resort.endswith(" WARNING author: last resort")
        assert own == ["mine: a line", "mine: of a transport", "mine: after the end"]
    otlp.wait_for(lambda receiver: len(receiver.logs()) >= 3)
    assert [record.body for record in otlp.logs()] == ["last resort", "a line", "badly %d"]


EXECUTED = """
import os, sys
from dkist_processing_core import TaskBase
class Counted(TaskBase):
    def __init__(self, recipe_run_id, workflow_name, workflow_version):
        super().__init__(recipe_run_id, workflow_name, workflow_version)
        self.frames = self.meter.create_counter("frames")
    def run(self):
        self.frames.add(1)
        if "IS_KILLED" in os.environ:
            os.kill(os.getpid(), 9)
        if self.recipe_run_id == 8:
            raise SystemExit(3)
for number in (7, 7, 8):
    try:
        with Counted(number, "W", "1") as task: task()
    except SystemExit: pass
"""


@pytest.mark.parametrize("preference", [None, pytest.param("cumulative", marks=pytest.mark.once)])
def test_each_attempt_is_counted_once_as_in_7_x(otlp: OtlpReceiver, preference: str | None) -> None:
    """
    Also a killed one, and a repeated one with the same attributes: the sum over all processes is their number.

    Either the points are increments, as the author's are, or each attempt is a separate series.
    """
    variables = {} if preference is None else {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference}
    environment = {**otlp.grpc_env, **variables, "NOMAD_ALLOC_ID": "a1"}
    assert run_python(EXECUTED, {**environment, "IS_KILLED": "1"}).returncode == -9
    done = run_python(EXECUTED, environment)
    assert done.returncode == 0, done.stderr

    def counted() -> list[Metric]:
        return [metric for metric in otlp.metrics() if metric.name == "dkist.processing.tasks.executed"]

    otlp.wait_for(lambda _: sum(len(metric.points) for metric in counted()) >= 4)
    assert {(metric.kind, metric.unit, metric.description) for metric in counted()} == {
        ("sum", "1", "The number of tasks executed in the processing stack.")
    }
    temporality = {None: "DELTA", "cumulative": "CUMULATIVE"}[preference]
    assert {metric.temporality for metric in counted()} == {temporality}
    assert {metric.temporality for metric in otlp.metrics() if metric.name == "frames"} == {temporality}
    points = [point for metric in counted() for point in metric.points]
    if preference is not None:
        # A total may be exported more than once.
        points = list({point.attributes["cicd.pipeline.task.run.id"]: point for point in points}.values())
    assert [point.value for point in points] == [1] * 4
    nomad = {f"nomad.allocation.{name}": f"unknown-allocation-{name}" for name in ("name", "group")}
    identity = {"workflow.name": "W", "workflow.version": "1", "task.name": "Counted", "nomad.allocation.id": "a1"}
    ids = [point.attributes.get("cicd.pipeline.task.run.id") for point in points]
    assert [
        {name: value for name, value in point.attributes.items() if name != "cicd.pipeline.task.run.id"}
        for point in points
    ] == [{"recipe.run.id": number, **identity, **nomad} for number in (7, 7, 7, 8)]
    assert len(set(ids)) == (1 if preference is None else 4)


FIELDS = """
import logging, threading
from dkist_processing_core import TaskBase
form = "%(run_id)s %(recipe_run_id)s %(workflow)s %(version)s %(task)s %(attempt)s %(trace_id)s %(span_id)s %(message)s"
logging.basicConfig(format=form, level="WARNING")
log = logging.getLogger("author")
class Fielded(TaskBase):
    def run(self):
        log.warning("in run")
        with self.telemetry_span("own"):
            log.warning("in own")
        thread = threading.Thread(target=log.warning, args=("in a thread",))
        thread.start(); thread.join()
        log.warning("the author's", extra={"task": "mine", "span_id": 7})
        child = log.makeRecord("x", 30, "f", 1, "of another logger", None, None)
        logging.getLogger().handle(child)
calls = logging.Logger.callHandlers
with Fielded(recipe_run_id=7, workflow_name="W", workflow_version="1") as task: task()
assert logging.Logger.callHandlers is calls
"""


@pytest.mark.parametrize("exports", [True, pytest.param(False, marks=pytest.mark.once)])
def test_each_log_record_has_the_ids_of_run_attempt_and_span(otlp: OtlpReceiver, *, exports: bool) -> None:
    """
    Also without an export, in a thread of the author's, and beside values of the author's own with the same names.
    """
    done = run_python(FIELDS, otlp.grpc_env if exports else {})
    assert (done.returncode, "Logging error" in done.stderr) == (0, False), done.stderr

    lines = [line.split(maxsplit=8) for line in done.stderr.splitlines() if line.startswith("hand__7__")]
    assert [line[8] for line in lines] == ["in run", "in own", "in a thread", "the author's", "of another logger"]
    assert {tuple(line[:4]) for line in lines} == {(lines[0][0], "7", "W", "1")}
    assert [line[4] for line in lines] == ["Fielded", "Fielded", "Fielded", "mine", "Fielded"]
    assert {(line[5], line[6]) for line in lines} == {("1", lines[0][6])}
    assert lines[3][7] == "7"
    if exports:
        spans = by_name(
            otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "Fielded"] and receiver.spans())
        )
        (attempt,), (phase,), (own,) = spans["Fielded"], spans["Run"], spans["own"]
        assert lines[0][6] == attempt.trace_id
        expected = [phase.span_id, own.span_id, attempt.span_id]
        assert [line[7] for line in lines[:3]] == expected
        otlp.wait_for(lambda receiver: len(receiver.logs()) >= len(lines))
        exported = {record.body: record.span_id for record in otlp.logs()}
        assert [exported[line[8]] for line in lines[:3]] == expected


WRAPPED = """
import logging
from dkist_processing_core import TaskBase
class Inner(TaskBase):
    def run(self): logging.getLogger("author").warning("inner")
class Wrapping(TaskBase):
    def run(self):
        outer = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *values, **named: outer(*values, **named))
        calls = logging.Logger.callHandlers
        logging.Logger.callHandlers = lambda logger, record: calls(logger, record)
        logging.getLogger("author").warning("wrapped")
        Inner(recipe_run_id=2, workflow_name="W", workflow_version="1")()
for _ in range(2):
    with Wrapping(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""


def test_each_log_record_is_exported_once_with_the_attempt_that_it_is_of(otlp: OtlpReceiver) -> None:
    """
    This holds for any record factory and logger method that the author sets, and for a task inside a task.
    """
    done = run_python(WRAPPED, otlp.grpc_env)
    assert done.returncode == 0, done.stderr

    otlp.wait_for(lambda receiver: len(receiver.logs()) >= 4)
    records = [(record.body, record.attributes["task.name"]) for record in otlp.logs()]
    assert records == [("wrapped", "Wrapping"), ("inner", "Inner")] * 2


NESTED = """
import os, subprocess, sys
from dkist_processing_core import TaskBase
class Inner(TaskBase):
    def run(self): pass
class Outer(TaskBase):
    def run(self):
        shown = "import os; print(os.environ.get('TRACEPARENT'), os.environ.get('TRACESTATE'))"
        subprocess.run([sys.executable, "-c", shown], check=True)
        with self.telemetry_span("made here"):
            for _ in range(2):
                Inner(recipe_run_id=1, workflow_name="W", workflow_version="1")()
        with self.tracer.start_as_current_span("by the tracer"): pass
with Outer(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
print(os.environ.get("TRACEPARENT"), os.environ.get("TRACESTATE"))
"""
LAUNCHED = {
    "DKIST_CORE_RUN_ID": "local__1",
    "DKIST_CORE_WORKFLOW": "W",
    "DKIST_CORE_VERSION": "1",
    "DKIST_CORE_TASK": "Outer",
    "DKIST_CORE_RECIPE_RUN_ID": "1",
    "TRACEPARENT": OUTER,
    "TRACESTATE": "dkist=1",
}
OUTER_ATTEMPT = f"{derived_attempt_span_id(Attempt(THE_RUN, 'Outer', attempt=1, max_attempts=1)):016x}"


@pytest.mark.parametrize("launched", [True, False])
def test_a_task_inside_a_task_hangs_from_where_it_was_called(otlp: OtlpReceiver, *, launched: bool) -> None:
    """
    Each span has the identity of its task.
    """
    done = run_python(NESTED, {**otlp.grpc_env, **(LAUNCHED if launched else {})})
    assert done.returncode == 0, done.stderr

    spans = by_name(
        otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "Outer"] and receiver.spans())
    )
    (outer,), (made_here,) = spans["Outer"], spans["made here"]
    assert outer.parent_id == ("b7ad6b7169203331" if launched else "")
    assert [inner.parent_id for inner in spans["Inner"]] == [made_here.span_id] * 2
    everything = [span for each in spans.values() for span in each]
    assert {span.trace_id for span in everything} == {outer.trace_id}
    names = {outer.span_id: "Outer"} | {span.span_id: "Inner" for span in spans["Inner"]}
    parents = {span.span_id: span.parent_id for span in everything}
    for span in everything:
        nearest = span.span_id
        while nearest not in names:
            nearest = parents[nearest]
        assert span.attributes["task.name"] == names[nearest]
        identity = [span.attributes[f"{name}"] for name in ("recipe.run.id", "workflow.name", "workflow.version")]
        assert identity == [1, "W", "1"]
    assert {span.attributes["messaging.system"] for span in spans["publish workflow.events.x"]} == {"embedded"}


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_off"}])
def test_a_launched_task_s_subprocesses_and_events_carry_its_attempt(environment: dict[str, str]) -> None:
    """
    They carry it without an exporter, too, with the caller's trace state and the flag 01. Afterwards, the environment
    is restored.
    """
    done = run_python(NESTED, {**LAUNCHED, **environment})
    assert done.returncode == 0, done.stderr

    within, after = done.stdout.splitlines()
    events = [event for event in subscribe(replay=True, timeout=0.05) if event.run_id == "local__1"]
    assert [event.tracestate for event in events] == ["dkist=1"] * 2
    (traceparent,) = {event.traceparent for event in events}
    assert traceparent is not None
    assert traceparent.startswith(f"00-{OUTER[3:35]}-")
    assert traceparent.endswith("-01")
    assert environment or traceparent[36:52] == OUTER_ATTEMPT
    assert (within, after) == (f"{traceparent} dkist=1", f"{OUTER} dkist=1")


HOST = """
import json, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["HOSTS_SPANS"], "a") as file:
            for span in spans:
                parent = f"{span.parent.span_id:016x}" if span.parent else None
                ids = [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
                file.write(json.dumps([span.name, *ids, parent]) + "\\n")
        return SpanExportResult.SUCCESS

class States(Sampler):
    def should_sample(self, parent_context, trace_id, name, *values, **named):
        inner = ALWAYS_OFF if "HOST_DROPS" in os.environ else ALWAYS_ON
        given = inner.should_sample(parent_context, trace_id, name, *values, **named)
        return SamplingResult(given.decision, given.attributes, trace.TraceState([("host", "1")]))
    def get_description(self): return "states"

provider = TracerProvider(sampler=States())
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
trace.set_tracer_provider(provider)
"""
HOSTED = """
import os, subprocess, sys
from dkist_processing_core import TaskBase, Workflow

class Hosted(TaskBase):
    def run(self):
        shown = "import os; print('given', os.environ.get('TRACEPARENT'), os.environ.get('TRACESTATE'))"
        subprocess.run([sys.executable, "-S", "-E", "-c", shown], check=True)

if __name__ == "__main__":
    if sys.argv[1] == "by hand":
        Hosted(recipe_run_id=1, workflow_name="W", workflow_version="1")()
    else:
        workflow = Workflow(process_category="a", process_name="host")
        workflow.add_node(Hosted)
        workflow.run(recipe_run_id=1)
"""


def run_hosted(how: str, folder: Path, **environment: str) -> tuple[str, list[Event], list[list[str]]]:
    """
    Run a task in processes with a tracer provider of the host; return output, events and the host's spans.
    """
    (folder / "sitecustomize.py").write_text(HOST)
    (folder / "hosted.py").write_text(HOSTED)
    spans = folder / "spans"
    spans.touch()
    done = subprocess.run(
        [sys.executable, "hosted.py", how],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "HOSTS_SPANS": str(spans)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    events = list(subscribe(replay=True, timeout=0.05))
    return done.stdout, events, [json.loads(line) for line in spans.read_text().splitlines()]


@pytest.mark.parametrize("how", ["by hand", "a local run"])
def test_the_spans_of_a_host_s_provider_are_those_that_everything_hangs_from(how: str, tmp_path: Path) -> None:
    """
    `opentelemetry-instrument` installs such a provider in each process. The provider chooses ids and a trace state.
    """
    shown, events, spans = run_hosted(how, tmp_path)

    made = {(trace_id, span_id): name for name, trace_id, span_id, _ in spans}
    assert len({trace_id for trace_id, _ in made}) == 1
    assert {parent for *_, parent in spans if parent} <= {span_id for _, span_id in made}
    assert [name for name, *_, parent in spans if parent is None] == ["Hosted" if how == "by hand" else "a_host"]
    for event in events:
        _, trace_id, span_id, _ = str(event.traceparent).split("-")
        assert made[trace_id, span_id] == ("Hosted" if isinstance(event, TaskEvent) else "a_host")
        assert event.tracestate == "host=1"
    if how == "a local run":
        (attempt,) = {event.traceparent for event in events if isinstance(event, TaskEvent)}
        assert f"given {attempt} host=1" in shown


def test_what_a_host_s_provider_drops_has_the_derived_ids(tmp_path: Path) -> None:
    """
    Without exported spans, the derived ids connect the events of one run.
    """
    _, events, spans = run_hosted("a local run", tmp_path, HOST_DROPS="1")

    attempt = Attempt(events[0].run, "Hosted", attempt=1, max_attempts=1)
    span_ids = {derived_run_span_id(events[0].run), derived_attempt_span_id(attempt)}
    assert spans == []
    assert {event.traceparent for event in events} == {
        f"00-{derived_trace_id(events[0].run):032x}-{span_id:016x}-01" for span_id in span_ids
    }


ENGINES_ROOT = """
from datetime import UTC, datetime
from dkist_processing_core.airflow import _runs
from dkist_processing_core.identity import Run
now = datetime.now(UTC)
_runs._export_span(Run("W", "1", "local__1", 1), 0x0123456789abcdef, now, now, succeeded=True)
from opentelemetry import trace
with trace.get_tracer("own").start_as_current_span("own"): pass
"""


def test_the_root_span_of_an_engine_s_run_has_the_ids_that_its_attempts_know(tmp_path: Path) -> None:
    """
    This holds for a host's provider, too: the span is created last, after its ids were used as parents.
    """
    (tmp_path / "sitecustomize.py").write_text(HOST)
    spans = tmp_path / "spans"

    done = run_python(ENGINES_ROOT, {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "HOSTS_SPANS": str(spans)})

    assert done.returncode == 0, done.stderr
    root, own = (json.loads(line) for line in spans.read_text().splitlines())
    assert root == ["W", f"{derived_trace_id(THE_RUN):032x}", "0123456789abcdef", None]
    assert own[1] != root[1]


def test_a_secret_of_the_file_of_settings_is_in_no_span(otlp: OtlpReceiver, tmp_path: Path) -> None:
    """
    The secret is in no log record either.
    """
    (tmp_path / ".env").write_text("ISB_PASSWORD=canary-hunter22\n")
    failing = MEASURED.replace("which is fine", "canary-hunter22").replace('"line"', '"canary-hunter22"')

    done = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{failing}", otlp.grpc_env)

    assert done.returncode == 0, done.stderr
    (span,) = otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "fine"])
    assert [event.attributes["exception.message"] for event in span.events] == ["[redacted]"]
    assert otlp.wait_for(lambda receiver: [record for record in receiver.logs() if record.body == "a [redacted]"])
    assert "canary" not in repr([otlp.spans(), otlp.logs()])


HEX = st.text("0123456789abcdef", min_size=2, max_size=2)
ALMOST_TRACEPARENTS = st.one_of(
    st.builds(
        "{}{}-{}-{}-{}{}".format,
        st.sampled_from(["", " ", "\t"]),
        HEX | st.sampled_from(["00", "ff", "0G"]),
        st.text("0123456789abcdef", min_size=31, max_size=33) | st.just("0" * 32),
        st.text("0123456789abcdef", min_size=15, max_size=17) | st.just("0" * 16),
        HEX | st.just("1"),
        st.sampled_from(["", "-", "-more", " ", "\n", "-" + "x" * 500]),
    ),
    st.text(max_size=60),
)


@given(ALMOST_TRACEPARENTS)
def test_a_launcher_reads_a_context_as_opentelemetry_does(header: str) -> None:
    """
    It is read by the same rules before OpenTelemetry is imported. The task's trace is that of the launcher's span.
    """
    attempt = Attempt(THE_RUN, "A", attempt=1, max_attempts=1)

    read = attempt_traceparent(attempt, {"TRACEPARENT": header})

    assert read.split("-")[1] == f"{run_parent(THE_RUN, {'TRACEPARENT': header}).trace_id:032x}"


EXPORTS = """
import os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.tracing._otlp import otlp_exporter


def sockets():
    numbers = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return {os.readlink(number) for number in numbers if os.path.islink(number)}

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(otlp_exporter(DKISTProcessingCoreConfiguration(), "traces")))
before = sockets()
with provider.get_tracer("test").start_as_current_span("one"):
    pass
print(sockets() - before)
"""


def test_an_export_over_http_leaves_no_connection_open(otlp: OtlpReceiver) -> None:
    """
    Otherwise a task could close its descriptor and open a file with the same number, which the next export would use.
    """
    done = run_python(EXPORTS, otlp.http_env)

    assert done.returncode == 0, done.stderr
    otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "one"])
    assert done.stdout == "set()\n"
