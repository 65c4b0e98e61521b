"""
The OTLP exporter of a signal, over gRPC or HTTP.

Not here: the address of its collector (otlp.destination), and the provider that it belongs to (_providers).
"""

import logging
import os
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from dkist_processing_core.otlp.destination import Signal, endpoint_of, is_plain, protocol_of
from dkist_processing_core.otlp.options import url_of
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing._grpc_threads import check_threads_for_grpc

_CLASSES = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter", "logs": "OTLPLogExporter"}
_MODULES = {"traces": "trace_exporter", "metrics": "metric_exporter", "logs": "_log_exporter"}
_is_own_export = ContextVar("_is_own_export", default=False)


def otlp_exporter(settings: Settings, signal: Signal) -> Any:
    """Return the OTLP exporter of a signal; the exporter itself reads settings that are not ours, such as headers."""
    endpoint = endpoint_of(settings, signal)
    transport = "http" if protocol_of(settings, signal) == "http/protobuf" else "grpc"
    if transport == "grpc":
        check_threads_for_grpc()
    package = f"opentelemetry.exporter.otlp.proto.{transport}"
    module = import_module(f"{package}.{_MODULES[signal]}")
    for name in (f"{package}.exporter", module.__name__):  # of gRPC and of HTTP
        exporters_logger = logging.getLogger(name)
        if _is_no_own_retry not in exporters_logger.filters:
            # First: the exporter's own filter removes a line that is equal to the last one, shown or not.
            exporters_logger.filters.insert(0, _is_no_own_retry)
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if endpoint and transport == "http":
        options["endpoint"] = url_of(settings, signal)
    if is_plain(settings, signal):
        options["insecure"] = True
    if transport == "http" and not any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ):
        options["session"] = _session()
    return _without_logged_retries(getattr(module, _CLASSES[signal]))(**options)


def _without_logged_retries(exporter_class: Any) -> Any:
    """Return a class of exporters whose retries are not logged: Telemetry logs once that a collector is unreachable."""

    class Exporter(exporter_class):  # type: ignore[misc]
        def export(self, *items: Any, **options: Any) -> Any:
            before = _is_own_export.set(True)
            try:
                return super().export(*items, **options)
            finally:
                _is_own_export.reset(before)

    return Exporter


def _is_no_own_retry(record: logging.LogRecord) -> bool:
    # The logger belongs to the module of the exporter, so the author's own exporters use it as well.
    return not (_is_own_export.get() and str(record.msg).startswith("Transient error"))


def _session() -> Any:
    """
    Return a session that keeps no connection open between exports.

    The author's code may close the connection's descriptor, and open another file with the same number.
    """
    import requests  # noqa: PLC0415 - the exporter, which exists already, has imported it

    session = requests.Session()
    session.headers["Connection"] = "close"

    def close(response: Any, **_: object) -> None:
        connection = response.raw.connection
        _ = response.content
        # The connection is back in the pool now, and is connected again when it is used again.
        if connection is not None:
            connection.close()

    session.hooks["response"].append(close)
    return session
