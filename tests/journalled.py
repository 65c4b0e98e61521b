"""
The telemetry that waits in the journals of this host, for tests.
"""

from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.journal.otlp import OtlpBooks, OtlpJournal
from dkist_processing_core.otlp.drainer import deliver_own


def journal_of(folder: Path) -> Path:
    """
    Return the path of the only journal of telemetry in a folder.
    """
    (path,) = folder.glob("otlp-*.db")
    return path


def _pending(folder: Path, signal: str) -> list[bytes]:
    with OtlpJournal.open(journal_of(folder), destination="") as journal:
        return [chunk.body for chunk in journal.pending(signal, most_bytes=2**30, most_items=10**6)]


def pending_spans(folder: Path) -> list[str]:
    """
    Return the names of the spans that wait, in the order of their ends.
    """
    requests = [ExportTraceServiceRequest.FromString(body) for body in _pending(folder, "traces")]
    found = [span for each in requests for group in each.resource_spans for s in group.scope_spans for span in s.spans]
    assert len({span.span_id for span in found}) == len(found)
    return [span.name for span in found]


def pending_log_records(folder: Path) -> list[LogRecord]:
    """
    Return the log records that wait.
    """
    requests = [ExportLogsServiceRequest.FromString(body) for body in _pending(folder, "logs")]
    return [r for each in requests for group in each.resource_logs for s in group.scope_logs for r in s.log_records]


def pending_records(folder: Path) -> list[str]:
    """
    Return the texts of the log records that wait.
    """
    return [record.body.string_value for record in pending_log_records(folder)]


def pending_resource(folder: Path) -> dict[str, str]:
    """
    Return the texts among the attributes of the resource of the spans that wait.
    """
    (body, *_) = _pending(folder, "traces")
    request = ExportTraceServiceRequest.FromString(body)
    return {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}


def pending_points(folder: Path, name: str) -> list[float]:
    """
    Return the values of a counter that wait.
    """
    requests = [ExportMetricsServiceRequest.FromString(body) for body in _pending(folder, "metrics")]
    metrics = [
        m for each in requests for group in each.resource_metrics for s in group.scope_metrics for m in s.metrics
    ]
    return [point.as_int for metric in metrics if metric.name == name for point in metric.sum.data_points]


def books_of(folder: Path) -> dict[str, OtlpBooks]:
    """
    Return the books of the only journal of telemetry in a folder.
    """
    with OtlpJournal.open(journal_of(folder), destination="") as journal:
        return journal.books()


def deliver(folder: Path, environment: dict[str, str]) -> None:
    """
    Deliver what waits in the only journal of telemetry to the collector that an environment names.
    """
    names = {name.lower(): value for name, value in environment.items()}
    settings = DKISTProcessingCoreConfiguration(**names)
    deliver_own(settings, journal_of(folder), 30.0)
