"""
Tests of the instrumentation of an author's libraries, with the instrumentors of sqlite3, logging, pika and requests.
"""

from pathlib import Path

import pytest

from tests.running import run_python
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver

pytestmark = pytest.mark.once

INSTRUMENTED = """
import logging, os, sqlite3
import pika
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from dkist_processing_core import TaskBase, subscribe
LoggingInstrumentor().instrument()
class Instrumented(TaskBase):
    auto_instrument = "PLAIN" not in os.environ
    def run(self):
        with sqlite3.connect(":memory:") as connection:
            connection.cursor().execute("CREATE TABLE frames (id)")
        logging.getLogger("author").warning("a line")
        import requests
        requests.get(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"], timeout=5)
        user = pika.PlainCredentials(os.environ["ISB_USERNAME"], os.environ["ISB_PASSWORD"])
        place = pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"]), os.environ["ISB_VHOST"], user)
        with pika.BlockingConnection(place) as connection:
            connection.channel().basic_publish("", "nowhere", b"")
        assert next(iter(subscribe("task.started", replay=True, timeout=300))).name == "task.started"
with Instrumented(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""
OURS = ["Instrumented", "Post Run", "Pre Run", "Run", "publish workflow.events.x", "publish workflow.events.x"]


@pytest.mark.parametrize(
    ("variables", "authors"),
    [
        pytest.param({}, ["CREATE", "GET", "nowhere send"], id="all"),
        pytest.param({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests, pika"}, ["CREATE"], id="some"),
        pytest.param({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": '["sqlite3", "pika"]'}, ["GET"], id="as-in-7.x"),
        pytest.param({"PLAIN": "1"}, [], id="none"),
    ],
)
def test_the_author_s_use_of_libraries_makes_spans_and_our_own_does_not(
    otlp: OtlpReceiver, owned: Broker, variables: dict[str, str], authors: list[str]
) -> None:
    """
    Ours are journal, broker, subscription, log and export. What is imported in `run` is also instrumented.
    """
    environment = {**otlp.http_env, **owned.env, "PORT": str(owned.port), **variables}

    done = run_python(INSTRUMENTED, environment)

    assert done.returncode == 0, done.stderr
    spans = otlp.wait_for(
        lambda receiver: [s for s in receiver.spans() if s.name == "Instrumented"] and receiver.spans()
    )
    (run,) = [span for span in spans if span.name == "Run"]
    others = [span for span in spans if span.name not in OURS]
    assert sorted(span.name for span in spans if span.name in OURS) == OURS
    # This instrumentor makes two equal spans, one for each layer of pika.
    assert sorted({span.name for span in others}) == authors
    assert {span.parent_id for span in others} <= {run.span_id, *(span.span_id for span in others)}
    assert {span.attributes["task.name"] for span in others} <= {"Instrumented"}
    otlp.wait_for(lambda receiver: receiver.logs())
    assert [record.body for record in otlp.logs() if record.attributes["logger.name"] == "author"] == ["a line"]


SWITCHED = """
import sqlite3
from dkist_processing_core import TaskBase
class Step(TaskBase):
    below = None
    def run(self):
        self.query("before")
        if self.below is not None: self.below(recipe_run_id=1, workflow_name="W", workflow_version="1")()
        self.query("after")
    def query(self, word):
        with sqlite3.connect(":memory:") as connection:
            connection.cursor().execute(f"CREATE TABLE {self.task_name}_{word} (id)")
class Plain(Step): auto_instrument = False
class Traced(Step): below = Plain
class PlainOutside(Plain): below = Step
for step in (PlainOutside, Traced, Plain, Step):
    with step(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""


def test_a_task_without_instrumentation_makes_no_spans_of_libraries_after_one_with_it(otlp: OtlpReceiver) -> None:
    """
    Each task of a process, also one that another task calls, has its own `auto_instrument`.
    """
    done = run_python(SWITCHED, otlp.grpc_env)

    assert (done.returncode, "while already" in done.stderr) == (0, False), done.stderr
    otlp.wait_for(lambda receiver: [s.name for s in receiver.spans()].count("Step") == 2)
    queries = [span.attributes["db.statement"].split()[2] for span in otlp.spans() if "db.statement" in span.attributes]
    steps = ["Step_before", "Step_after"]
    assert queries == [*steps, "Traced_before", "Traced_after", *steps]


FAULTY = """
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
class Raises(BaseInstrumentor):
    def instrumentation_dependencies(self): return []
    def _instrument(self, **_): raise SystemError("broken, password=hunter2")
    def _uninstrument(self, **_): pass
class Incompatible(BaseInstrumentor):
    def instrumentation_dependencies(self): return ["pika < 0.1"]
    def _instrument(self, **_): raise SystemError("not reached")
    def _uninstrument(self, **_): pass
"""


def test_an_instrumentor_that_fails_is_one_line_of_the_log(otlp: OtlpReceiver, tmp_path: Path) -> None:
    """
    One that raises, one that is incompatible with its library and one that cannot be imported do not harm the others.
    """
    (tmp_path / "faulty.py").write_text(FAULTY)
    info = tmp_path / "faulty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    lines = ["raises = faulty:Raises", "old = faulty:Incompatible", "gone = faulty:Missing"]
    (info / "entry_points.txt").write_text("\n".join(["[opentelemetry_instrumentor]", *lines, ""]))
    program = INSTRUMENTED.partition("        logging.getLogger")[0] + INSTRUMENTED[INSTRUMENTED.index("with Instr") :]
    program = program.replace("LoggingInstrumentor().instrument()", "")

    environment = {**otlp.grpc_env, "PYTHONPATH": f"{tmp_path}", "A_PASSWORD": "hunter2"}
    done = run_python(program, environment)

    assert done.returncode == 0, done.stderr
    spans = otlp.wait_for(
        lambda receiver: [s for s in receiver.spans() if s.name == "Instrumented"] and receiver.spans()
    )
    assert "CREATE" in {span.name for span in spans}
    shown = [line for line in done.stderr.splitlines() if "instrument" in line]
    assert len(shown) == 3, done.stderr
    assert any(line.endswith("raises is not instrumented: SystemError: broken, password=[redacted]") for line in shown)
    assert any("only instruments" in line and "0.1" in line for line in shown), shown
    assert any("gone is not instrumented: AttributeError" in line for line in shown)
    assert "Traceback" not in done.stderr
