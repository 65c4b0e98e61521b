"""
What a recorder holds, read at any time: while its task runs, or after its end, whatever the end was.

Not here: the memory (region).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from dkist_processing_core.recorder import layout
from dkist_processing_core.recorder.region import Region, view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dkist_processing_core.recorder.layout import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What was recorded, redacted; None for what was not. Each age is in seconds."""

    identity: dict[str, Any] = field(default_factory=dict)
    """What the launcher has stated about the attempt."""
    pid: int | None = None
    """The task's process."""
    stack: str | None = None
    """The stacks of the threads, the main thread first, separated by empty lines; the deepest frame first."""
    stack_age: float | None = None
    top_frame: str | None = None
    """The deepest frame of the first thread, such as `file.py:12 in function`."""
    log: str | None = None
    """The last lines of the log, the oldest first."""
    log_age: float | None = None
    phase: str | None = None
    phase_age: float | None = None
    """The time since the phase was entered."""
    progress: str | None = None
    progress_age: float | None = None


def read(source: Region | int, now: float | None = None) -> Recording:
    """
    Return what a recorder holds.

    Args:
        source: The recorder, or a descriptor of it, which stays open.
        now: The time of `time.monotonic` to which ages refer; None for the present time.

    Raises:
        OSError, ValueError: The descriptor is not that of a recorder.
    """
    if isinstance(source, int):
        region = view(source)
        try:
            return read(region, now)
        finally:
            region.close()
    found: dict[str, Any] = {}
    for name, value in (("stack", source.read(layout.STACKS)), ("log", source.log())):
        if value is not None and value.content:
            found |= {name: value.content.decode(errors="replace").rstrip("\n"), f"{name}_time": value.time}
    state, identity = _json(source, layout.STATE), _json(source, layout.IDENTITY)
    for name in ("phase", "progress"):
        text, since = state.get(name), state.get(f"{name}_time")
        if isinstance(text, str) and isinstance(since, int | float):
            found |= {name: text, f"{name}_time": since}
    # Read last, so that no age is negative.
    now = time.monotonic() if now is None else now
    facts = {
        name.replace("_time", "_age"): max(0.0, now - value) if name.endswith("_time") else value
        for name, value in found.items()
    }
    pid = identity.get("pid")
    return Recording(
        identity=identity, pid=pid if isinstance(pid, int) else None, top_frame=_top_frame(found.get("stack")), **facts
    )


def _top_frame(stack: str | None) -> str | None:
    lines = (stack or "").splitlines()[1:2]
    return lines[0].strip() if lines else None


def _json(region: Region, section: Section) -> dict[str, Any]:
    """Return the object in a section; an empty one if it has none, since any process of the task may write there."""
    value = region.read(section)
    try:
        found = {} if value is None else json.loads(value.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
