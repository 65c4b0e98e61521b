"""
What is counted: the few facts about an event that a notice may need, and the group that it belongs to.

Not here: counting (grouping).
"""

import json
from typing import Any

import msgspec

from dkist_processing_core.events import Event, TaskEvent, TaskFailed, TaskOverdue, WorkflowFailed, WorkflowOverdue
from dkist_processing_core.text import clean_line, duration, redact

COUNTED = (TaskFailed.name, WorkflowFailed.name, TaskOverdue.name, WorkflowOverdue.name)
"""The names of the events that can be counted."""
_LONGEST_LINE, _LONGEST_URL = 300, 500


class Alarm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is overdue: an attempt, a run, or a start that was expected. A later alarm has a larger sequence."""

    key: str
    sequence: int
    workflow: str
    version: str
    run_id: str
    task: str | None = None
    attempt: int | None = None
    expected_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is raised, and not withdrawn: the sequence of a withdrawal is odd."""
        return self.sequence % 2 == 0


class Occurrence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that is counted; times are in seconds since 1970."""

    event: str
    group: str
    at: float
    workflow: str
    version: str
    run_id: str
    recipe_run_id: int | None = None
    summary: str
    task: str | None = None
    family: str | None = None
    cause: str | None = None
    is_final: bool = True
    """False if another attempt follows."""
    log_url: str | None = None
    alarm: Alarm | None = None


def occurrence_of(event: Event) -> Occurrence | None:
    """Return what is counted of an event; None if it is none of the counted ones."""
    facts: dict[str, Any] = {}
    match event:
        case TaskFailed():
            facts = {"family": event.family, "cause": event.cause.value, "is_final": event.final is not False}
            facts |= {"summary": event.summary, "log_url": event.log_url}
            group = [event.name, event.family]
        case TaskOverdue():
            facts = {"summary": _summary_of_attempt(event), "alarm": _alarm(event)}
            group = [event.name, event.workflow_name, event.task_name]
        case WorkflowOverdue():
            facts = {"summary": _summary_of_run(event), "alarm": _alarm(event)}
            group = [event.name, event.workflow_name]
        case WorkflowFailed():
            facts = {"summary": event.reason or "the run has failed"}
            group = [event.name, event.workflow_name]
        case _:
            return None
    facts["summary"] = _line(facts["summary"], _LONGEST_LINE)
    if (url := facts.get("log_url")) is not None:
        # A part of an address is none.
        facts["log_url"] = None if len(url) > _LONGEST_URL else _line(url, _LONGEST_URL)
    return Occurrence(
        event=event.name,
        group=json.dumps(group),
        at=event.time.timestamp(),
        workflow=event.workflow_name,
        version=event.workflow_version,
        run_id=event.run_id,
        recipe_run_id=event.recipe_run_id,
        task=event.task_name if isinstance(event, TaskEvent) else None,
        **facts,
    )


def _alarm(event: TaskOverdue | WorkflowOverdue) -> Alarm:
    task, attempt, limit, missed = None, None, None, None
    if isinstance(event, TaskOverdue):
        # An attempt may exceed two limits, each with its own alarm.
        task, attempt, limit = event.task_name, event.attempt, event.exceeded
    elif event.expected_at is not None:
        missed = event.expected_at.timestamp()
    return Alarm(
        key=json.dumps([event.workflow_name, event.workflow_version, event.run_id, task, attempt, limit, missed]),
        sequence=event.sequence or 0,
        workflow=event.workflow_name,
        version=event.workflow_version,
        run_id=event.run_id,
        task=task,
        attempt=attempt,
        expected_at=missed,
    )


def _summary_of_attempt(event: TaskOverdue) -> str:
    limit = duration(event.limit_seconds)
    return f"it has not ended within {limit}" if event.exceeded == "duration" else f"no sign of life within {limit}"


def _summary_of_run(event: WorkflowOverdue) -> str:
    if event.expected_at is not None:
        grace = f", and {duration(event.grace_seconds)} later" if event.grace_seconds else ""
        return f"no run has started that was expected at {event.expected_at:%Y-%m-%d %H:%M} UTC{grace}"
    limit = "" if event.limit_seconds is None else f" for {duration(event.limit_seconds)}"
    return f"the run neither runs a task nor ends{limit}"


def _line(text: str, longest: int) -> str:
    # Redacted before it is cut: a part of a secret would not be recognised.
    line = redact(clean_line(" ".join(text[: 4 * longest].split())))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
