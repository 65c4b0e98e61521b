"""
How a task's process ended, and what follows for the status that its launcher leaves with.

With the standard library alone: this holds whatever fails in the launcher's own work. Not here: which event states the
end, and its cause (_verdict).
"""

from dataclasses import dataclass, field
from typing import Any

FINISHED, FAILED = "task.finished", "task.failed"
"""The names of the events by which a task reports its end."""
_NO_SUCCESS = 1
_BY_SIGNAL = 128


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended, and what it had reported until then."""

    exit_code: int | None
    """As `subprocess` has it: the status, or minus the number of the signal; None where the status is lost."""
    cpu_seconds: float | None
    """Of the process and of its children that it has waited for; None where that is lost with the status."""
    duration_seconds: float
    told: dict[str, Any] = field(default_factory=dict)
    """What came by the report descriptor: the objects of its lines, the later over the earlier."""
    not_started: OSError | None = None
    """Why there was no process at all."""

    @property
    def reported(self) -> str | None:
        """The name of the event by which the task has reported its end; None where it has not."""
        name = self.told.get("end")
        return name if name in (FINISHED, FAILED) else None

    @property
    def is_published(self) -> bool:
        """Whether the task's own report of its end is in the journal."""
        return self.reported is not None and self.told.get("is_published") is True

    def is_success(self, *, was_told: bool) -> bool:
        """Return whether the task has succeeded; `was_told` is whether this launcher has requested its end."""
        # Not by the status alone: a process that leaves by os._exit(0) in the middle has ended nothing.
        has_returned = self.told.get("returned") is True
        if self.exit_code is None:
            # The status is not known, so what the task itself has reported decides.
            return self.reported != FAILED and "raised" not in self.told and (has_returned or self.reported == FINISHED)
        if self.exit_code == 0:
            return self.reported == FINISHED or has_returned
        # Only what it had left running was ended by that.
        return has_returned and was_told and self.exit_code < 0 and self.reported != FAILED

    def status(self, *, was_told: bool) -> int:
        """Return the status to leave with: as a shell has it, for a signal 128 and its number."""
        if self.is_success(was_told=was_told):
            return 0
        code = self.exit_code or 0
        return (code if code >= 0 else _BY_SIGNAL - code) or _NO_SUCCESS
