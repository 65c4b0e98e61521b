"""
A real OTLP receiver, over gRPC and over HTTP, that keeps the received data as plain values.

Not here: the OpenTelemetry SDK. The receiver reads the wire and nothing else.
"""

import gzip
import http.server
import socketserver
import ssl
import threading
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc  # type: ignore[import-untyped]  # the library has no annotations
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # as grpc
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # as grpc
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.services.sockets import LOOPBACK
from tests.services.tls import TlsFiles

T = TypeVar("T")


@dataclass(frozen=True)
class SpanEvent:
    """
    Something that happened within a span.
    """

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class SpanLink:
    """
    Another span that a span refers to.
    """

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """
    A span as it arrived; ids in hexadecimal, times in nanoseconds since 1970.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    status_code: str
    status_message: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str
    start: int
    end: int
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    flags: int
    trace_state: str


@dataclass(frozen=True)
class Point:
    """
    One data point: a number's ``value``, or a histogram's ``count``, ``value`` (its sum), ``bounds`` and ``buckets``.
    """

    attributes: Mapping[str, Any]
    value: float
    count: int = 1
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Metric:
    """
    A metric as it arrived in one export; ``kind`` is ``sum``, ``gauge`` or ``histogram``.
    """

    name: str
    description: str
    unit: str
    kind: str
    points: tuple[Point, ...]
    resource: Mapping[str, Any]
    scope: str
    temporality: str = ""
    """``DELTA`` or ``CUMULATIVE``; empty for a gauge."""


@dataclass(frozen=True)
class LogRecord:
    """
    A log record as it arrived.
    """

    body: Any
    severity: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str


@dataclass(frozen=True)
class Answer:
    """
    A prepared answer to one request: the HTTP status and the gRPC code of a refusal, or what of it is not accepted.
    """

    status: int = 200
    code: str = "OK"
    message: str = ""
    retry_after: str | None = None
    rejected: int = 0
    page: bytes | None = None
    """What a web server answers over HTTP, in place of a collector."""
    content_type: str = "application/x-protobuf"
    is_silent: bool = False
    """Keep the request, and answer nothing until the receiver ends."""


@dataclass(frozen=True)
class Request:
    """
    One request as it arrived: its headers or metadata, and its size before compression.
    """

    signal: str
    headers: Mapping[str, str]
    size: int


class OtlpReceiver:
    """
    Receives traces, metrics and logs on two free loopback ports.
    """

    def __init__(self, *, tls: TlsFiles | None = None, most_bytes: int = 4 * 1024**2) -> None:
        """
        Bind both ports; nothing is received before the ``with`` begins.

        With ``tls``, both verify their clients. A request with more than ``most_bytes`` is refused.
        """
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._requests: list[Request] = []
        self._scheme = "http" if tls is None else "https"
        self.most_bytes = most_bytes
        self._spans: list[Span] = []
        self._metrics: list[Metric] = []
        self._logs: list[LogRecord] = []
        self._workers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp-grpc")
        # Without SO_REUSEPORT the port is exclusive: another server cannot take a share of its connections.
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", most_bytes)]
        self._grpc = grpc.server(self._workers, options=options)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._grpc)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._grpc)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self), self._grpc)  # type: ignore[no-untyped-call]
        self.grpc_port: int = (
            self._grpc.add_insecure_port(f"{LOOPBACK}:0")
            if tls is None
            else self._grpc.add_secure_port(f"{LOOPBACK}:0", _grpc_credentials(tls))
        )
        self._http = _HttpServer(self, tls)
        self.http_port: int = self._http.server_address[1]
        self._http_thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="otlp-http")

    def __enter__(self) -> Self:
        """
        Start receiving.
        """
        self._grpc.start()
        self._http_thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Stop both servers and wait for their threads.
        """
        self._ended.set()
        self._grpc.stop(grace=None).wait()
        self._workers.shutdown()
        self._http.shutdown()
        self._http_thread.join()
        self._http.server_close()

    @property
    def grpc_endpoint(self) -> str:
        """
        The address for OTLP over gRPC.
        """
        return f"{self._scheme}://{LOOPBACK}:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """
        The address for OTLP over HTTP, without the path of a signal.
        """
        return f"{self._scheme}://{LOOPBACK}:{self.http_port}"

    @property
    def grpc_env(self) -> dict[str, str]:
        """
        The standard variables that send all signals here over gRPC.
        """
        return self._env(self.grpc_endpoint, "grpc")

    @property
    def http_env(self) -> dict[str, str]:
        """
        The standard variables that send all signals here over HTTP.
        """
        return self._env(self.http_endpoint, "http/protobuf")

    def _env(self, endpoint: str, protocol: str) -> dict[str, str]:
        # A process delivers at its end, and gRPC takes seconds to be imported on a machine that is busy with tests.
        seconds = {"EVENT_FLUSH_TIMEOUT": "20"}
        return seconds | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}

    def answer(self, signal: str, *answers: Answer) -> None:
        """
        Prepare the answers to the next requests of a signal; what is not accepted is not kept.
        """
        with self._changed:
            self._answers[signal] = deque(answers)

    def forget(self) -> None:
        """
        Forget what was received so far, and the prepared answers.
        """
        with self._changed:
            self._answers.clear()
            for kept in (self._spans, self._metrics, self._logs, self._requests):
                kept.clear()

    def requests(self, signal: str) -> list[Request]:
        """
        Return the requests of a signal so far, those that were refused included.
        """
        with self._changed:
            return [request for request in self._requests if request.signal == signal]

    def take_answer(self, request: Request) -> Answer:
        """
        Keep a request, and return the answer to it, at the time when it is due.
        """
        with self._changed:
            self._requests.append(request)
            prepared = self._answers[request.signal]
            answer = prepared.popleft() if prepared else Answer()
            self._changed.notify_all()
        if answer.is_silent:
            self._ended.wait()
        return answer

    def spans(self) -> list[Span]:
        """
        Return the spans received so far.
        """
        with self._changed:
            return list(self._spans)

    def metrics(self) -> list[Metric]:
        """
        Return the metrics received so far, one entry per metric and export.
        """
        with self._changed:
            return list(self._metrics)

    def logs(self) -> list[LogRecord]:
        """
        Return the log records received so far.
        """
        with self._changed:
            return list(self._logs)

    def wait_for(self, predicate: Callable[["OtlpReceiver"], T], timeout: float = 100.0) -> T:
        """
        Wait until the predicate, asked after every arrival, gives a true value, and return that value.

        Raises:
            TimeoutError: it did not in time; the message lists the arrivals.
        """
        with self._changed:
            answer = self._changed.wait_for(lambda: predicate(self), timeout)
            if not answer:
                names = {
                    "spans": [span.name for span in self._spans],
                    "metrics": [metric.name for metric in self._metrics],
                    "logs": [record.body for record in self._logs],
                }
                raise TimeoutError(f"not within {timeout} s; received: {names}")
            return answer

    def add_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """
        Keep the traces of one export.
        """
        arrived = [
            _to_span(span, group.resource, scope.scope.name)
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self._spans += arrived
            self._changed.notify_all()

    def add_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        """
        Keep the metrics of one export.
        """
        arrived = [
            _to_metric(metric, group.resource, scope.scope.name)
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        ]
        with self._changed:
            self._metrics += arrived
            self._changed.notify_all()

    def add_logs(self, request: logs_service_pb2.ExportLogsServiceRequest) -> None:
        """
        Keep the log records of one export.
        """
        arrived = [
            LogRecord(
                body=_to_value(record.body),
                severity=record.severity_text,
                trace_id=record.trace_id.hex(),
                span_id=record.span_id.hex(),
                attributes=_to_dict(record.attributes),
                resource=_to_dict(group.resource.attributes),
                scope=scope.scope.name,
            )
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]
        with self._changed:
            self._logs += arrived
            self._changed.notify_all()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Message:  # noqa: N802 - the name is the protocol's
        answer = _checked(self._receiver, "traces", request, context)
        if not answer.rejected:
            self._receiver.add_traces(request)
        return _response("traces", answer)


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: Any) -> Message:  # noqa: N802 - as above
        answer = _checked(self._receiver, "metrics", request, context)
        if not answer.rejected:
            self._receiver.add_metrics(request)
        return _response("metrics", answer)


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: logs_service_pb2.ExportLogsServiceRequest, context: Any) -> Message:  # noqa: N802 - as above
        answer = _checked(self._receiver, "logs", request, context)
        if not answer.rejected:
            self._receiver.add_logs(request)
        return _response("logs", answer)


def _checked(receiver: OtlpReceiver, signal: str, request: Message, context: Any) -> Answer:
    """
    Return the answer to a gRPC request, if it is no error.
    """
    headers = {str(name): str(value) for name, value in context.invocation_metadata()}
    answer = receiver.take_answer(Request(signal, headers, request.ByteSize()))
    if answer.is_silent:
        context.abort(grpc.StatusCode.UNAVAILABLE, "")
    if answer.code != "OK":
        if answer.retry_after is not None:
            info = RetryInfo()
            info.retry_delay.FromNanoseconds(int(float(answer.retry_after) * 1e9))
            status = Status(message=answer.message)
            status.details.add().Pack(info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode[answer.code], answer.message)
    return answer


def _response(signal: str, answer: Answer) -> Message:
    response: Any = {
        "traces": trace_service_pb2.ExportTraceServiceResponse,
        "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
        "logs": logs_service_pb2.ExportLogsServiceResponse,
    }[signal]()
    if answer.rejected or answer.message:
        name = {"traces": "spans", "metrics": "data_points", "logs": "log_records"}[signal]
        setattr(response.partial_success, f"rejected_{name}", answer.rejected)
        response.partial_success.error_message = answer.message
    return response


def _grpc_credentials(tls: TlsFiles) -> Any:
    pair = tls.key.read_bytes(), tls.certificate.read_bytes()
    return grpc.ssl_server_credentials([pair], tls.ca.read_bytes(), require_client_auth=True)


class _HttpServer(socketserver.ThreadingTCPServer):
    """
    HTTP on a plain TCP server: http.server's own requests the name of this machine from the DNS when it binds.
    """

    # A silent answer must not keep the server's end waiting.
    daemon_threads = True

    def __init__(self, receiver: OtlpReceiver, tls: TlsFiles | None) -> None:
        self.receiver = receiver
        super().__init__((LOOPBACK, 0), _HttpHandler)
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(tls.certificate, tls.key)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Keep the terminal for the tests: a client may end a connection at any time.
        """


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    """
    Receives the exports of a connection, one after the other, as long as the client keeps it.
    """

    server: _HttpServer
    protocol_version = "HTTP/1.1"
    # A client that connects and stays silent must not keep the server's end waiting.
    timeout = 5

    def do_POST(self) -> None:
        """
        Answer an export as the protocol requires.
        """
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        match self.headers.get("Content-Encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        signal = self.path.partition("?")[0].removeprefix("/v1/")
        if signal not in ("traces", "metrics", "logs"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        receiver = self.server.receiver
        # The names of headers have no case.
        answer = receiver.take_answer(Request(signal, {k.lower(): v for k, v in self.headers.items()}, len(body)))
        if len(body) > receiver.most_bytes:
            answer = Answer(status=HTTPStatus.BAD_REQUEST, message="http: request body too large")
        if answer.is_silent:
            self.close_connection = True
            return
        if answer.status != HTTPStatus.OK:
            self._send(answer, Status(message=answer.message))
            return
        if answer.page is not None:
            self._send(answer, answer.page)
            return
        try:
            if not answer.rejected:
                self._keep(signal, body)
        except DecodeError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self._send(answer, _response(signal, answer))

    def _send(self, answer: Answer, message: Message | bytes) -> None:
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        self.send_response(answer.status)
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(payload)))
        if answer.retry_after is not None:
            self.send_header("Retry-After", answer.retry_after)
        self.end_headers()
        self.wfile.write(payload)

    def _keep(self, signal: str, body: bytes) -> None:
        receiver = self.server.receiver
        match signal:
            case "traces":
                receiver.add_traces(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            case "metrics":
                receiver.add_metrics(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            case "logs":
                receiver.add_logs(logs_service_pb2.ExportLogsServiceRequest.FromString(body))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """
        Keep the terminal for the tests.
        """


def _to_span(span: trace_pb2.Span, resource: Resource, scope: str) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        status_code=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        attributes=_to_dict(span.attributes),
        resource=_to_dict(resource.attributes),
        scope=scope,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        events=tuple(SpanEvent(event.name, event.time_unix_nano, _to_dict(event.attributes)) for event in span.events),
        links=tuple(
            SpanLink(link.trace_id.hex(), link.span_id.hex(), _to_dict(link.attributes)) for link in span.links
        ),
        flags=span.flags,
        trace_state=span.trace_state,
    )


def _to_metric(metric: metrics_pb2.Metric, resource: Resource, scope: str) -> Metric:
    kind = metric.WhichOneof("data") or ""
    points: tuple[Point, ...] = ()
    match kind:
        case "sum" | "gauge":
            numbers = metric.sum.data_points if kind == "sum" else metric.gauge.data_points
            points = tuple(
                Point(_to_dict(point.attributes), getattr(point, point.WhichOneof("value") or "as_int"))
                for point in numbers
            )
        case "histogram":
            points = tuple(
                Point(
                    _to_dict(point.attributes),
                    value=point.sum,
                    count=point.count,
                    bounds=tuple(point.explicit_bounds),
                    buckets=tuple(point.bucket_counts),
                )
                for point in metric.histogram.data_points
            )
    return Metric(
        name=metric.name,
        description=metric.description,
        unit=metric.unit,
        kind=kind,
        points=points,
        resource=_to_dict(resource.attributes),
        scope=scope,
        temporality=""
        if kind not in ("sum", "histogram")
        else metrics_pb2.AggregationTemporality.Name(getattr(metric, kind).aggregation_temporality).rpartition("_")[2],
    )


def _to_dict(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _to_value(pair.value) for pair in pairs}


def _to_value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_to_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _to_dict(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)
