"""
The end of an attempt, as the engine of a local run sees it.

Not here: its effect on the run (_schedule, engine), and the outcome of a task (outcomes).
"""

from dataclasses import dataclass

from dkist_processing_core.identity import Attempt


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The end of an attempt's process."""

    attempt: Attempt
    exit_code: int | None
    """The exit status of its process; None if it is lost."""
    duration_seconds: float
    """The duration of the attempt, as its launcher sees it; of the launcher if that has reported none."""
    is_reported: bool
    """Whether the launcher has reported its end."""
    parts: str = ""
    """The times of environment and phases beside the duration, as text."""
