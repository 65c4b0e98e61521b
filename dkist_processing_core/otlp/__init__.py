"""
The delivery of telemetry over OTLP: the collectors by the settings, and sending to them what is in their journal.

Not here: the encoding of spans, metrics and log records (tracing), and the file of the journal (journal).
"""

from dkist_processing_core.otlp.destination import (
    SIGNALS,
    Signal,
    address_of,
    destination_of,
    endpoint_of,
    exports_telemetry,
    is_exported,
    journal_path,
    lock_path,
    named_by,
    problem_at,
    protocol_of,
)

__all__ = [
    "SIGNALS",
    "Signal",
    "address_of",
    "destination_of",
    "endpoint_of",
    "exports_telemetry",
    "is_exported",
    "journal_path",
    "lock_path",
    "named_by",
    "problem_at",
    "protocol_of",
]
