"""
The functions by which a task's process records its phase and its progress.

Each function but `begin` does nothing where nothing is recorded, such as in a fork, and raises nothing. Not here: the
work of these functions (_task_recorder), and the reading by the launcher (reading).
"""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dkist_processing_core.recorder._task_recorder import TaskRecorder

_recorder: TaskRecorder | None = None


def begin(descriptor: int) -> None:
    """
    Record what this process does in the region of an inherited descriptor, which is closed.

    Raises:
        OSError, ValueError: The descriptor is not that of a recorder; then it is still open.
    """
    global _recorder  # noqa: PLW0603 - a process has one launcher
    # Imported here: a task that is called by hand needs none of them.
    from dkist_processing_core.recorder._task_recorder import TaskRecorder  # noqa: PLC0415
    from dkist_processing_core.recorder.region import attach  # noqa: PLC0415

    region = attach(descriptor)
    with contextlib.suppress(Exception):
        _recorder = TaskRecorder(region)
        _recorder.begin()


def _own() -> TaskRecorder | None:
    return _recorder if _recorder is not None and os.getpid() == _recorder.pid else None


def record_phase(name: str | None) -> None:
    """Record the phase that the task has entered; None between two phases."""
    recorder = _own()
    if recorder is not None:
        with contextlib.suppress(Exception):
            recorder.change_state("phase", name)


def record_progress(text: str) -> None:
    """Record the task's progress, redacted."""
    recorder = _own()
    if recorder is not None:
        with contextlib.suppress(Exception):
            recorder.change_state("progress", text)


def read_samples() -> dict[str, Any]:
    """Return what the launcher has measured so far; empty if it has measured nothing."""
    recorder = _own()
    if recorder is not None:
        with contextlib.suppress(Exception):
            return recorder.samples()
    return {}
