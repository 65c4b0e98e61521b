"""
One request to a collector over gRPC, and its outcome.

It is imported when the collector has accepted a connection: the imports take 30 ms. Not here: the connection
(grpc_connection), and which requests are repeated (otlp.delivery).
"""

import ssl
from base64 import b64decode
from importlib.metadata import version
from urllib.parse import unquote

from dkist_processing_core.otlp.answers import accepted, one_line, retry_delay
from dkist_processing_core.otlp.destination import Signal, address_of, shown_endpoint
from dkist_processing_core.otlp.grpc_connection import Answer, ConnectionLostError, GrpcConnection
from dkist_processing_core.otlp.options import COMPRESSIONS, CONNECT_SECONDS, Options, options_of
from dkist_processing_core.otlp.outcome import Outcome, Unavailable, outcome_of_code
from dkist_processing_core.process.uninstrumented import silence
from dkist_processing_core.settings.interface import Settings

_PATHS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# By their numbers: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
# What an answer without a code means: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_CODES_OF_HTTP = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}


class GrpcExporter:
    """Sends the requests of one signal; the connection is kept open between them."""

    def __init__(self, settings: Settings, signal: Signal) -> None:
        """
        Open no connection.

        Raises:
            ConfigurationError: A variable has an unusable value.
        """
        silence("hpack.hpack", "hpack.table")
        options = options_of(settings, signal)
        self._signal = signal
        self._where = shown_endpoint(settings, signal)
        self._address = address_of(settings, signal)
        self._timeout = options.timeout
        self._tls = _tls_of(options) if options.is_secure else None
        self._is_compressed = options.compression != "none"
        self._compress = COMPRESSIONS[options.compression]
        host, port = self._address
        self._headers = [
            (":method", "POST"),
            (":scheme", "https" if options.is_secure else "http"),
            (":path", _PATHS[signal]),
            (":authority", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", f"dkist-processing-core/{version('dkist-processing-core')}"),
            *([("grpc-encoding", options.compression)] if self._is_compressed else []),
            *options.headers.items(),
        ]
        self._connection: GrpcConnection | None = None

    def send(self, body: bytes) -> Outcome:
        """Send one serialized request, and return its outcome."""
        message = self._compress(body)
        try:
            try:
                answer = self._call(message)
            except ConnectionLostError as error:
                if not error.is_unprocessed:
                    raise
                # A server that restarts, or that limits the age of connections.
                self.close()
                answer = self._call(message)
        except OSError as error:
            self.close()
            return Unavailable(f"{self._where} does not answer: {error.strerror or error}")
        return self._outcome(answer)

    def _call(self, message: bytes) -> Answer:
        if self._connection is not None and not self._connection.is_usable():
            self.close()
        if self._connection is None:
            self._connection = GrpcConnection(*self._address, self._tls, min(CONNECT_SECONDS, self._timeout))
        return self._connection.call(self._headers, message, self._timeout, is_compressed=self._is_compressed)

    def _outcome(self, answer: Answer) -> Outcome:
        code, details = _code_of(answer), one_line(unquote(answer.headers.get("grpc-message", "")))
        if code == "OK":
            return accepted(self._signal, answer.message)
        reason = f"{self._where} answers {code}"
        reason = f"{reason}: {details}" if details else reason
        delay = retry_delay(
            _binary(answer.headers.get("grpc-status-details-bin")),
            _binary(answer.headers.get("google.rpc.retryinfo-bin")),
        )
        return outcome_of_code(code, reason, details, delay)

    def cancel(self) -> None:
        """End the request that another thread is sending."""
        connection = self._connection
        if connection is not None:
            connection.cancel()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _tls_of(options: Options) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.certificate)
    context.set_alpn_protocols(["h2"])
    if options.client_certificate is not None:
        context.load_cert_chain(options.client_certificate, options.client_key)
    return context


def _code_of(answer: Answer) -> str:
    number = answer.headers.get("grpc-status", "")
    if number.isdecimal():
        return _CODES[int(number)] if int(number) < len(_CODES) else "UNKNOWN"
    return _CODES_OF_HTTP.get(answer.headers.get(":status", ""), "UNKNOWN")


def _binary(header: str | None) -> bytes | None:
    """Return the bytes in a header, which is in base64 without padding; None if it is something else."""
    try:
        return None if header is None else b64decode(header + "=" * (-len(header) % 4))
    except ValueError:
        return None
