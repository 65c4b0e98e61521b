"""
What a launcher has measured of an attempt, and what the task has recorded, as fields of the events about its end.

Not here: measuring (_sampling), the recorder (recorder), and the decision which end states what (_verdict).
"""

from typing import Any

from dkist_processing_core.events import Resources
from dkist_processing_core.launcher._sampling import Sampler
from dkist_processing_core.launcher.process_end import ProcessEnd
from dkist_processing_core.recorder.reading import Recording


def facts_of_end(sampler: Sampler, end: ProcessEnd) -> dict[str, Any]:
    """Return the measurements as fields of `TaskEnd`; `end` has the exact ones of processes that were waited for."""
    totals = sampler.totals()
    for name, value in end.used.items():
        totals[name] = max(value, totals.get(name, 0))
    facts: dict[str, Any] = {"peak_memory_bytes": sampler.largest_process, "resources": Resources(**totals)}
    if profile := sampler.profile():
        facts["profile"] = tuple(profile)
    return facts


def facts_of_failure(recording: Recording) -> dict[str, Any]:
    """Return the last signs of a task that could not report its end, as fields of `TaskFailed`."""
    found = {}
    for name in ("stack", "log", "phase", "progress"):
        if (value := getattr(recording, name)) is not None:
            found[f"last_{name}"] = value
            found[f"last_{name}_age_seconds"] = getattr(recording, f"{name}_age")
    return found
