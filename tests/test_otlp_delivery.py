"""
Tests of the delivery of telemetry to a real OTLP receiver, over both protocols.

Not here: the journal itself (test_otlp_journal), and what is written to it (test_tracing).
"""

import contextlib
import json
import os
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.otlp import OtlpBooks
from dkist_processing_core.otlp import SIGNALS, Signal, address_of, destination_of, journal_path, lock_path
from dkist_processing_core.otlp.answers import accepted
from dkist_processing_core.otlp.delivery import Delivery
from dkist_processing_core.otlp.drainer import TelemetryDrainer, deliver_own, start_delivery
from dkist_processing_core.otlp.options import options_of, url_of
from dkist_processing_core.otlp.outcome import Delivered, Denied, Outcome, Refused, Unavailable, outcome_of_code
from dkist_processing_core.otlp.warnings import TelemetryWarnings
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings, secrets_in
from tests.otlp_requests import append, books_of, open_journal, request_of
from tests.running import ROOT, run_python
from tests.services.otlp import Answer, OtlpReceiver
from tests.services.sockets import BlackHole
from tests.services.tls import CertificateAuthority, TlsFiles

PROTOCOLS = ("grpc", "http/protobuf")
RETRYABLE = [
    *[("http/protobuf", Answer(status=status)) for status in (429, 502, 503, 504)],
    *[
        ("grpc", Answer(code=code))
        for code in ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
    ],
    ("grpc", Answer(code="RESOURCE_EXHAUSTED", retry_after="0.5")),
]
FINAL = [
    *[("http/protobuf", Answer(status=status)) for status in (400, 500, 501)],
    *[
        ("grpc", Answer(code=code))
        for code in (
            "UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INTERNAL",
            "RESOURCE_EXHAUSTED",
        )
    ],
]  # fmt: skip
DENYING = [
    *[("grpc", Answer(code=code)) for code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")],
    *[("http/protobuf", Answer(status=status)) for status in (401, 403, 404, 405, 407)],
    ("http/protobuf", Answer(page=b"<html>Log in</html>", content_type="text/html; charset=utf-8")),
    ("http/protobuf", Answer(page=b"<html>Log in</html>", content_type="")),
    ("http/protobuf", Answer(page=b"no JSON", content_type="application/json")),
]
SECRET = "s3cret-of-the-collector"


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """
    The files of either end of a connection: both ends trust the same authority.
    """
    return CertificateAuthority(tmp_path_factory.mktemp("authority")).issue("either-end")


def environment(receiver: OtlpReceiver, protocol: str) -> dict[str, str]:
    """
    Return the variables that name a receiver as the collector of all signals.
    """
    return receiver.grpc_env if protocol == "grpc" else receiver.http_env


@pytest.fixture
def settings_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """
    A function that returns the settings for a receiver, a protocol and further variables.
    """

    def settings_for(receiver: OtlpReceiver, protocol: str, **variables: str) -> Settings:
        for name, value in (environment(receiver, protocol) | variables).items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return settings_for


def delivery_of(settings: Settings, signal: Signal = "traces") -> Delivery:
    """
    Return the delivery of one signal.
    """
    return Delivery(settings, signal, TelemetryWarnings(journal_path(settings), secrets_in(settings)))


def run_once(delivery: Delivery, settings: Settings) -> None:
    """
    Deliver what is pending, until the first failure.
    """
    with contextlib.closing(delivery), open_journal(settings) as journal:
        delivery.run(journal, lambda: False)


def names_in(receiver: OtlpReceiver) -> list[str]:
    """
    Return the names of the received spans, in order.
    """
    return sorted(span.name for span in receiver.spans())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_signals_of_several_processes_arrive_in_few_requests(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings]
) -> None:
    """
    Requests of one signal are merged, and each item arrives once.
    """
    settings = settings_for(receiver, protocol)
    for number in range(20):
        for signal in SIGNALS:
            append(settings, signal, f"{signal} {number} a", f"{signal} {number} b")

    deliver_own(settings, journal_path(settings), 30.0)

    assert len({span.span_id for span in receiver.spans()}) == len(receiver.spans()) == 40
    assert len({record.body for record in receiver.logs()}) == len(receiver.logs()) == 40
    assert len({metric.name for metric in receiver.metrics()}) == len(receiver.metrics()) == 40
    for signal in SIGNALS:
        assert len(receiver.requests(signal)) == 1
        assert books_of(settings, signal) == OtlpBooks(pending=0, delivered=40, refused=0, dropped=0)


@pytest.mark.parametrize(("protocol", "answer"), RETRYABLE)
def test_a_retryable_answer_keeps_telemetry(
    receiver: OtlpReceiver, protocol: str, answer: Answer, settings_for: Callable[..., Settings]
) -> None:
    """
    It is delivered after a pause, and the pause is not prolonged by a success.
    """
    settings = settings_for(receiver, protocol)
    append(settings, "traces", "a", "b")
    delivery = delivery_of(settings)

    receiver.answer("traces", answer)
    run_once(delivery, settings)

    assert books_of(settings, "traces").pending == 2
    assert delivery.is_paused
    delivery.resumes_at = 0.0
    with open_journal(settings) as journal:
        journal.pause("traces", 0.0)
    run_once(delivery, settings)
    assert names_in(receiver) == ["a", "b"]
    assert books_of(settings, "traces") == OtlpBooks(pending=0, delivered=2, refused=0, dropped=0)
    assert delivery.problem is None


@pytest.mark.parametrize(("protocol", "answer"), FINAL)
def test_a_final_answer_drops_telemetry_and_is_logged_once(
    receiver: OtlpReceiver,
    protocol: str,
    answer: Answer,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    What was refused is counted, and what follows is delivered.
    """
    settings = settings_for(receiver, protocol)
    delivery = delivery_of(settings)

    for _ in range(2):
        append(settings, "traces", "a", "b")
        receiver.answer("traces", answer)
        run_once(delivery, settings)
    append(settings, "traces", "c")
    run_once(delivery, settings)

    assert books_of(settings, "traces") == OtlpBooks(pending=0, delivered=1, refused=4, dropped=0)
    assert names_in(receiver) == ["c"]
    assert len([message for message in caplog.messages if "refused" in message]) == 1
    assert not delivery.is_paused


@pytest.mark.parametrize(("protocol", "answer"), DENYING)
def test_an_answer_that_is_not_about_the_request_keeps_telemetry(
    receiver: OtlpReceiver,
    protocol: str,
    answer: Answer,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A wrong header, or a web server at a wrong address, costs none: one warning names what to check.
    """
    settings = settings_for(receiver, protocol)
    append(settings, "traces", "a", "b")
    append(settings, "traces", "c")
    delivery = delivery_of(settings)

    for _ in range(2):
        receiver.answer("traces", answer)
        delivery.resumes_at = 0.0
        run_once(delivery, settings)
    waiting = books_of(settings, "traces")
    # The next process has other headers, and does not wait.
    run_once(delivery_of(settings), settings)

    assert waiting == OtlpBooks(pending=3, delivered=0, refused=0, dropped=0)
    (message,) = [each for each in caplog.messages if "Telemetry is kept" in each]
    assert "check the endpoint, its protocol and OTEL_EXPORTER_OTLP_HEADERS" in message
    assert delivery.is_paused
    assert names_in(receiver) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        *[(code, Denied("r")) for code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")],
        ("UNAVAILABLE", Unavailable("r", 2.0)),
        ("RESOURCE_EXHAUSTED", Unavailable("r", 2.0)),
        ("INVALID_ARGUMENT", Refused("r")),
    ],
)
def test_a_status_of_grpc_is_about_the_sender_the_moment_or_the_request(code: str, outcome: Outcome) -> None:
    """
    Only that which is about the request is final.
    """
    assert outcome_of_code(code, "r", "", 2.0) == outcome


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        (Answer(page=b"", content_type=""), None),
        (Answer(page=b"", content_type="text/plain"), None),
        (Answer(page=b"{}", content_type="application/json"), None),
        (Answer(page=b'{"partialSuccess": {"errorMessage": "soon"}}', content_type="application/json"), "soon"),
        (Answer(page=b"\xff"), "its answer cannot be read"),
    ],
)
def test_an_answer_of_a_lax_collector_counts(
    receiver: OtlpReceiver,
    answer: Answer,
    remark: str | None,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    An empty one and JSON, although the specification requires the encoding of the request.
    """
    settings = settings_for(receiver, "http/protobuf")
    append(settings, "traces", "a")
    receiver.answer("traces", answer)

    run_once(delivery_of(settings), settings)

    assert books_of(settings, "traces").delivered == 1
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ([] if remark is None else [remark])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=503, code="UNAVAILABLE", retry_after="40"),
        Answer(status=429, code="RESOURCE_EXHAUSTED", retry_after="40"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_next_process_keeps_the_pause_that_the_collector_requests(
    receiver: OtlpReceiver, protocol: str, answer: Answer, settings_for: Callable[..., Settings]
) -> None:
    """
    It sends nothing, and has a reason that names the time; other signals are not concerned.
    """
    settings = settings_for(receiver, protocol)
    append(settings, "traces", "a")
    append(settings, "logs", "b")
    receiver.answer("traces", answer)
    run_once(delivery_of(settings), settings)
    later, of_logs = delivery_of(settings), delivery_of(settings, "logs")

    run_once(later, settings)
    run_once(of_logs, settings)

    assert len(receiver.requests("traces")) == 1
    assert 30.0 < later.resumes_at - time.monotonic() <= 40.0
    assert "has requested a pause until 20" in str(later.problem)
    assert (len(receiver.logs()), of_logs.problem) == (1, None)


def test_a_pause_ends_with_its_time_and_with_a_success(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings]
) -> None:
    """
    Also one that a clock has set into the far future, since none is longer than an hour.
    """
    settings = settings_for(receiver, "http/protobuf")
    append(settings, "traces", "a")
    with open_journal(settings) as journal:
        journal.pause("traces", 30.0)
        within = journal.pause_left("traces")
        journal.clock = lambda: time.time() + 31.0
        after = journal.pause_left("traces")
        journal.clock = lambda: time.time() - 4000.0
        long_before = journal.pause_left("traces")
        journal.clock = time.time
        journal.remove(journal.pending("traces", most_bytes=1, most_items=1), delivered=1, refused=0)
        answered = journal.pause_left("traces")

    assert 29.0 < within <= 30.0
    assert (after, long_before, answered) == (0.0, 0.0, 0.0)


def test_a_pause_has_a_limit_after_any_number_of_failures(refusing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relay has a thousand of them in some hours.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{refusing_port}")
    settings = read_settings()
    append(settings, "traces", "a")
    delivery = delivery_of(settings)
    delivery._failures = 5000

    run_once(delivery, settings)

    assert 10.0 < delivery.resumes_at - time.monotonic() <= 30.0


IN_AN_HOUR = "a date"


@pytest.mark.parametrize(
    ("protocol", "answer", "least", "most"),
    [
        ("http/protobuf", Answer(status=429, retry_after="40"), 30.0, 40.0),
        ("http/protobuf", Answer(status=503, retry_after=IN_AN_HOUR), 3500.0, 3600.0),
        ("http/protobuf", Answer(status=503, retry_after="999999"), 3500.0, 3600.0),
        ("http/protobuf", Answer(status=503, retry_after="nonsense"), -9.0, 1.0),
        ("grpc", Answer(code="RESOURCE_EXHAUSTED", retry_after="40"), 30.0, 40.0),
        ("grpc", Answer(code="UNAVAILABLE", retry_after="40.5"), 30.0, 40.5),
        ("grpc", Answer(code="UNAVAILABLE"), -9.0, 1.0),
    ],
)
def test_the_collector_chooses_the_pause(
    receiver: OtlpReceiver,
    protocol: str,
    answer: Answer,
    least: float,
    most: float,
    settings_for: Callable[..., Settings],
) -> None:
    """
    Both forms of Retry-After and RetryInfo count, up to an hour; without them the first pause is at most a second.
    """
    settings = settings_for(receiver, protocol)
    append(settings, "traces", "a")
    delivery = delivery_of(settings)
    if answer.retry_after == IN_AN_HOUR:
        date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        answer = replace(answer, retry_after=date)

    receiver.answer("traces", answer)
    run_once(delivery, settings)

    assert least < delivery.resumes_at - time.monotonic() <= most


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_partial_success_is_counted_and_logged_once(
    receiver: OtlpReceiver,
    protocol: str,
    signal: Signal,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The request is not sent again, as the specification requires.
    """
    settings = settings_for(receiver, protocol)
    delivery = delivery_of(settings, signal)

    for _ in range(2):
        append(settings, signal, "a", "b", "c")
        receiver.answer(signal, Answer(rejected=2, message="too old"))
        run_once(delivery, settings)

    assert books_of(settings, signal) == OtlpBooks(pending=0, delivered=2, refused=4, dropped=0)
    assert len(receiver.requests(signal)) == 2
    assert [message for message in caplog.messages if "too old" in message] == [
        f"the collector of {signal} refused some, which are dropped (2 so far): too old"
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_is_too_large_is_halved(protocol: str, settings_for: Callable[..., Settings]) -> None:
    """
    Each item that fits arrives once, from one process or from several, and only one that never fits is refused.
    """
    with OtlpReceiver(most_bytes=2000) as narrow:
        settings = settings_for(narrow, protocol)
        append(settings, "traces", *[f"span {number}" for number in range(200)])
        for number in range(100):
            append(settings, "traces", f"another {number}")
        append(settings, "traces", "x" * 3000, "last")

        run_once(delivery_of(settings), settings)

        expected = [
            *[f"span {number}" for number in range(200)],
            *[f"another {number}" for number in range(100)],
            "last",
        ]
        assert names_in(narrow) == sorted(expected)
        assert books_of(settings, "traces") == OtlpBooks(pending=0, delivered=301, refused=1, dropped=0)


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_metrics_and_log_records_are_halved_too(signal: Signal, settings_for: Callable[..., Settings]) -> None:
    """
    A metric is counted by its points.
    """
    with OtlpReceiver(most_bytes=500) as narrow:
        settings = settings_for(narrow, "http/protobuf")
        append(settings, signal, *[f"item {number}" for number in range(60)])

        run_once(delivery_of(settings, signal), settings)

        received = narrow.metrics() if signal == "metrics" else narrow.logs()
        assert len(received) == 60
        assert books_of(settings, signal).delivered == 60


def test_a_request_that_is_refused_does_not_cost_other_processes_theirs(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings]
) -> None:
    """
    After a refusal of several requests at once, each is sent on its own.
    """
    settings = settings_for(receiver, "http/protobuf")
    with open_journal(settings) as journal:
        journal.append("traces", 1, request_of("traces", ["before"]))
        journal.append("traces", 1, b"\xff no protobuf")
        journal.append("traces", 1, request_of("traces", ["after"]))

    run_once(delivery_of(settings), settings)

    assert names_in(receiver) == ["after", "before"]
    assert books_of(settings, "traces") == OtlpBooks(pending=0, delivered=2, refused=1, dropped=0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_silent_collector_of_one_signal_does_not_hold_up_another(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings]
) -> None:
    """
    Log records arrive while the request with spans waits for its answer, and the wait is limited.
    """
    settings = settings_for(receiver, protocol)
    receiver.answer("traces", Answer(is_silent=True))
    append(settings, "traces", "a")
    append(settings, "logs", "b")
    drainer = TelemetryDrainer(settings, patience=0.2)

    drainer.start()
    receiver.wait_for(lambda found: found.requests("traces") and found.logs())
    began = time.monotonic()
    deliver_own(settings, journal_path(settings), 30.0)

    assert time.monotonic() - began < 5.0
    assert books_of(settings, "traces").pending == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_never_answers_costs_the_limit(
    black_hole: BlackHole, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The telemetry stays in the journal, and one warning reports this.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{black_hole.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    settings = read_settings()
    path = append(settings, "traces", "a")

    began = time.monotonic()
    deliver_own(settings, path, 1.0)

    assert time.monotonic() - began < 5.0
    assert books_of(settings, "traces").pending == 1
    (message,) = caplog.messages
    assert message.startswith(
        f"http://127.0.0.1:{black_hole.port} has not accepted everything in time. Telemetry is kept "
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_an_outage_each_item_arrives_once(
    receiver: OtlpReceiver,
    protocol: str,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    One warning is logged for the whole outage, and one line after it.
    """
    caplog.set_level("INFO")
    settings = settings_for(receiver, protocol)
    unavailable = Answer(status=503, code="UNAVAILABLE", message="maintenance", retry_after="0.01")
    for signal in SIGNALS:
        receiver.answer(signal, *[unavailable] * 3)
        append(settings, signal, f"{signal} a", f"{signal} b")
    drainer = TelemetryDrainer(settings, poll_seconds=0.02)

    drainer.start()
    receiver.wait_for(lambda found: found.spans() and found.logs() and found.metrics(), 30.0)
    append(settings, "traces", "later")
    receiver.wait_for(lambda found: "later" in names_in(found), 30.0)
    drainer.finish(30.0)

    assert names_in(receiver) == ["later", "traces a", "traces b"]
    assert [len(receiver.logs()), len(receiver.metrics())] == [2, 2]
    assert len([message for message in caplog.messages if "maintenance" in message]) == 1
    assert len([message for message in caplog.messages if "delivered again" in message]) == 1


def test_of_several_processes_one_delivers(receiver: OtlpReceiver, settings_for: Callable[..., Settings]) -> None:
    """
    The others leave it what they have appended, and wait for nothing.
    """
    settings = settings_for(receiver, "http/protobuf")
    path = append(settings, "traces", "a")
    lock = FileLock(lock_path(path, "traces"))
    assert lock.acquire()

    deliver_own(settings, path, 30.0)
    assert receiver.spans() == []
    lock.release()
    drainers = [TelemetryDrainer(settings, poll_seconds=0.01) for _ in range(3)]
    for drainer in drainers:
        drainer.start()
    for number in range(50):
        append(settings, "traces", f"span {number}")
    for drainer in drainers:
        drainer.finish(30.0)

    assert names_in(receiver) == sorted(["a", *[f"span {number}" for number in range(50)]])


DELIVERER = """
from dkist_processing_core.otlp import journal_path
from dkist_processing_core.otlp.drainer import deliver_own
from dkist_processing_core.settings.reading import read_settings
settings = read_settings()
deliver_own(settings, journal_path(settings), 60.0)
"""


def test_a_deliverer_that_is_killed_costs_at_most_a_repeated_request(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings]
) -> None:
    """
    Nothing is removed before the collector has answered, so another process sends the same request.
    """
    settings = settings_for(receiver, "http/protobuf")
    append(settings, "traces", "a", "b")
    receiver.answer("traces", Answer(is_silent=True))
    process = subprocess.Popen([sys.executable, "-c", DELIVERER], cwd=ROOT, env=os.environ)

    receiver.wait_for(lambda found: found.requests("traces"), 60.0)
    process.send_signal(signals.SIGKILL)
    process.wait()
    deliver_own(settings, journal_path(settings), 30.0)

    assert names_in(receiver) == ["a", "b"]
    assert len({request.size for request in receiver.requests("traces")}) == 1
    assert len(receiver.requests("traces")) == 2


def test_a_process_that_is_killed_after_an_append_loses_nothing(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings]
) -> None:
    """
    The append is in the file when it returns.
    """
    settings = settings_for(receiver, "grpc")
    program = (
        "import os, signal\n"
        "from tests.otlp_requests import append\n"
        "from dkist_processing_core.settings.reading import read_settings\n"
        "append(read_settings(), 'traces', 'a', 'b')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    assert run_python(program, {}).returncode == -signals.SIGKILL
    deliver_own(settings, journal_path(settings), 30.0)

    assert names_in(receiver) == ["a", "b"]


def test_a_dead_collector_costs_no_import(refusing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The clients of both protocols are imported once the collector has accepted a connection.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{refusing_port}")
    append(read_settings(), "traces", "a")
    check = "import sys; print(sorted({'grpc', 'requests', 'google.protobuf', 'opentelemetry.sdk'} & set(sys.modules)))"

    done = run_python(DELIVERER + check, {})

    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_drainer_imports_the_client_before_there_is_anything_to_deliver(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings]
) -> None:
    """
    So the end of a launcher does not wait for the import.
    """
    settings_for(receiver, protocol)
    client = f"dkist_processing_core.otlp.{'over_grpc' if protocol == 'grpc' else 'over_http'}"
    program = (
        "import sys, time\n"
        "from dkist_processing_core.otlp.drainer import start_delivery\n"
        "from dkist_processing_core.settings.reading import read_settings\n"
        "drainer = start_delivery(read_settings())\n"
        # A thread imports it, and notifies no other.
        f"while {client!r} not in sys.modules: time.sleep(0.01)\n"
        "drainer.stop(10.0)\n"
        "print('imported')\n"
    )

    assert run_python(program, {}).stdout == "imported\n"
    assert names_in(receiver) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_accepts_everything_costs_no_import_of_protobuf(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings]
) -> None:
    """
    Its answer is recognised by its bytes.
    """
    append(settings_for(receiver, protocol), "traces", "a")

    done = run_python(f"{DELIVERER}import sys; print('google.protobuf' in sys.modules)", {})

    assert done.stdout == "False\n", done.stderr
    assert names_in(receiver) == ["a"]


def test_an_answer_with_an_empty_partial_success_accepts_everything() -> None:
    """
    The OpenTelemetry Collector writes it.
    """
    answers = [
        response(partial_success=part()).SerializeToString()
        for response, part in (
            (ExportTraceServiceResponse, ExportTracePartialSuccess),
            (ExportMetricsServiceResponse, ExportMetricsPartialSuccess),
            (ExportLogsServiceResponse, ExportLogsPartialSuccess),
        )
    ]

    assert set(answers) == {b"\x0a\x00"}
    assert [accepted(signal, answer) for signal, answer in zip(SIGNALS, answers, strict=True)] == [Delivered()] * 3


ATTEMPT = {
    "DKIST_CORE_RUN_ID": "manual__1",
    "DKIST_CORE_WORKFLOW": "faults",
    "DKIST_CORE_VERSION": "dev",
    "DKIST_CORE_TASK": "Succeeds",
    "DKIST_CORE_ATTEMPT": "1",
    "DKIST_CORE_MAX_ATTEMPTS": "1",
    "DKIST_CORE_RECIPE_RUN_ID": "5",
    "DKIST_CORE_TASK_MODULE": "tests.launched",
    "DKIST_CORE_TASK_SEARCH_PATH": json.dumps([str(ROOT), *sys.path]),
}


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["-m", "dkist_processing_core.launcher"], ATTEMPT),
        (["-c", "from tests.pipelines import diamond; diamond.run(recipe_run_id=5)"], {}),
    ],
    ids=["launcher", "run"],
)
def test_a_process_that_observes_a_task_delivers_what_others_have_left(
    receiver: OtlpReceiver, command: list[str], variables: dict[str, str], settings_for: Callable[..., Settings]
) -> None:
    """
    The telemetry of a killed task of the host arrives with the next launcher or run.
    """
    settings = settings_for(receiver, "http/protobuf", EVENT_FLUSH_TIMEOUT="60")
    append(settings, "traces", "left behind")

    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left behind" in names_in(receiver), done.stdout + done.stderr


def test_the_delivery_of_a_consumer_goes_on_after_a_task_that_its_handler_calls(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings]
) -> None:
    """
    At its end the task delivers what is left, and must not end the consumer's own delivery.
    """
    settings = settings_for(receiver, "grpc")
    drainer = start_delivery(settings, poll_seconds=0.01, outlives_tasks=True)
    assert drainer is not None
    try:
        append(settings, "traces", "of the task")
        deliver_own(settings, journal_path(settings), 5.0)
        append(settings, "traces", "of the next event")

        assert receiver.wait_for(lambda _: {"of the task", "of the next event"} <= set(names_in(receiver)))
    finally:
        drainer.stop(5.0)


LOGGING = """
import logging
from dkist_processing_core.otlp import journal_path
from dkist_processing_core.otlp.drainer import deliver_own
from dkist_processing_core.settings.reading import read_settings
from tests.otlp_requests import append
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
settings = read_settings()
append(settings, "traces", "a")
deliver_own(settings, journal_path(settings), 30.0)
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_delivery_logs_no_request(receiver: OtlpReceiver, protocol: str) -> None:
    """
    The libraries of both protocols log requests at DEBUG, with headers and address, and a log that is exported by these
    requests would never end.
    """
    secrets = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter2hunter2"}

    done = run_python(LOGGING, environment(receiver, protocol) | secrets)

    assert names_in(receiver) == ["a"], done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith(("h2", "hpack", "urllib3", "requests"))] == []
    assert "hunter2" not in done.stderr


FORKING = """
import os, time
from dkist_processing_core.otlp.drainer import TelemetryDrainer
from dkist_processing_core.settings.reading import read_settings
from tests.otlp_requests import append, books_of
settings = read_settings()
drainer = TelemetryDrainer(settings, poll_seconds=0.01)
drainer.start()
for number in range(20):
    append(settings, "traces", f"span {number}")
    child = os.fork()
    if not child:
        append(settings, "traces", f"child {number}")
        raise SystemExit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
drainer.finish(30.0)
print(books_of(settings, "traces").pending)
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_fork_beside_a_delivery_is_safe(receiver: OtlpReceiver, protocol: str) -> None:
    """
    A child may append and end as any process, while threads of its parent use a connection.
    """
    done = run_python(FORKING, environment(receiver, protocol))

    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    # A process of an earlier test may have sent its own spans just before its end.
    found = [name for name in names_in(receiver) if name.startswith(("span ", "child "))]
    assert len(set(found)) == len(found) == 40, done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_ends_of_a_connection_are_verified(
    protocol: str, tls_files: TlsFiles, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """
    The telemetry waits for a delivery with the right certificates.
    """
    with OtlpReceiver(tls=tls_files) as receiver:
        settings = settings_for(receiver, protocol, OTEL_EXPORTER_OTLP_CERTIFICATE=str(tls_files.ca))
        append(settings, "traces", "a")

        run_once(delivery_of(settings), settings)
        waiting = books_of(settings, "traces").pending
        certified = settings_for(
            receiver,
            protocol,
            OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=str(tls_files.certificate),
            OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY=str(tls_files.key),
        )
        run_once(delivery_of(certified), certified)

        assert waiting == 1
        assert len(caplog.messages) == 1
        assert names_in(receiver) == ["a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_reach_the_collector_and_nothing_else(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """
    A collector that repeats a header in its answer does not bring it into a log.
    """
    settings = settings_for(
        receiver,
        protocol,
        OTEL_EXPORTER_OTLP_HEADERS="x-general=1",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=f"authorization=Bearer%20{SECRET}, x-two = 2 ",
    )
    path = append(settings, "traces", "a")
    receiver.answer("traces", Answer(status=403, code="PERMISSION_DENIED", message=f"no access by {SECRET}"))

    run_once(delivery_of(settings), settings)

    (request,) = receiver.requests("traces")
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["x-two"] == "2"
    assert "x-general" not in request.headers
    assert "no access by [redacted]" in caplog.text
    assert SECRET not in caplog.text + destination_of(settings) + repr(options_of(settings, "traces"))
    assert not any(SECRET.encode() in file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize(
    ("value", "encoding"), [("", "gzip"), ("gzip", "gzip"), ("deflate", "deflate"), ("none", None)]
)
def test_requests_are_compressed(
    receiver: OtlpReceiver, value: str, encoding: str | None, settings_for: Callable[..., Settings]
) -> None:
    """
    By default with gzip.
    """
    settings = settings_for(receiver, "http/protobuf", OTEL_EXPORTER_OTLP_COMPRESSION=value)
    append(settings, "logs", "a" * 10_000)

    run_once(delivery_of(settings, "logs"), settings)

    (request,) = receiver.requests("logs")
    assert request.headers.get("content-encoding") == encoding
    assert (int(request.headers["content-length"]) < 1000) is (encoding is not None)
    assert len(receiver.logs()) == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "abc"}, "OTEL_EXPORTER_OTLP_TIMEOUT: found abc, expected a number of seconds"),
        ({"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "-1"}, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: found -1, expected a number"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "found zstd, expected one of gzip, deflate, none"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": f"a=1,{SECRET}"}, "found header 2 in another form, expected name=value pairs"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": f"a={SECRET}%0A"}, ""),
        ({"OTEL_EXPORTER_OTLP_HEADERS": f"a={SECRET}%0Ab"}, "found header 1 in another form"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/ca.pem"}, "found /no/ca.pem, which cannot be read (No such file"),
    ],
)
def test_a_wrong_variable_is_one_clear_error(
    receiver: OtlpReceiver,
    variables: dict[str, str],
    message: str,
    settings_for: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The telemetry is kept until the variable is correct, and a header is not shown.
    """
    settings = settings_for(receiver, "http/protobuf", **variables)
    append(settings, "traces", "a")

    if not message:
        options_of(settings, "traces")
        return
    with pytest.raises(ConfigurationError) as error:
        options_of(settings, "traces")
    run_once(delivery_of(settings), settings)

    assert message in str(error.value)
    assert SECRET not in str(error.value) + caplog.text
    assert [str(error.value) in text for text in caplog.messages] == [True]
    assert books_of(settings, "traces").pending == 1


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, "http://c:1/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1/base/"}, "http://c:1/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1?token=x"}, "http://c:1/v1/traces?token=x"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:p@c/base/?token=x&a=b#part"},
            "http://u:p@c/base/v1/traces?token=x&a=b",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/exact"}, "http://c:1/exact"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/exact?token=x"}, "http://c:1/exact?token=x"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
    ],
)
def test_the_url_over_http_follows_the_specification(
    variables: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The variable of a signal is exact, and the general one is a base.
    """
    for name, value in (variables | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}).items():
        monkeypatch.setenv(name, value)

    assert url_of(read_settings(), "traces") == url


@pytest.mark.parametrize(
    ("protocol", "endpoint", "address"),
    [
        ("http/protobuf", "https://gateway.example/otlp", ("gateway.example", 443)),
        ("http/protobuf", "http://gateway.example", ("gateway.example", 80)),
        ("http/protobuf", "http://gateway.example:4318", ("gateway.example", 4318)),
        ("grpc", "https://gateway.example", ("gateway.example", 4317)),
        ("grpc", "gateway.example", ("gateway.example", 4317)),
    ],
)
def test_the_address_that_is_tried_first_is_that_of_the_requests(
    protocol: str, endpoint: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Over HTTP a URL without a port has the port of its scheme.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    assert address_of(read_settings(), "traces") == address


@pytest.mark.parametrize(
    ("value", "seconds"), [("", 10.0), ("2.5", 2.5), ("999", 999.0), ("1000", 1.0), ("10000", 10.0)]
)
def test_a_timeout_is_in_seconds_or_in_milliseconds(
    value: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    OpenTelemetry's SDK for Python reads seconds, and the specification counts milliseconds.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", value)

    assert options_of(read_settings(), "traces").timeout == seconds


def test_the_journal_of_a_collector_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It depends on protocol and address of each signal, and not on what a process exports, nor on credentials.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")
    plain = journal_path(read_settings())
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:password@c:4317/?key=abcdef")
    alike = journal_path(read_settings())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    other = journal_path(read_settings())

    assert plain == alike != other
    assert "password" not in destination_of(read_settings())
    assert "abcdef" not in destination_of(read_settings())


def test_a_token_in_an_endpoint_is_neither_stored_nor_shown(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """
    A part of a path that may be a token is replaced by a digest, which tells addresses apart.
    """
    caplog.set_level("DEBUG", logger="dkist_processing_core")
    found = []
    for path in (f"/otlp/v1/{SECRET}-in-path", "/otlp/v1/Another-1"):
        endpoint = f"{receiver.http_endpoint}{path}?token={SECRET}-in-query"
        settings = settings_for(receiver, "http/protobuf", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint)
        append(settings, "traces", "a")
        delivery = delivery_of(settings)
        run_once(delivery, settings)
        found.append((destination_of(settings).splitlines()[0], str(delivery.problem)))

    content = b"".join(file.read_bytes() for file in journal_path(settings).parent.iterdir())
    shown = f"{found}{caplog.text}"
    assert receiver.http_endpoint.encode() in content
    assert SECRET.encode() not in content
    assert SECRET not in shown
    assert f"{receiver.http_endpoint}/otlp/v1/[" in found[0][0]
    assert "answers 404" in found[0][1]
    assert found[0][0] != found[1][0]


def test_a_server_that_repeats_the_address_does_not_bring_its_token_into_a_log(
    receiver: OtlpReceiver, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Web servers do so with an unknown path.
    """
    endpoint = f"{receiver.http_endpoint}/v1/traces?token={SECRET}"
    settings = settings_for(receiver, "http/protobuf", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint)
    for status in (400, 200, 404):
        append(settings, "traces", "a")
        receiver.answer("traces", Answer(status=status, message=f"no {SECRET}"))
        run_once(delivery_of(settings), settings)

    assert caplog.text.count("no [redacted]") == 3
    assert SECRET not in caplog.text


MANY = """
import re
from pathlib import Path
from dkist_processing_core.otlp import journal_path
from dkist_processing_core.otlp.drainer import deliver_own
from dkist_processing_core.settings.reading import read_settings
settings = read_settings()
deliver_own(settings, journal_path(settings), 100.0)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.soak
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_memory_of_a_delivery_does_not_grow_with_what_is_pending(
    receiver: OtlpReceiver, protocol: str, settings_for: Callable[..., Settings]
) -> None:
    """
    10,000 spans and 100,000 log records arrive once each, in few requests, with less than 100 MB in all.
    """
    settings = settings_for(receiver, protocol)
    with open_journal(settings) as journal:
        for start in range(0, 10_000, 500):
            journal.append("traces", 500, request_of("traces", [f"{n:08}" for n in range(start, start + 500)]))
        for start in range(0, 100_000, 500):
            text = "frame {} was reduced in 0.12 s, and its dark, flat and polarimetric corrections were applied to it"
            journal.append("logs", 500, request_of("logs", [text.format(n) for n in range(start, start + 500)]))

    done = run_python(MANY, {})

    assert done.returncode == 0, done.stderr
    assert len({span.span_id for span in receiver.spans()}) == len(receiver.spans()) == 10_000
    assert len({record.body for record in receiver.logs()}) == len(receiver.logs()) == 100_000
    assert len(receiver.requests("logs")) < 30
    assert int(done.stdout) < 100_000
