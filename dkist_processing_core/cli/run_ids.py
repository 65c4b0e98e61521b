"""
The completion by a shell of what the bus still has: the short ids of runs, the newest first, and the names of tasks.

A shell waits for it at each Tab, so it takes a moment at most and is silent, whatever the state of the bus. Not here:
the form of a short id (identity.short_ids), and the commands that a run is named to (cli.runs, cli.events).
"""

# ruff: noqa: PLC0415 - the completion of other words must not import the reading of events
import contextlib
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dkist_processing_core.events import Event
    from dkist_processing_core.identity import Run

_PATIENCE_SECONDS = 0.8
_MOST_OFFERED = 30
# A shell interprets other characters, also in a description.
_PLAIN = re.compile(r"[\w.,+@%/-]+", re.ASCII)
_NOT_PLAIN = re.compile(r"[^\w ./,+-]+")


def complete_run_id(incomplete: str) -> list[tuple[str, str]]:
    """Return the ids that begin with a text, short ones if possible, each with a description of its run."""
    from dkist_processing_core.identity.short_ids import ShortIds

    runs = _runs_on_the_bus()
    short_ids = ShortIds(run.run_id for run in runs)
    offered = [(short_ids.of(run.run_id), _described(run)) for run in runs[:_MOST_OFFERED]]
    if incomplete and not any(name.startswith(incomplete) for name, _ in offered):
        offered = [(run.run_id, _described(run)) for run in runs]
    return [(name, words) for name, words in offered if name.startswith(incomplete) and _PLAIN.fullmatch(name)]


def _described(run: "Run") -> str:
    from dkist_processing_core.cli.draw.words import named_recipe_run

    return _NOT_PLAIN.sub(" ", f"{run.workflow_name} {run.workflow_version}, {named_recipe_run(run.recipe_run_id)}")


def complete_task_name(incomplete: str) -> list[str]:
    """Return the names of the tasks of the runs on the bus that begin with a text."""
    from dkist_processing_core.events import TaskEvent, WorkflowStarted

    names: set[str] = set()

    def add(event: "Event") -> None:
        if isinstance(event, TaskEvent):
            names.add(event.task_name)
        elif isinstance(event, WorkflowStarted) and event.graph is not None:
            names.update(event.graph.nodes)

    _read_back(add)
    return sorted(name for name in names.copy() if name.startswith(incomplete) and _PLAIN.fullmatch(name))


def _runs_on_the_bus() -> "list[Run]":
    """Return the runs that can be read within the patience of a person, the newest first."""
    found: dict[str, tuple[datetime, Run]] = {}
    _read_back(lambda event: found.setdefault(event.run_id, (event.time, event.run)))
    return [run for _, run in sorted(found.copy().values(), key=lambda each: each[0], reverse=True)]


def _read_back(visit: "Callable[[Event], object]") -> None:
    """Visit the events that can be read within the patience of a person, the newest first."""
    is_over = threading.Event()

    def read() -> None:
        # The person pressed Tab, and did not ask whether the bus answers.
        with contextlib.suppress(Exception):
            from dkist_processing_core.consumer import Selection
            from dkist_processing_core.consumer.backwards import events_back
            from dkist_processing_core.settings.reading import read_settings

            for batch in events_back(read_settings(), Selection()):
                for event in reversed(batch.events):
                    if is_over.is_set():
                        return
                    visit(event)

    thread = threading.Thread(target=read, name="dkist-core-completion", daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    is_over.set()
