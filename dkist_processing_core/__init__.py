"""
Message-driven event observability for scientific workflow tasks.

    from dkist_processing_core import TaskBase, Workflow, ResourceQueue

Public names are imported on first use (PEP 562), so that an exported DAG can import its callbacks from here without
the dependencies of a task.
"""

from __future__ import annotations

# The same as `typing.TYPE_CHECKING`. Importing typing would take a launcher as long as finding its environment.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from dkist_processing_core.consumer import Consumer, Subscription, subscribe
    from dkist_processing_core.resource_queue import ResourceQueue
    from dkist_processing_core.runs import RunState
    from dkist_processing_core.task import TaskBase
    from dkist_processing_core.workflow import Workflow

__all__ = ["Consumer", "ResourceQueue", "RunState", "Subscription", "TaskBase", "Workflow", "subscribe"]

_HOMES = {
    "Consumer": "consumer",
    "ResourceQueue": "resource_queue",
    "RunState": "runs",
    "Subscription": "consumer",
    "TaskBase": "task",
    "Workflow": "workflow",
    "subscribe": "consumer",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module and return it."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - rarely needed

        return version("dkist-processing-core")
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415 - not for a launcher

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
