"""
Text before it leaves the process: cleaned, clipped, redacted, and escaped for a terminal.

Not here: the choice of the fields that are free text, which the event classes make.
"""

from dkist_processing_core.text._cleaning import CUT, clean, clean_line, clip, encodable
from dkist_processing_core.text._formatting import (
    amount,
    counted,
    duration,
    error_line,
    parts_of_attempt,
    show,
    size,
    whole_number,
)
from dkist_processing_core.text.redaction import REDACTED, REPLACEMENT, is_secret_name, redact, redactor, secrets_of

__all__ = [
    "CUT",
    "REDACTED",
    "REPLACEMENT",
    "amount",
    "clean",
    "clean_line",
    "clip",
    "counted",
    "duration",
    "encodable",
    "error_line",
    "is_secret_name",
    "parts_of_attempt",
    "redact",
    "redactor",
    "secrets_of",
    "show",
    "size",
    "whole_number",
]
