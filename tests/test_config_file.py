"""
Declarative configuration of OpenTelemetry: the file that OTEL_CONFIG_FILE names is followed, or refused by a warning.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dkist_processing_core.cli import app
from tests.running import ROOT, run_python
from tests.services.otlp import OtlpReceiver
from tests.test_tracing import HOSTED, MEASURED

pytestmark = pytest.mark.once
BLOCKED = "import sys; sys.modules['opentelemetry.configuration'] = None\n"


def file_in(folder: Path, receiver: OtlpReceiver) -> Path:
    """
    Return a file that sends all signals to a receiver over HTTP.
    """

    def exporter(signal: str) -> dict[str, Any]:
        return {"exporter": {"otlp_http": {"endpoint": f"{receiver.http_endpoint}/v1/{signal}"}}}

    file = folder / "otel.yaml"
    file.write_text(
        json.dumps(
            {
                "file_format": "1.0",
                "resource": {"attributes": [{"name": "service.name", "value": "by-file"}]},
                "tracer_provider": {"processors": [{"batch": exporter("traces")}]},
                "meter_provider": {"readers": [{"periodic": exporter("metrics")}]},
                "logger_provider": {"processors": [{"batch": exporter("logs")}]},
            }
        )
    )
    return file


@pytest.mark.parametrize("variable", ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"])
def test_all_signals_go_where_the_file_says_whatever_other_variables_say(
    otlp: OtlpReceiver, tmp_path: Path, refusing_port: int, variable: str
) -> None:
    """
    The resource is that of the file, and the spans have the identity of their attempt.
    """
    other = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{refusing_port}", "OTEL_SERVICE_NAME": "by-variable"}

    done = run_python(MEASURED, {variable: str(file_in(tmp_path, otlp)), **other})

    assert done.returncode == 0, done.stderr
    assert "not exported" not in done.stderr
    (own,) = otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "fine"])
    (metric,) = otlp.wait_for(lambda receiver: [each for each in receiver.metrics() if "frames" in each.name])
    (record,) = otlp.wait_for(lambda receiver: [each for each in receiver.logs() if each.body == "a line"])
    (attempt,) = (span for span in otlp.spans() if span.name == "Measured")
    assert {each.resource["service.name"] for each in (own, metric, record)} == {"by-file"}
    assert {own.trace_id, record.trace_id} == {attempt.trace_id}
    assert own.attributes["workflow.name"] == "W"


def test_the_processes_of_a_run_share_one_trace_by_the_file_s_providers(otlp: OtlpReceiver, tmp_path: Path) -> None:
    """
    Engine, launcher and task each set them up, and no parent is missing.
    """
    (tmp_path / "hosted.py").write_text(HOSTED)
    variables = {"OTEL_CONFIG_FILE": str(file_in(tmp_path, otlp)), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    subprocess.run(
        [sys.executable, "hosted.py", "a local run"], cwd=tmp_path, env=os.environ | variables, check=True, timeout=300
    )

    spans = otlp.wait_for(lambda receiver: [s for s in receiver.spans() if s.name == "a_host"] and receiver.spans())
    assert {"a_host", "Hosted", "Pre Run", "Run", "Post Run", "publish workflow.events.x"} == {s.name for s in spans}
    assert len({span.trace_id for span in spans}) == 1
    assert {span.parent_id for span in spans} - {""} <= {span.span_id for span in spans}


def test_without_the_package_one_warning_reports_what_is_done_instead(otlp: OtlpReceiver) -> None:
    """
    The other variables count, so no telemetry is lost.
    """
    done = run_python(BLOCKED + MEASURED, {**otlp.grpc_env, "OTEL_CONFIG_FILE": "/etc/otel.yaml"})

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("OTEL_CONFIG_FILE names /etc/otel.yaml, and the package opentelemetry-configuration") == 1
    assert otlp.wait_for(lambda receiver: [span for span in receiver.spans() if span.name == "fine"])


@pytest.mark.parametrize("content", [None, "file_format: '1.0'\ntracer_provider: {processors: 3}"])
def test_a_file_that_cannot_be_followed_costs_the_telemetry_only(tmp_path: Path, content: str | None) -> None:
    """
    A missing file and a wrong value are one warning each, and the task succeeds.
    """
    file = tmp_path / "otel.yaml"
    if content is not None:
        file.write_text(content)

    done = run_python(MEASURED, {"OTEL_CONFIG_FILE": str(file)})

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("spans, metrics and logs are not exported: ") == 1


def test_the_doctor_reports_the_file_and_whether_it_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It reports the same sentence as the warning of a task.
    """
    monkeypatch.setenv("OTEL_CONFIG_FILE", "/etc/otel.yaml")

    def checks() -> dict[str, dict[str, str]]:
        found = CliRunner().invoke(app, ["doctor", "--json"]).stdout
        return {check["name"]: check for check in json.loads(found)["checks"]}

    followed = checks()
    monkeypatch.setitem(sys.modules, "opentelemetry.configuration", None)
    refused = checks()

    assert followed["config file"]["status"] == "skipped"
    assert (
        "the telemetry of tasks and handlers is as the file /etc/otel.yaml describes"
        in followed["config file"]["detail"]
    )
    assert refused["config file"]["status"] == "wrong"
    assert "is not installed here" in refused["config file"]["detail"]
    assert "unset OTEL_CONFIG_FILE" in refused["config file"]["advice"]
