"""
A connection of gRPC with a server that ends it, resets a call, answers early or without a code, or is behind a proxy.

The server is a script over the library h2, so each step has its place. Not here: a server of gRPC's own library, and
what follows from an answer (test_otlp_delivery).
"""

import queue
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]  # the library has no annotations
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from dkist_processing_core.otlp import Signal
from dkist_processing_core.otlp.outcome import Delivered, Denied, Outcome, Refused, Unavailable
from dkist_processing_core.otlp.over_grpc import GrpcExporter
from dkist_processing_core.settings.reading import read_settings
from tests.services.sockets import LOOPBACK
from tests.waiting import SECONDS, wait_until

TRACES: Signal = "traces"
SUCCESS = [(":status", "200"), ("content-type", "application/grpc")]
Step = Callable[["Client"], None]


class Client:
    """
    The connection of one client, as its server sees it.
    """

    def __init__(self, connection: socket.socket) -> None:
        """
        Begin the protocol.
        """
        self.socket = connection
        self.socket.settimeout(SECONDS)
        self.protocol = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.protocol.initiate_connection()
        self.stream = 0
        self.received = b""
        self.send()

    def send(self) -> None:
        """
        Send what the protocol has to send.
        """
        self.socket.sendall(self.protocol.data_to_send())

    def read(self, *, at_most: int | None = None) -> None:
        """
        Read a call to its end, or until it has sent a number of bytes.
        """
        self.received = b""
        while True:
            data = self.socket.recv(65536)
            assert data, "the client has closed the connection"
            for event in self.protocol.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.stream = event.stream_id
                if isinstance(event, DataReceived):
                    self.received += event.data
                    if at_most is None:
                        self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif len(self.received) >= at_most:
                        return
                if isinstance(event, StreamEnded):
                    self.send()
                    return
            self.send()

    def end(self) -> None:
        """
        End the connection without losing what was sent: the client may still be sending.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(65536):
                pass

    def answer(self, *trailers: tuple[str, str | bytes], headers: list[tuple[str, str]] = SUCCESS) -> None:
        """
        Answer the call, without a message.
        """
        self.protocol.send_headers(self.stream, headers, end_stream=not trailers)
        if trailers:
            self.protocol.send_headers(self.stream, list(trailers), end_stream=True)
        self.send()


def takes_one(client: Client) -> None:
    """
    Accept one call.
    """
    client.read()
    client.answer(("grpc-status", "0"))


@contextmanager
def served(*steps: Step) -> Iterator[tuple[int, list[bytes]]]:
    """
    Run one step for each connection, one after the other; yield the port, and what each has received.
    """
    received: list[bytes] = []
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve() -> None:
            for step in steps:
                connection, _ = listener.accept()
                with connection:
                    client = Client(connection)
                    step(client)
                    received.append(client.received)
                    client.end()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], GrpcExporter]:
    """
    A function that returns an exporter for a port.
    """

    def exporter(port: int) -> GrpcExporter:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{LOOPBACK}:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        return GrpcExporter(read_settings(), TRACES)

    return exporter


def sent(exporter: GrpcExporter, *bodies: bytes) -> list[Outcome]:
    """
    Return the outcomes of requests that follow each other.
    """
    try:
        return [exporter.send(body) for body in bodies]
    finally:
        exporter.close()


def ends_idle(client: Client) -> None:
    """
    Accept one call, and end the connection afterwards.
    """
    takes_one(client)
    client.protocol.close_connection()
    client.send()


def test_a_connection_that_the_server_has_ended_is_replaced(exporter: Callable[[int], GrpcExporter]) -> None:
    """
    A server may limit the age of connections: that is no outage.
    """
    with served(ends_idle, takes_one) as (port, received):
        under_test = exporter(port)
        first = under_test.send(b"first")
        # The end has arrived when the connection is found to be over.
        connection = under_test._connection
        assert connection is not None
        while connection.is_usable():
            pass
        second = sent(under_test, b"second")

    assert [first, *second] == [Delivered(), Delivered()]
    assert [body[5:] for body in received] == [b"first", b"second"]


def ends_before(client: Client, *, last: int) -> None:
    """
    End the connection instead of an answer, and name the last call that was processed.
    """
    client.read()
    client.protocol.close_connection(last_stream_id=last)
    client.send()


def test_a_call_that_the_server_has_not_processed_is_sent_again_at_once(
    exporter: Callable[[int], GrpcExporter],
) -> None:
    """
    The server names the last call that it has processed.
    """
    with served(partial(ends_before, last=0), takes_one) as (port, received):
        outcomes = sent(exporter(port), b"body")

    assert outcomes == [Delivered()]
    assert [body[5:] for body in received] == [b"body", b"body"]


def resets(client: Client) -> None:
    """
    Reset the call.
    """
    client.read()
    client.protocol.reset_stream(client.stream, error_code=2)
    client.send()


def closes(client: Client) -> None:
    """
    Close the connection without a word.
    """
    client.read()


def sends_nonsense(client: Client) -> None:
    """
    Break the protocol.
    """
    client.read()
    # DATA outside any stream.
    client.socket.sendall(b"\0\0\1" + bytes(6) + b"a")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (partial(ends_before, last=1), "the server has closed the connection"),
        (resets, "the server has reset the call (error code 2)"),
        (closes, "the server has closed the connection"),
        (sends_nonsense, "the server does not use HTTP/2 as gRPC does"),
    ],
    ids=["ends", "resets", "closes", "nonsense"],
)
def test_a_call_that_may_have_been_processed_is_left_to_the_next_try(
    step: Step, reason: str, exporter: Callable[[int], GrpcExporter]
) -> None:
    """
    The request is repeated after a pause, as after any outage.
    """
    with served(step) as (port, _):
        (outcome,) = sent(exporter(port), b"body")

    assert isinstance(outcome, Unavailable)
    assert outcome.reason.startswith(f"http://{LOOPBACK}:{port} does not answer: {reason}")


def refuses_early(client: Client) -> None:
    """
    Refuse a message by its size, as soon as that is known, and give no room for the rest.
    """
    client.read(at_most=5)
    client.answer(("grpc-status", "8"), ("grpc-message", "larger than max (5%20MB)"))
    client.protocol.reset_stream(client.stream, error_code=0)
    client.send()


def test_an_answer_before_the_end_of_the_message_counts(exporter: Callable[[int], GrpcExporter]) -> None:
    """
    The server gives no room for the rest of a message that it refuses.
    """
    with served(refuses_early) as (port, _):
        (outcome,) = sent(exporter(port), bytes(1_000_000))

    reason = f"http://{LOOPBACK}:{port} answers RESOURCE_EXHAUSTED: larger than max (5 MB)"
    assert outcome == Refused(reason, is_too_large=True)


def answers_without_code(client: Client, *, status: str) -> None:
    """
    Answer as a gateway that knows nothing of gRPC.
    """
    client.read()
    client.answer(headers=[(":status", status)])


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [("503", "UNAVAILABLE", Unavailable), ("404", "UNIMPLEMENTED", Denied), ("418", "UNKNOWN", Refused)],
)
def test_an_answer_of_a_gateway_has_the_code_of_its_status(
    status: str, code: str, outcome: type[Any], exporter: Callable[[int], GrpcExporter]
) -> None:
    """
    A gateway may know nothing of gRPC.
    """
    with served(partial(answers_without_code, status=status)) as (port, _):
        (found,) = sent(exporter(port), b"body")

    assert found == outcome(f"http://{LOOPBACK}:{port} answers {code}")


def test_a_proxy_is_used_with_its_credentials(
    exporter: Callable[[int], GrpcExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The call passes through the tunnel that the proxy opens.
    """
    asked: list[bytes] = []
    with served(takes_one) as (behind, received), socket.create_server((LOOPBACK, 0)) as proxy:

        def tunnel() -> None:
            connection, _ = proxy.accept()
            with connection, socket.create_connection((LOOPBACK, behind)) as server:
                while not asked or b"\r\n\r\n" not in asked[-1]:
                    asked[:] = [b"".join(asked) + connection.recv(4096)]
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=forward, args=(server, connection))
                back.start()
                forward(connection, server)
                back.join(SECONDS)

        thread = threading.Thread(target=tunnel)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://user:a%20word@{LOOPBACK}:{proxy.getsockname()[1]}")
        (outcome,) = sent(exporter(behind), b"body")
        thread.join(SECONDS)

    header = asked[0].partition(b"Basic ")[2].partition(b"\r\n")[0]
    assert outcome == Delivered()
    assert received[0][5:] == b"body"
    assert asked[0].startswith(f"CONNECT {LOOPBACK}:{behind} ".encode())
    assert b64decode(header) == b"user:a word"


class Slow(trace_service_pb2_grpc.TraceServiceServicer):
    """
    Answers a call when it is asked to.
    """

    def __init__(self) -> None:
        """
        Wait from now on.
        """
        self.called, self.may_answer = threading.Event(), threading.Event()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the names are the protocol's
        """
        Accept the spans.
        """
        self.called.set()
        assert self.may_answer.wait(SECONDS)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_server_that_stops_still_answers_the_call_that_it_has_accepted(
    exporter: Callable[[int], GrpcExporter],
) -> None:
    """
    It announces the end of the connection first, and a second try would bring the same spans twice.
    """
    slow, outcomes = Slow(), queue.SimpleQueue[Outcome]()
    with ThreadPoolExecutor(2) as workers:
        server = grpc.server(workers)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
        under_test = exporter(server.add_insecure_port(f"{LOOPBACK}:0"))
        server.start()
        thread = threading.Thread(target=lambda: outcomes.put(sent(under_test, b"")[0]))
        thread.start()
        assert slow.called.wait(SECONDS)
        stopped = server.stop(SECONDS)
        connection = under_test._connection
        assert connection is not None
        wait_until(lambda: connection._last_call is not None)
        slow.may_answer.set()
        thread.join(SECONDS)
        stopped.wait(SECONDS)

    assert outcomes.get_nowait() == Delivered()


def refuses_in_latin_1(client: Client) -> None:
    """
    Refuse a call with a message that is not in UTF-8.
    """
    client.read()
    client.protocol.config.header_encoding = None
    client.answer(("grpc-status", "3"), ("grpc-message", b"caf\xe9"))


def test_a_message_in_another_encoding_hides_no_refusal(exporter: Callable[[int], GrpcExporter]) -> None:
    """
    The code decides.
    """
    with served(refuses_in_latin_1) as (port, _):
        (outcome,) = sent(exporter(port), b"body")

    assert outcome == Refused(f"http://{LOOPBACK}:{port} answers INVALID_ARGUMENT: caf\ufffd")


def forward(source: socket.socket, target: socket.socket) -> None:
    """
    Forward bytes until the source ends.
    """
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
