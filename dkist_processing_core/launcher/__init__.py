"""
The parent of a task's process: it prepares the environment, starts the task there, and speaks for it when it cannot.

    python -m dkist_processing_core.launcher

Everything comes by the environment (_assignment). It publishes `task.dispatched` and `task.started`, forwards SIGTERM
to the task and kills its process group 4 s later, publishes the end of a task that has not told its own, exports the
attempt's span, and leaves with the task's exit status. Not here: what the task's process does (bootstrap, lifecycle).
"""

from dkist_processing_core.launcher._assignment import DELIVERED, EXTRAS, PACKAGE, QUEUE, QUEUED_AT
from dkist_processing_core.launcher._environ import without_launchers
from dkist_processing_core.launcher._launch import SOFTWARE, USAGE, main
from dkist_processing_core.launcher._orders import GRACE_SECONDS

__all__ = [
    "DELIVERED",
    "EXTRAS",
    "GRACE_SECONDS",
    "PACKAGE",
    "QUEUE",
    "QUEUED_AT",
    "SOFTWARE",
    "USAGE",
    "main",
    "without_launchers",
]
