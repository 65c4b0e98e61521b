"""
The parent of a task's process: it prepares the environment, starts the task, and reports the end if the task does not.

    python -m dkist_processing_core.launcher

All its input comes from environment variables (_assignment). It publishes `task.dispatched` and `task.started`. It
forwards SIGTERM to the task and kills the task's process group 4 s later. It publishes the end of a task that has not
reported its own end, exports the attempt's span, and exits with the task's exit status. Names are resolved when they
are first used (PEP 562), so that signals are blocked before anything else is imported. Not here: the task's process
(bootstrap, lifecycle).
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from dkist_processing_core.launcher._assignment import DELIVERED, EXTRAS, PACKAGE, QUEUE, QUEUED_AT
    from dkist_processing_core.launcher._end import SOFTWARE, USAGE
    from dkist_processing_core.launcher._environ import without_launchers
    from dkist_processing_core.launcher._launch import main
    from dkist_processing_core.launcher._orders import GRACE_SECONDS, hold_back

__all__ = [
    "DELIVERED",
    "EXTRAS",
    "GRACE_SECONDS",
    "PACKAGE",
    "QUEUE",
    "QUEUED_AT",
    "SOFTWARE",
    "USAGE",
    "hold_back",
    "main",
    "without_launchers",
]

_HOMES = {
    "_assignment": ("DELIVERED", "EXTRAS", "PACKAGE", "QUEUE", "QUEUED_AT"),
    "_environ": ("without_launchers",),
    "_end": ("SOFTWARE", "USAGE"),
    "_launch": ("main",),
    "_orders": ("GRACE_SECONDS", "hold_back"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    from importlib import import_module  # noqa: PLC0415 - as above

    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
            return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
