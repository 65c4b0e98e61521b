"""
Serialized requests of the three signals, and a journal that holds them.

Not here: the receiver (services.otlp).
"""

from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dkist_processing_core.journal.otlp import OtlpBooks, OtlpJournal
from dkist_processing_core.otlp import destination_of, journal_path
from dkist_processing_core.settings.interface import Settings


def request_of(signal: str, names: list[str]) -> bytes:
    """
    Return a serialized request with one item for each name; the name of a span also determines its id.
    """
    match signal:
        case "traces":
            traces = ExportTraceServiceRequest()
            spans = traces.resource_spans.add().scope_spans.add().spans
            for name in names:
                spans.add(name=name, trace_id=bytes([1] * 16), span_id=name.encode().rjust(8, b"\0")[-8:])
            request: Any = traces
        case "metrics":
            metrics = ExportMetricsServiceRequest()
            scope = metrics.resource_metrics.add().scope_metrics.add()
            for name in names:
                scope.metrics.add(name=name).gauge.data_points.add(as_int=1)
            request = metrics
        case _:
            logs = ExportLogsServiceRequest()
            records = logs.resource_logs.add().scope_logs.add().log_records
            for name in names:
                records.add().body.string_value = name
            request = logs
    return bytes(request.SerializeToString())


def open_journal(settings: Settings) -> OtlpJournal:
    """
    Open the journal for the collectors of the settings.
    """
    return OtlpJournal.open(journal_path(settings), destination=destination_of(settings))


def append(settings: Settings, signal: str, *names: str) -> Path:
    """
    Append one request with these items, and return the path of the journal.
    """
    with open_journal(settings) as journal:
        journal.append(signal, len(names), request_of(signal, list(names)))
        return journal.path


def books_of(settings: Settings, signal: str) -> OtlpBooks:
    """
    Return the books of a signal.
    """
    return OtlpJournal.look(journal_path(settings), OtlpJournal.books)[signal]
