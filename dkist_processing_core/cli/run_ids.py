"""
How commands name a run, and the completion by a shell of what the bus or the store has: short ids of runs, families of
failures, names of workflows and tasks.

A shell waits for it at each Tab, so it takes a moment at most and is silent, whatever the state of the bus. Not here:
the form of a short id (identity.short_ids), and the commands that a run is named to (cli.runs, cli.events).
"""

# ruff: noqa: PLC0415 - the completion of other words must not import the reading of events
import contextlib
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from dkist_processing_core.events import Event
    from dkist_processing_core.identity import Run

BY_RUN_ID = "by its short id, or by 4 or more characters of the beginning of that or of the end of its id, in any case"
"""How a command names a run, for its help."""
_PATIENCE_SECONDS = 0.8
_MOST_OFFERED = 30
_MOST_KNOWN = 1000
# A shell interprets other characters, also in a description.
_PLAIN = re.compile(r"[\w.,+@%/-]+", re.ASCII)
_NOT_PLAIN = re.compile(r"[^\w ./,+-]+")


def complete_run_id(incomplete: str) -> list[tuple[str, str]]:
    """Return the ids that begin with a text, short ones if possible, each with a description of its run."""
    return _offered(_runs_on_the_bus(), incomplete)


def complete_stored_run_id(incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of runs in the store that begin with a text; without a store, those on the bus."""
    runs: dict[str, list[Run]] = {}

    def read() -> None:
        from dkist_processing_core.collect.collector import latest_runs
        from dkist_processing_core.settings.reading import read_settings

        for run in latest_runs(read_settings(), _MOST_KNOWN):
            runs.setdefault(run.run_id, []).append(run)

    _for_a_moment(read)
    return _offered(runs.copy() or _runs_on_the_bus(), incomplete)


def complete_family(incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of the families of failures in the store that begin with a text, each with its last reason."""
    found: dict[str, str] = {}

    def read() -> None:
        from dkist_processing_core.collect.collector import latest_families
        from dkist_processing_core.settings.reading import read_settings

        for family in latest_families(read_settings(), _MOST_OFFERED):
            found[family.family] = " ".join(_NOT_PLAIN.sub(" ", family.last.summary or "").split())

    _for_a_moment(read)
    return [(name, words) for name, words in found.copy().items() if name.startswith(incomplete)]


def _offered(runs: "dict[str, list[Run]]", incomplete: str) -> list[tuple[str, str]]:
    from dkist_processing_core.identity.short_ids import ShortIds

    short_ids = ShortIds(runs)
    offered = [(short_ids.of(run_id), _described(alike)) for run_id, alike in list(runs.items())[:_MOST_OFFERED]]
    if incomplete and not any(name.startswith(incomplete) for name, _ in offered):
        offered = [(run_id, _described(alike)) for run_id, alike in runs.items()]
    return [(name, words) for name, words in offered if name.startswith(incomplete) and _PLAIN.fullmatch(name)]


def _described(alike: "list[Run]") -> str:
    """Return a description of the runs of one id: of the newest, and the number of other workflows."""
    from dkist_processing_core.runs.wording.facts import named_recipe_run
    from dkist_processing_core.text import counted

    run, others = alike[0], len(alike) - 1
    words = f"{run.workflow_name} {run.workflow_version}, {named_recipe_run(run.recipe_run_id)}"
    more = f", and {counted(others, 'other workflow')} to choose by --workflow" if others else ""
    return _NOT_PLAIN.sub(" ", f"{words}{more}")


def complete_task_name(incomplete: str) -> list[str]:
    """Return the names of the tasks of the runs on the bus that begin with a text."""
    from dkist_processing_core.events import TaskEvent, WorkflowStarted

    def tasks(event: "Event") -> "Iterable[str]":
        if isinstance(event, TaskEvent):
            return (event.task_name,)
        return event.graph.nodes if isinstance(event, WorkflowStarted) and event.graph is not None else ()

    return _names_on_the_bus(tasks, incomplete)


def complete_workflow_name(incomplete: str) -> list[str]:
    """Return the names of the workflows of the runs on the bus that begin with a text."""
    return _names_on_the_bus(lambda event: (event.workflow_name,), incomplete)


def _names_on_the_bus(of_event: "Callable[[Event], Iterable[str]]", incomplete: str) -> list[str]:
    names: set[str] = set()
    _read_back(lambda event: names.update(of_event(event)))
    return sorted(name for name in names.copy() if name.startswith(incomplete) and _PLAIN.fullmatch(name))


def _runs_on_the_bus() -> "dict[str, list[Run]]":
    """Return the runs of each id that can be read within the patience of a person, the newest first."""
    found: dict[tuple[str, str], tuple[datetime, Run]] = {}
    _read_back(lambda event: found.setdefault((event.workflow_name, event.run_id), (event.time, event.run)))
    runs: dict[str, list[Run]] = {}
    for _, run in sorted(found.copy().values(), key=lambda each: each[0], reverse=True):
        runs.setdefault(run.run_id, []).append(run)
    return runs


def _read_back(visit: "Callable[[Event], object]") -> None:
    """Visit the events that can be read within the patience of a person, the newest first."""
    is_over = threading.Event()

    def read() -> None:
        from dkist_processing_core.consumer import Selection
        from dkist_processing_core.consumer.backwards import events_back
        from dkist_processing_core.settings.reading import read_settings

        for batch in events_back(read_settings(), Selection()):
            for event in reversed(batch.events):
                if is_over.is_set():
                    return
                visit(event)

    _for_a_moment(read)
    is_over.set()


def _for_a_moment(read: "Callable[[], None]") -> None:
    """Read something within the patience of a person, who pressed Tab and did not ask whether it can be read."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            read()

    thread = threading.Thread(target=quietly, name="dkist-core-completion", daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
