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
    is_reported: bool
    """Whether the launcher has reported its end."""
