"""
The verdict on the end of a task's process: its event, its cause, and whether its report is already on disk.

These are pure functions: they take facts and return one verdict. Not here: the sources of the facts (_process,
_sampling, _measured, termination_requests), and publishing (_reports).
"""

import signal
from dataclasses import dataclass, field
from typing import Any

from dkist_processing_core.events import Cause, TaskEvent, TaskFailed, TaskFinished, fingerprint
from dkist_processing_core.events.facts import EXITED, KILLED
from dkist_processing_core.launcher.process_end import ProcessEnd
from dkist_processing_core.process.exit_status import LOST
from dkist_processing_core.process.termination import signal_name

# The launcher identifies the attempt itself, measures more, and its report is never provisional.
_NOT_TAKEN = frozenset({*TaskEvent.__struct_fields__, "provisional", "resources", "profile"})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts that a launcher knows in addition to the end of the process."""

    termination_requested: bool = False
    """Whether this launcher has requested the task's termination."""
    is_orphaned: bool = False
    """Whether the reason was the death of the launcher's own parent."""
    oom_kill: bool = False
    """Whether the kernel killed a process of the task's control groups because memory ran out."""
    measured: dict[str, Any] = field(default_factory=dict)
    """The measurements of the task's processes, as fields of `TaskEnd`."""
    last: dict[str, Any] = field(default_factory=dict)
    """What the task has recorded, as fields of `TaskFailed`; for a failure that it did not report itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One end of an attempt."""

    event_class: type[TaskFinished | TaskFailed]
    facts: dict[str, Any] = field(default_factory=dict)
    is_on_disk: bool = False
    """Whether the task's own report of it is on disk."""
    exit_code: int = 0
    """The launcher's exit status."""

    @property
    def cause(self) -> Cause | None:
        """The cause of the failure; None for a success."""
        return self.facts.get("cause")

    @property
    def error_type(self) -> str | None:
        """The name of the failure for telemetry: the class of the exception, or the cause if there is none."""
        return self.facts.get("error_type") or self.cause


def bare(end: ProcessEnd, *, termination_requested: bool) -> Verdict:
    """
    Return a verdict from the task's own report and its status alone, for when `judge` fails.

    Args:
        end: The end of the process.
        termination_requested: Whether this launcher has requested the task's termination.
    """
    status = end.status(termination_requested=termination_requested)
    if end.is_success(termination_requested=termination_requested):
        return Verdict(TaskFinished, is_on_disk=end.is_on_disk, exit_code=status)
    raised = end.reports.get("raised")
    facts: dict[str, Any] = {"cause": Cause.LOST if end.exit_code is None else Cause.EXIT_CODE}
    if isinstance(raised, dict):
        facts = {"cause": Cause.EXCEPTION, **{name: str(raised.get(name)) for name in ("error_type", "message")}}
    elif end.exit_code is not None and end.exit_code < 0:
        facts = {"cause": Cause.SIGNAL}
    is_on_disk = end.is_on_disk and end.reported_event == TaskFailed.name
    return Verdict(TaskFailed, facts, is_on_disk=is_on_disk, exit_code=status)


def judge(end: ProcessEnd, known: Circumstances) -> Verdict:
    """
    Return the verdict on an attempt whose process has ended.

    Args:
        end: The end of the process, and the reports of the task.
        known: The facts that the launcher knows in addition.
    """
    if end.not_started is not None:
        error = end.not_started
        facts = {"cause": Cause.ENVIRONMENT, "error_type": type(error).__name__, "message": str(error)}
        return Verdict(TaskFailed, facts, exit_code=end.status(termination_requested=known.termination_requested))
    reports = end.reports
    is_on_disk, is_done = end.is_on_disk, end.is_success(termination_requested=known.termination_requested)
    exit_code = end.status(termination_requested=known.termination_requested)
    if is_on_disk and end.reported_event == TaskFailed.name:
        # This holds even if the author's code suppressed the exception: the engine gets the status of the process.
        facts = _raised_facts(end) | _reported_facts(reports, TaskFailed)
        if not isinstance(facts.get("cause"), str):
            facts["cause"] = Cause.EXIT_CODE
        return Verdict(TaskFailed, facts, is_on_disk=True, exit_code=exit_code)
    if is_done:
        facts = _known(end, known, _reported_facts(reports, TaskFinished))
        return Verdict(TaskFinished, facts, is_on_disk=is_on_disk, exit_code=exit_code)
    # The facts of a success that the task has reported do not describe the failure that followed.
    reported = {} if reports.get("end") == TaskFinished.name else _reported_facts(reports, TaskFailed)
    facts = _known(end, known, _raised_facts(end) | reported)
    facts |= _why(end, known, facts)
    if end.reported_event != TaskFailed.name or facts["cause"] in (Cause.TERMINATED, Cause.LOST):
        facts |= known.last
    return Verdict(TaskFailed, facts, exit_code=exit_code)


def _known(end: ProcessEnd, known: Circumstances, reported: dict[str, Any]) -> dict[str, Any]:
    """
    Return the measured and the reported facts together, with the higher of the two peaks of memory.

    The task cannot know when its process ends: unless its own report is on disk already, the measured duration counts.
    """
    peaks = [each.get("peak_memory_bytes") for each in (known.measured, reported)]
    measured = known.measured | {"duration_seconds": end.duration_seconds, "cpu_seconds": end.processor_seconds}
    if not end.is_on_disk:
        reported = {**reported, "duration_seconds": end.duration_seconds}
    return (
        measured
        | reported
        | {"peak_memory_bytes": max((peak for peak in peaks if isinstance(peak, int)), default=None)}
    )


def _reported_facts(reports: dict[str, Any], event_class: type[TaskFinished | TaskFailed]) -> dict[str, Any]:
    """
    Return the facts of its end that the task has reported, if they are fields of this class.

    Other releases of this package may report other facts.
    """
    facts = reports.get("facts")
    if not isinstance(facts, dict):
        return {}
    taken = set(event_class.__struct_fields__) - _NOT_TAKEN
    return {name: value for name, value in facts.items() if name in taken and value is not None}


def _raised_facts(end: ProcessEnd) -> dict[str, Any]:
    """Return the facts of the exception that left the program; every release of this package reports them."""
    raised = end.reports.get("raised")
    if not isinstance(raised, dict):
        return {}
    error_type = str(raised.get("error_type"))
    frames = raised.get("frames")
    return {
        "error_type": error_type,
        "message": str(raised.get("message")),
        "stack": str(raised.get("stack")),
        "fingerprint": fingerprint(error_type, map(str, frames if isinstance(frames, list) else [])),
    }


def _why(end: ProcessEnd, known: Circumstances, facts: dict[str, Any]) -> dict[str, Any]:
    """Return cause, signal or exit code, and a message if the facts have none; the most direct cause has precedence."""
    raised = end.reports.get("raised")
    raised = raised if isinstance(raised, dict) else {}
    number = -end.exit_code if end.exit_code is not None and end.exit_code < 0 else None
    name = signal_name(number) if number is not None else None
    how = {"signal": name} if name else {"exit_code": end.exit_code}
    if known.is_orphaned:
        why = {
            "cause": Cause.LOST,
            "message": "the process that ran the workflow (the script, or Airflow's task runner) ended",
        }
    elif known.termination_requested or number == signal.SIGTERM or facts.get("cause") == Cause.TERMINATED:
        why = {"cause": Cause.TERMINATED, "message": "the task received a termination request"}
    elif number == signal.SIGKILL and known.oom_kill:
        why = {"cause": Cause.OUT_OF_MEMORY, "message": "the kernel killed the task because memory ran out"}
    elif number is not None:
        why = {"cause": Cause.SIGNAL, "message": KILLED.format(name)}
    elif raised.get("is_memory") or facts.get("cause") == Cause.OUT_OF_MEMORY:
        why = {"cause": Cause.OUT_OF_MEMORY}
    elif raised and not raised.get("is_exit"):
        why = {"cause": Cause.EXCEPTION}
    elif end.exit_code is None:
        why = {"cause": Cause.LOST, "message": f"the task has not reported its end, and {LOST}"}
    elif end.exit_code == 0:
        why = {"cause": Cause.EXIT_CODE, "message": "the process exited with status 0 before the task was done"}
    else:
        why = {"cause": Cause.EXIT_CODE, "message": EXITED.format(end.exit_code)}
    has_message = facts.get("message") and not (raised.get("is_exit") and str(facts["message"]).isdigit())
    if has_message and not known.is_orphaned:
        why.pop("message", None)
    return why | how
