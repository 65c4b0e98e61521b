"""
What an attempt has used, as columns: from its end, and from its latest sample, the only record if its host dies.

With it is whether the attempt died. Not here: adding up the attempts of a task (collect.questions.usage).
"""

from typing import Any

from dkist_processing_core.events import Cause, Reporter, Resources
from dkist_processing_core.runs import AttemptView, State

_NEVER_BEGUN = (Cause.ENVIRONMENT, Cause.CONFIGURATION)


def used_by(attempt: AttemptView) -> dict[str, Any]:
    """Return the columns, each None if it was not measured; memory in bytes, processor time in seconds."""
    end, sample = attempt.end, attempt.sample
    known = [each.resources for each in (end, sample) if each is not None and each.resources is not None]
    # Of an older launcher, or of a task without one: the largest process alone.
    one_process = None if end is None else end.peak_memory
    return {
        "peak_memory": _largest(one_process, *(each.peak_rss for each in known)),
        "memory_limit": next((each.memory_limit_bytes for each in known if each.memory_limit_bytes is not None), None),
        "cpu_used": _largest(*map(_cpu, known)),
        "cpu_limit": next((each.cpu_limit for each in known if each.cpu_limit is not None), None),
        "bytes_read": _largest(*(each.read_bytes for each in known)),
        "bytes_written": _largest(*(each.write_bytes for each in known)),
    }


def has_died(attempt: AttemptView) -> bool:
    """Return True if an attempt failed without a report of the task itself, whatever ended it."""
    if attempt.state is not State.FAILED or attempt.cause in _NEVER_BEGUN:
        return False
    return attempt.end is None or attempt.end.reported_by is not Reporter.TASK


def _cpu(resources: Resources) -> float | None:
    user, system = resources.cpu_user_seconds, resources.cpu_system_seconds
    return None if user is None and system is None else (user or 0.0) + (system or 0.0)


def _largest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
