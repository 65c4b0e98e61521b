"""
One request to a collector over gRPC, and its outcome.

It is imported when the collector has accepted a connection: the import of grpc takes 0.1 s, and starts threads. Not
here: which requests are repeated (otlp.delivery).
"""

from importlib.metadata import version
from typing import Any

import grpc  # type: ignore[import-untyped]  # the library has no annotations

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.otlp.answers import accepted, one_line, retry_delay
from dkist_processing_core.otlp.destination import Signal, address_of, shown_endpoint
from dkist_processing_core.otlp.options import Options, options_of, provided_credentials
from dkist_processing_core.otlp.outcome import Outcome, Refused, Unavailable
from dkist_processing_core.settings.interface import Settings

_METHODS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# The texts of the implementations in C++, Go and Java.
_TOO_LARGE = ("larger than max", "exceeds maximum size", "too large")
_COMPRESSIONS = {
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
    "none": grpc.Compression.NoCompression,
}


class GrpcExporter:
    """Sends the requests of one signal over one channel."""

    def __init__(self, settings: Settings, signal: Signal) -> None:
        """
        Open the channel, which connects with the first request.

        Raises:
            ConfigurationError: A variable has an unusable value.
        """
        options = options_of(settings, signal)
        self._signal = signal
        self._where = shown_endpoint(settings, signal)
        self._timeout = options.timeout
        self._metadata = tuple(options.headers.items())
        self._channel = _channel(settings, signal, options)
        self._export = self._channel.unary_unary(_METHODS[signal])

    def send(self, body: bytes) -> Outcome:
        """Send one serialized request, and return its outcome."""
        try:
            return accepted(self._signal, self._export(body, timeout=self._timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            return self._outcome(error)
        except ValueError:
            return Unavailable(f"the channel to {self._where} was closed")

    def _outcome(self, error: Any) -> Outcome:
        code, details = error.code(), one_line(error.details() or "")
        reason = f"{self._where} answers {code.name}"
        reason = f"{reason}: {details}" if details else reason
        metadata = dict(error.trailing_metadata() or ())
        delay = retry_delay(metadata.get("grpc-status-details-bin"), metadata.get("google.rpc.retryinfo-bin"))
        is_exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if code in _RETRYABLE or (is_exhausted and delay is not None):
            return Unavailable(reason, delay)
        return Refused(reason, is_exhausted and any(text in details for text in _TOO_LARGE))

    def close(self) -> None:
        """Close the channel; a request that another thread is sending ends with an error."""
        self._channel.close()


def _channel(settings: Settings, signal: Signal, options: Options) -> Any:
    host, port = address_of(settings, signal)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    channel_options = (
        ("grpc.primary_user_agent", f"dkist-processing-core/{version('dkist-processing-core')}"),
        # Otherwise a new channel would inherit the pause of an earlier one after an error.
        ("grpc.use_local_subchannel_pool", 1),
    )
    compression = _COMPRESSIONS[options.compression]
    if not options.is_secure:
        return grpc.insecure_channel(target, channel_options, compression)
    credentials = provided_credentials(settings, signal)
    if credentials is None:
        files = (options.certificate, options.client_key, options.client_certificate)
        credentials = grpc.ssl_channel_credentials(*(None if file is None else file.read_bytes() for file in files))
    if not isinstance(credentials, grpc.ChannelCredentials):
        msg = f"found credentials of the type {type(credentials).__name__}, expected grpc.ChannelCredentials"
        raise ConfigurationError(msg)
    return grpc.secure_channel(target, credentials, channel_options, compression)
