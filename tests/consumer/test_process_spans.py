"""
The spans of a consumer's handlers, with the in-memory exporter and with a real OTLP receiver.
"""

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Connection, text

from dkist_processing_core import Consumer, subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer.process_spans import ProcessSpans
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Database
from dkist_processing_core.semconv import ATTRIBUTES
from dkist_processing_core.testing import InMemoryBus
from dkist_processing_core.tracing import Telemetry
from dkist_processing_core.tracing.spans import SPANS
from tests.facts import failed
from tests.running import run_python
from tests.services.otlp import LogRecord, OtlpReceiver

OF_ATTEMPT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
READS = DKISTProcessingCoreConfiguration.read


@pytest.fixture
def handled(state_dir: object) -> Callable[..., list[ReadableSpan]]:
    """
    A function that lets a consumer handle events, and returns the spans of its process in the order of their ends.
    """

    def handled(consumer: Consumer, *events: Event, **options: Any) -> list[ReadableSpan]:
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with InMemoryBus() as bus:
            bus.publish(*events)
            spans = ProcessSpans(Telemetry(provider), consumer.name, bus, **options)
            database = Database.open(f"sqlite:///{state_dir}/inbox.db", READS())
            with closing(ConsumerService(consumer, bus, database, since=True, spans=spans)) as service:
                service.run(until_idle=True)
        return list(exporter.get_finished_spans())

    return handled


def test_each_call_of_a_handler_is_a_span_with_a_link_to_the_span_of_its_event(
    handled: Callable[..., list[ReadableSpan]],
) -> None:
    """
    Two functions for one event are two spans. Each begins a trace, and has the attributes that the reference lists.
    """
    consumer = Consumer("announcer", batch_size=5)
    consumer.on("task.failed")(announce)
    consumer.on("task.*")(announce_later)

    spans = handled(consumer, failed("A", traceparent=OF_ATTEMPT, tracestate="dkist=1"))

    (listed,) = (span for span in SPANS if span.subject == "handling")
    assert [span.name for span in spans] == ["process workflow.events.x:announcer"] * 2
    assert {span.kind for span in spans} == {trace.SpanKind.CONSUMER}
    assert [span.parent for span in spans] == [None, None]
    assert len({span.context.trace_id for span in spans}) == 2
    for span in spans:
        (link,) = span.links
        assert f"00-{link.context.trace_id:032x}-{link.context.span_id:016x}-01" == OF_ATTEMPT
        assert link.context.trace_state.to_header() == "dkist=1"
        assert span.status.status_code is trace.StatusCode.UNSET
        assert dict(span.attributes or {}) | {"code.function.name": ""} == {
            "messaging.system": "embedded",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "workflow.events.x:task.failed.W.A:announcer",
            "messaging.destination.template": "workflow.events.x:announcer",
            "messaging.consumer.group.name": "announcer",
            "messaging.message.id": failed("A").id,
            "messaging.message.conversation_id": "r",
            "rabbitmq.destination.routing_key": "task.failed.W.A",
            "recipe.run.id": 1,
            "workflow.name": "W",
            "workflow.version": "1",
            "task.name": "A",
            "code.function.name": "",
            "dkist.consumer.try": 1,
        }
        assert set(span.attributes or {}) <= set(listed.attributes)
    assert [(span.attributes or {})["code.function.name"] for span in spans] == [
        "tests.consumer.test_process_spans.announce",
        "tests.consumer.test_process_spans.announce_later",
    ]


def announce(event: Event) -> None:
    """
    Do nothing.
    """


async def announce_later(event: Event) -> None:
    """
    Do nothing.
    """


def test_each_try_is_a_span_and_a_failed_one_has_the_error_and_no_secret(
    handled: Callable[..., list[ReadableSpan]],
) -> None:
    """
    The second try succeeds: its span has no error.
    """
    consumer, calls = Consumer("announcer", first_pause=0.0, longest_pause=0.0), list[Event]()

    @consumer.on("task.failed")
    async def act(event: Event, transaction: Connection) -> None:
        transaction.execute(text("SELECT 1"))
        calls.append(event)
        if len(calls) == 1:
            message = "no answer from https://user:hunter22@host"
            raise LookupError(message)

    first, second = handled(consumer, failed("A"))

    (recorded,) = first.events
    assert ((first.attributes or {})["dkist.consumer.try"], (second.attributes or {})["dkist.consumer.try"]) == (1, 2)
    assert (first.attributes or {})["error.type"] == "LookupError"
    assert first.status.status_code is trace.StatusCode.ERROR
    assert "hunter22" not in f"{first.status.description} {recorded.attributes}"
    assert second.status.status_code is trace.StatusCode.UNSET
    assert "error.type" not in (second.attributes or {})
    assert first.links == second.links == ()


def test_the_older_name_of_the_routing_key_is_there_on_request(handled: Callable[..., list[ReadableSpan]]) -> None:
    """
    Dashboards on the older name keep their data while they are changed.
    """
    consumer = Consumer("announcer")
    consumer.on("task.failed")(announce)

    (span,) = handled(consumer, failed("A"), keeps_older_names=True)

    found = {name: value for name, value in (span.attributes or {}).items() if name.endswith("routing_key")}
    assert found == dict.fromkeys(
        ("rabbitmq.destination.routing_key", "messaging.rabbitmq.destination.routing_key"), "task.failed.W.A"
    )
    assert set(found) <= set(ATTRIBUTES)


CONSUMING = """
from opentelemetry import trace
from dkist_processing_core import Consumer, TaskBase

class Noted(TaskBase):
    def run(self):
        raise ValueError("bad frame")

try:
    Noted(recipe_run_id=1, workflow_name="W", workflow_version="1")()
except ValueError:
    pass
consumer = Consumer("announcer")

@consumer.on("task.failed")
def announce(event):
    with trace.get_tracer("author").start_as_current_span("post to the channel"):
        pass

@consumer.on("task.failed")
async def note(event):
    with trace.get_tracer("author").start_as_current_span("write the note"):
        pass

consumer.run(since="first", until_idle=True)
"""


@pytest.mark.parametrize("transport", ["grpc", pytest.param("http", marks=pytest.mark.once)])
def test_a_handler_s_own_spans_are_below_its_span_which_leads_to_the_attempt(
    otlp: OtlpReceiver, transport: str
) -> None:
    """
    The spans of a task and of the consumer of its failure arrive, with the older name of the routing key on request.
    """
    environment = otlp.grpc_env if transport == "grpc" else otlp.http_env
    signals = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}

    done = run_python(CONSUMING, {**environment, **signals, "OTEL_SEMCONV_STABILITY_OPT_IN": "http, messaging/dup"})
    assert done.returncode == 0, done.stderr

    spans = otlp.wait_for(
        lambda receiver: (
            [span for span in receiver.spans() if span.name == "write the note"]
            and [span for span in receiver.spans() if span.name == "Noted"]
            and receiver.spans()
        )
    )
    (attempt,) = (span for span in spans if span.name == "Noted")
    handling = {span.span_id: span for span in spans if span.kind == "CONSUMER"}
    below = {span.name: handling[span.parent_id] for span in spans if span.parent_id in handling}
    assert {re.sub(r".*\.", "", str(each.attributes["code.function.name"])) for each in below.values()} == {
        "announce",
        "note",
    }
    assert below["post to the channel"].attributes["code.function.name"] == "__main__.announce"
    assert below["write the note"].attributes["code.function.name"] == "__main__.note"
    for span in handling.values():
        assert [(link.trace_id, link.span_id) for link in span.links] == [(attempt.trace_id, attempt.span_id)]
    messages = [span for span in spans if "messaging.system" in span.attributes]
    assert {span.kind for span in messages} == {"CONSUMER", "PRODUCER"}
    for span in messages:
        older = span.attributes["messaging.rabbitmq.destination.routing_key"]
        assert older == span.attributes["rabbitmq.destination.routing_key"]
    assert {name for span in spans if span.scope == "dkist_processing_core" for name in span.attributes} <= set(
        ATTRIBUTES
    )


LOGGING = """
import logging
from dkist_processing_core import Consumer, TaskBase

class Noted(TaskBase):
    def run(self):
        raise ValueError("bad frame")

try:
    Noted(recipe_run_id=7, workflow_name="W", workflow_version="1")()
except ValueError:
    pass
fields = "%(run_id)s %(recipe_run_id)s %(workflow)s %(version)s %(task)s %(attempt)s %(trace_id)s %(span_id)s"
known = dict.fromkeys("run_id recipe_run_id workflow version task attempt trace_id span_id".split(), "-")
form = logging.Formatter(f"{fields} %(message)s", defaults=known)
handler = logging.StreamHandler()
handler.setFormatter(form)
logging.basicConfig(handlers=[handler], level="INFO")
log = logging.getLogger("author")
consumer = Consumer("announcer", max_tries=1)

@consumer.on("task.failed")
def announce(event):
    log.warning("announced")

@consumer.on("task.failed")
async def note(event):
    log.warning("noted")
    raise LookupError("no channel")

calls = logging.Logger.callHandlers
consumer.run(since="first", until_idle=True)
assert logging.Logger.callHandlers is calls
"""


def of_consumer(receiver: OtlpReceiver) -> list[LogRecord]:
    """
    Return the records of handlers that have arrived.
    """
    return [record for record in receiver.logs() if "code.function.name" in record.attributes]


@pytest.mark.parametrize("signals", [("traces", "logs"), ("logs",), ()], ids=["all", "logs", "none"])
def test_each_log_record_of_a_handler_has_the_ids_of_its_run_and_span(
    otlp: OtlpReceiver, signals: tuple[str, ...]
) -> None:
    """
    Also that of its failure, and without spans: then they have the span of the event. Other records have no ids.
    """
    others = {"traces", "logs", "metrics"} - set(signals)
    exporters = {f"OTEL_{each.upper()}_EXPORTER": "none" for each in others}

    done = run_python(LOGGING, {**otlp.grpc_env, **exporters})
    assert (done.returncode, "Logging error" in done.stderr) == (0, False), done.stderr

    lines = [line.split(maxsplit=8) for line in done.stderr.splitlines() if line.startswith("hand__7__")]
    assert [line[8] for line in lines[:2]] == ["announced", "noted"]
    assert lines[2][8].startswith("note has failed for task.failed"), done.stderr
    assert {(line[0], *line[1:6]) for line in lines} == {(lines[0][0], "7", "W", "1", "Noted", "1")}
    assert any(line.startswith("- - - - - - - - the consumer 'announcer' begins") for line in done.stderr.splitlines())
    ids = [(line[6], line[7]) for line in lines]
    if "traces" in signals:
        otlp.wait_for(lambda receiver: [each.kind for each in receiver.spans()].count("CONSUMER") == 2)
        spans = [span for span in otlp.spans() if span.kind == "CONSUMER"]
        of_handlers = {str(span.attributes["code.function.name"]): (span.trace_id, span.span_id) for span in spans}
        assert ids == [of_handlers["__main__.announce"], *[of_handlers["__main__.note"]] * 2]
    else:
        (event,) = subscribe("task.failed", replay=True, timeout=0.05)
        assert [f"00-{trace_id}-{span_id}-01" for trace_id, span_id in ids] == [event.traceparent] * 3
    if "logs" in signals:
        otlp.wait_for(lambda receiver: len(of_consumer(receiver)) == len(lines))
        records = of_consumer(otlp)
        assert [(record.trace_id, record.span_id) for record in records] == ids
        assert [record.body for record in records] == [line[8] for line in lines]
        for record in records:
            assert record.attributes["cicd.pipeline.run.id"] == lines[0][0]
            assert record.attributes["cicd.pipeline.task.run.id"] == f"{lines[0][0]}/Noted/1"
            assert record.attributes["messaging.consumer.group.name"] == "announcer"
            assert set(record.attributes) <= {*ATTRIBUTES, "logger.name"}
    else:
        assert otlp.logs() == []


COLLECTING = """
from dkist_processing_core import TaskBase
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.settings.reading import read_settings

class Collected(TaskBase):
    def run(self):
        pass

Collected(recipe_run_id=1, workflow_name="W", workflow_version="1")()
with Collector(read_settings()) as collector:
    collector.catch_up()
    with collector.connection() as connection:
        print("runs:", connection.exec_driver_sql("SELECT count(*) FROM dkist_core_run").scalar())
"""


def test_collecting_makes_no_spans() -> None:
    """
    Its work on each event is the same.
    """
    done = run_python(COLLECTING, {"OTEL_TRACES_EXPORTER": "console"})

    assert done.returncode == 0, done.stderr
    assert "runs: 1" in done.stdout
    assert '"name": "Collected"' in done.stdout
    assert '"name": "process ' not in done.stdout
