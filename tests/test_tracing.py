"""
Tests of spans, metrics and log records, with a real OTLP receiver at the other end.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.trace import SpanContext, TraceFlags

from dkist_processing_core import subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.tracing import (
    Carrier,
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
    endpoint_of,
    run_parent,
)
from tests.services.otlp import OtlpReceiver, Span

ROOT = Path(__file__).parent.parent
RUN = "from tests.pipelines import diamond; diamond.run(recipe_run_id=5)"
OUTER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
THE_RUN = Run("W", "1", "local__1", 1)


def run_python(program: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """
    Run a program in a process of its own.
    """
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def by_name(spans: list[Span]) -> dict[str, list[Span]]:
    """
    Return spans by their names.
    """
    return {name: [span for span in spans if span.name == name] for name in {span.name for span in spans}}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_run_is_one_trace_with_parents_right_across_processes(otlp: OtlpReceiver, transport: str) -> None:
    """
    Root span of the run, below it a span per attempt, below that the phases, below those the author's own.
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
    events = {event.id: event for event in subscribe(replay=True, timeout=0.05)}
    assert events.keys() == {span.attributes["messaging.message.id"] for span in publishes}
    for event in events.values():
        assert event.traceparent is not None
        assert event.traceparent.startswith(f"00-{root.trace_id}-")
        assert event.traceparent.endswith("-01")


def test_a_failure_is_an_error_with_its_type_and_without_secrets(otlp: OtlpReceiver) -> None:
    """
    Status and `error.type` on attempt and phase, the exception recorded redacted, the run an error too.
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


def test_a_run_that_began_with_a_traceparent_rides_it(otlp: OtlpReceiver) -> None:
    """
    The whole run hangs from the caller's span, sampled whatever its flag says.
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
    What the author set stands, and log records carry trace and run.
    """
    done = run_python(MEASURED, otlp.grpc_env)
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
    assert record.attributes["cicd.pipeline.run.id"] == attempt.attributes["cicd.pipeline.run.id"]


def test_the_console_exporter_writes_spans() -> None:
    """
    `OTEL_TRACES_EXPORTER=console` shows spans without any collector.
    """
    done = run_python(MEASURED, {"OTEL_TRACES_EXPORTER": "console"})

    assert '"name": "Measured"' in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_exported_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    """
    Without somewhere to export to, the SDK is not even imported.
    """
    program = f"{MEASURED}\nimport sys; print('opentelemetry.sdk' in sys.modules)"

    done = run_python(program, environment)

    assert (done.returncode, done.stdout) == (0, "False\n")


def test_mesh_config_names_collectors_where_no_variable_does() -> None:
    """
    The standard variables come first.
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
    A pipeline that is only given MESH_CONFIG is traced all the same.
    """
    host, port = otlp.grpc_endpoint.removeprefix("http://").split(":")
    mesh = f'{{"otlp-traces-endpoint": {{"mesh_address": "{host}", "mesh_port": {port}}}}}'

    run_python(MEASURED, {"MESH_CONFIG": mesh})

    assert otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "Measured"])


def test_ids_are_derived_from_what_is_traced() -> None:
    """
    Vectors: releases that meet in one trace must agree.
    """
    attempt = Attempt(THE_RUN, "A", attempt=1, max_attempts=1)

    assert f"{derived_trace_id(THE_RUN):032x}" == "e72a8443b50e5fd097719d2fc1952c29"
    assert f"{derived_run_span_id(THE_RUN):016x}" == "664e4757b3cd4b81"
    assert f"{derived_run_span_id(THE_RUN, '2026-11-22T09:00:00.000000Z'):016x}" != "664e4757b3cd4b81"
    assert f"{derived_attempt_span_id(attempt):016x}" == "a84fe422fcc51b34"


def test_a_carrier_takes_the_trace_to_another_process() -> None:
    """
    What one process writes, the next reads; the flag is always 01.
    """
    span = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))

    taken_up = run_parent(THE_RUN, Carrier.of(span).to_environ())

    assert (taken_up.trace_id, taken_up.span_id, taken_up.trace_flags) == (1, 2, 1)
    assert run_parent(THE_RUN, {"TRACEPARENT": OUTER}).trace_flags == 1
    assert run_parent(THE_RUN, {"TRACEPARENT": "nonsense"}).trace_id == derived_trace_id(THE_RUN)
