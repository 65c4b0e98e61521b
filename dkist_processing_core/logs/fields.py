"""
The fields of a log record that identify a run or an attempt, by the names of a JSON line and of a format string.

Not here: when a record gets them (tracing).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dkist_processing_core.identity import Attempt, Run

_OF_RUN = ("workflow", "version", "run_id", "recipe_run_id")
IDENTITY = (*_OF_RUN, "task", "attempt")
"""The fields in their order; the variables of a launched attempt have the same names, in capitals."""
TRACE = ("trace_id", "span_id")
"""The ids of the current span in hexadecimal, named as OpenTelemetry names them in logs that are not OTLP."""
MEANINGS = {
    "time": "The time in UTC, as RFC 3339 with milliseconds.",
    "level": "The name of the level, such as `INFO`.",
    "logger": "The name of the logger.",
    "message": "The text with its values, redacted.",
    "workflow": "The name of the workflow.",
    "version": "The version of the workflow.",
    "run_id": "The run, as the engine names it.",
    "recipe_run_id": "The recipe run that the run processes, a number.",
    "task": "The name of the task.",
    "attempt": "The number of the attempt, from 1.",
    "trace_id": "The trace of the run, or of the call of a consumer's handler; 32 hexadecimal digits.",
    "span_id": "The span in which the record was made, 16 hexadecimal digits.",
    "exception": "The exception with its stack, redacted; only if there is one.",
}
"""All fields of a JSON line, in their order, for the documentation."""
_PREFIX = "DKIST_CORE_"
_NUMBERS = frozenset({"recipe_run_id", "attempt"})


def fields_of(subject: Run | Attempt) -> dict[str, Any]:
    """Return the fields of a run or an attempt."""
    from dkist_processing_core.identity import Attempt  # noqa: PLC0415 - a launcher that starts a task needs none

    if isinstance(subject, Attempt):
        return fields_of_task(subject.run, subject.task_name, subject.attempt)
    return fields_of_task(subject)


def fields_of_task(run: Run, task_name: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    """Return the fields of a run, and of its task and attempt, of those that are known."""
    values = (run.workflow_name, run.workflow_version, run.run_id, run.recipe_run_id, task_name, attempt)
    return {name: value for name, value in zip(IDENTITY, values, strict=True) if value is not None}


def fields_in(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the attempt that the environment names; a number that is none stays a text."""
    found = {name: environ.get(_PREFIX + name.upper()) for name in IDENTITY}
    return {
        name: int(value) if name in _NUMBERS and value.isascii() and value.isdecimal() else value
        for name, value in found.items()
        if value
    }


def trace_fields(trace_id: int, span_id: int) -> dict[str, str]:
    """Return the fields of a span's ids."""
    return {TRACE[0]: f"{trace_id:032x}", TRACE[1]: f"{span_id:016x}"}
