"""
The end of a task's process, and the exit status that its launcher returns for it.

Only the standard library is used, so that this works even if another part of the launcher fails. Not here: the event
that reports the end, and its cause (_verdict).
"""

from dataclasses import dataclass, field
from typing import Any

FINISHED, FAILED = "task.finished", "task.failed"
"""The names of the events by which a task reports its end."""
USAGE, SOFTWARE = 64, 70
"""The exit status of a launcher that has no assignment, and of one that has failed itself (sysexits(3))."""
_NO_SUCCESS = 1
_BY_SIGNAL = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnd:
    """The end of a process, with its reports until then."""

    exit_code: int | None
    """The status, or minus the number of the signal, as in `subprocess`; None if the status is lost."""
    processor_seconds: float | None
    """The processor time of the process and of its children that it has waited for; None if the status is lost."""
    duration_seconds: float
    """The time from the start of the process to its end."""
    reports: dict[str, Any] = field(default_factory=dict)
    """The reports received over the report pipe: the JSON objects of all lines, merged; later values win."""
    used: dict[str, Any] = field(default_factory=dict)
    """What the process and the descendants that were waited for have used, as fields of `Resources`."""
    not_started: OSError | None = None
    """The error that prevented the start of the process; None if there was a process."""

    @property
    def reported_event(self) -> str | None:
        """The name of the event by which the task has reported its end; None if it has not."""
        name = self.reports.get("end")
        return name if name in (FINISHED, FAILED) else None

    @property
    def is_on_disk(self) -> bool:
        """Whether the task's own report of its end is on disk."""
        return self.reported_event is not None and self.reports.get("is_on_disk") is True

    def is_success(self, *, termination_requested: bool) -> bool:
        """Return True if the task has succeeded; `termination_requested` is whether this launcher has requested it."""
        # The status alone does not decide: a process that calls os._exit(0) midway has not finished its task.
        has_returned = self.reports.get("returned") is True
        if self.exit_code is None:
            # The status is not known, so the task's own reports decide.
            has_failed = self.reported_event == FAILED or "raised" in self.reports
            return not has_failed and (has_returned or self.reported_event == FINISHED)
        if self.exit_code == 0:
            return self.reported_event == FINISHED or has_returned
        # The task had returned already: the signal ended only processes that it had left behind.
        return has_returned and termination_requested and self.exit_code < 0 and self.reported_event != FAILED

    def status(self, *, termination_requested: bool) -> int:
        """Return the launcher's exit status: as in a shell, 128 plus the number for a signal."""
        if self.is_success(termination_requested=termination_requested):
            return 0
        code = self.exit_code or 0
        return (code if code >= 0 else _BY_SIGNAL - code) or _NO_SUCCESS
