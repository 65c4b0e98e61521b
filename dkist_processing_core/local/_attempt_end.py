"""
The end of an attempt, as the engine of a local run sees it.

Not here: its effect on the run (_schedule, engine), and the outcome of a task (outcomes).
"""

import signal
from dataclasses import dataclass

from dkist_processing_core.identity import Attempt
from dkist_processing_core.process.exit_status import LOST
from dkist_processing_core.process.termination import signal_name
from dkist_processing_core.text import duration

# The exit status after a signal is this plus the signal's number, as in a shell.
_BY_SIGNAL = 128


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The end of an attempt's process."""

    attempt: Attempt
    exit_code: int | None
    """The exit status of its process; None if it is lost."""
    duration_seconds: float
    """The duration of the attempt, as in its end event; of the launcher if that has reported none."""
    is_reported: bool
    """Whether the launcher has reported its end."""
    parts: str = ""
    """The times of environment and phases beside the duration, as text."""
    error: str = ""
    """The class of the task's error and the first line of its message; without an error, nothing."""


def outcome_text(end: AttemptEnd, *, succeeded: bool, next_in: float | None = None) -> str:
    """
    Return a short text about how an attempt ended, how long it took, and its error.

    Args:
        end: The end of the attempt.
        succeeded: Whether its task has succeeded.
        next_in: The time until the next attempt of the task, in seconds; None if there is none.
    """
    took = duration(end.duration_seconds)
    if succeeded:
        return f"finished in {took}" + (f" ({end.parts})" if end.parts else "")
    code = end.exit_code
    how = LOST if code is None else f"exit code {code}" if code >= 0 else "its launcher was killed"
    if code is not None and _BY_SIGNAL < code < _BY_SIGNAL + signal.NSIG:
        how += f", {signal_name(code - _BY_SIGNAL)}"
    attempt, error = end.attempt, f": {end.error}" if end.error else ""
    retry = "" if next_in is None else f", attempt {attempt.attempt + 1} of {attempt.max_attempts} follows"
    if next_in:
        retry += f" in {duration(next_in)}"
    return f"failed after {took} ({f'{end.parts}; ' if end.parts else ''}{how}){retry}{error}"
