"""
A workflow whose run has a retry and a killed attempt. `python -m tests.traced FILE` writes the spans of one run.

The file is the source of the picture of a trace in the documentation.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from opentelemetry import trace

from dkist_processing_core import TaskBase, Workflow
from dkist_processing_core.semconv import ERROR_TYPE
from tests.services.otlp import OtlpReceiver, Span


class Step(TaskBase):
    """
    A task whose work takes a moment, and whose first attempt can be distinguished from later ones.
    """

    retry_delay_seconds = 0

    def is_first_attempt(self) -> bool:
        """
        Return True once for each task of a run.
        """
        try:
            Path(os.environ["TRACED_FOLDER"], self.task_name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def work(self, name: str, seconds: float = 1.0) -> None:
        """
        Do a part of the work in a span.
        """
        with self.telemetry_span(name):
            # The length of the bar in the picture; the tests leave it at 0.
            time.sleep(seconds * float(os.environ.get("TRACED_SECONDS", "0")))


class ParseFrames(Step):
    """
    Succeeds.
    """

    def run(self) -> None:
        """
        Read.
        """
        self.work("read headers", 0.4)


class CorrectFrames(Step):
    """
    Fails once.
    """

    retries = 1

    def run(self) -> None:
        """
        Read and correct.
        """
        self.work("read frames", 0.5)
        with self.telemetry_span("subtract background"):
            self.work("estimate background", 0.6)
            if self.is_first_attempt():
                raise OSError("no answer from the archive")
        self.progress(4, 4)


class FitLimb(Step):
    """
    Is killed once, as by the kernel when memory runs out.
    """

    retries = 1

    def run(self) -> None:
        """
        Fit.
        """
        with self.telemetry_span("fit limb"):
            self.work("find edges", 0.5)
            self.progress(1, 2)
            if self.is_first_attempt():
                # What has ended so far leaves the process, as it does in a longer task.
                trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined] # it is the SDK's
                os.kill(os.getpid(), signal.SIGKILL)
            self.work("minimize", 0.7)


class MakeMovie(Step):
    """
    Succeeds.
    """

    def run(self) -> None:
        """
        Encode.
        """
        self.work("encode", 0.8)


workflow = Workflow(process_category="solar", process_name="traced", workflow_package=__package__)
workflow.add_node(ParseFrames)
workflow.add_node(CorrectFrames, upstreams=ParseFrames)
workflow.add_node(FitLimb, upstreams=ParseFrames)
workflow.add_node(MakeMovie, upstreams=[CorrectFrames, FitLimb])


def spans_of_run(receiver: OtlpReceiver, environment: dict[str, str], timeout: float = 100) -> list[Span]:
    """
    Run the workflow, and return its spans when that of the run has arrived.
    """
    subprocess.run(
        [sys.executable, "-c", "from tests.traced import workflow; workflow.run(recipe_run_id=5)"],
        env=os.environ | environment | {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        check=False,
        timeout=timeout,
    )
    return receiver.wait_for(
        lambda received: [span for span in received.spans() if span.name == workflow.workflow_name] and received.spans()
    )


if __name__ == "__main__":
    with OtlpReceiver() as otlp, tempfile.TemporaryDirectory() as folder:
        # The parts of the work take seconds, as those of a real run take minutes.
        environment = {"TRACED_FOLDER": folder, "TRACED_SECONDS": "30", "DKIST_CORE_STATE_DIR": folder}
        arrived = spans_of_run(otlp, otlp.grpc_env | environment, timeout=900)
    kept = ("name", "span_id", "parent_id", "kind", "status_code", "start", "end")
    rows = [
        {name: getattr(span, name) for name in kept} | {"error_type": span.attributes.get(ERROR_TYPE)}
        for span in sorted(arrived, key=lambda span: (span.start, span.end))
    ]
    Path(sys.argv[1]).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
