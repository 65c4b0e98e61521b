"""
Loops over `subscribe`, correct ones and ones with a mistake each, for the tests of the simulation.

Each is a whole program, which is started again after its end. Not here: consumers with an inbox (consumers).
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from dkist_processing_core import Subscription, subscribe
from dkist_processing_core.events import Event, TaskEnd, TaskEvent, TaskFailed, TaskStarted, WorkflowFailed
from dkist_processing_core.testing import World, effects_of


@dataclass(frozen=True)
class Case:
    """A program, what it should do, and what is compared with it."""

    start: Callable[[World], Any]
    expected: Callable[[Sequence[Event]], Any]
    observed: Callable[[World], Any] = effects_of


def failures() -> Subscription:
    """Return the reports of failures, under a name."""
    return subscribe("task.failed", name="operators", every_report=True)


@contextlib.contextmanager
def database(world: World) -> Iterator[sqlite3.Connection]:
    """Open the database of a program, which survives its end."""
    with contextlib.closing(sqlite3.connect(world.folder / "operators.db")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS done (id PRIMARY KEY, at)")
        connection.execute("CREATE TABLE IF NOT EXISTS count (workflow PRIMARY KEY, failures)")
        connection.execute("CREATE TABLE IF NOT EXISTS task (workflow, task, failures, PRIMARY KEY (workflow, task))")
        connection.commit()
        yield connection


def is_final(event: Event) -> TypeGuard[TaskFailed]:
    """Return True for a failure that nothing can change any more."""
    return isinstance(event, TaskFailed) and event.final is True and not event.provisional


def final_failures(facts: Sequence[Event]) -> list[Any]:
    """Return the tasks that have failed, once each: what an announcer announces."""
    return sorted({(event.workflow_name, event.task_name) for event in facts if is_final(event)})


def announced(world: World) -> list[Any]:
    """Return the announcements; one that is repeated counts once, since no program can prevent that."""
    return sorted(set(world.effects))


def attempts_failed(facts: Sequence[Event]) -> dict[str, int]:
    """Return the number of failed attempts of each workflow, by the firm reports."""
    found: dict[str, set[str]] = {}
    for event in facts:
        if isinstance(event, TaskFailed) and not event.provisional:
            found.setdefault(event.workflow_name, set()).add(event.id)
    return {workflow: len(ids) for workflow, ids in sorted(found.items())}


def counted(world: World) -> dict[str, int]:
    """Return the counts in the database of a program."""
    with database(world) as connection:
        return dict(connection.execute("SELECT workflow, failures FROM count ORDER BY workflow").fetchall())


def counted_twice(world: World) -> list[Any]:
    """Return the counts of each workflow, and those of its tasks together."""
    with database(world) as connection:
        return [
            counted(world),
            dict(connection.execute("SELECT workflow, sum(failures) FROM task GROUP BY 1 ORDER BY 1").fetchall()),
        ]


def is_first(connection: sqlite3.Connection, key: str) -> bool:
    """Store a key in the open transaction, and return True if it is new."""
    return connection.execute("INSERT OR IGNORE INTO done VALUES (?, 0)", (key,)).rowcount > 0


def count(connection: sqlite3.Connection, event: TaskFailed) -> None:
    """Count a failed attempt in the open transaction."""
    connection.execute(
        "INSERT INTO count VALUES (?, 1) ON CONFLICT DO UPDATE SET failures = failures + 1", (event.workflow_name,)
    )


def count_task(connection: sqlite3.Connection, event: TaskFailed) -> None:
    """Count a failed attempt of the task in the open transaction."""
    connection.execute(
        "INSERT INTO task VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET failures = failures + 1",
        (event.workflow_name, event.task_name),
    )


# Correct programs.


def announcer(world: World) -> None:
    """Announce each final failure before it is acknowledged."""
    for event in failures():
        if is_final(event):
            world.effect(event.workflow_name, event.task_name)
        event.ack()


def counter(world: World) -> None:
    """Count each failed attempt once: the count and the mark are one transaction."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                if is_first(connection, event.id):
                    count(connection, event)
                    count_task(connection, event)
                connection.commit()


def states(world: World) -> None:
    """Keep the last state of each task, in whatever order the reports arrive."""
    for event in subscribe(name="states", every_report=True):
        if isinstance(event, TaskEvent):
            rank = (event.attempt or 0, isinstance(event, TaskEnd), not getattr(event, "provisional", False))
            world.effect(event.workflow_name, event.task_name, rank, event.name)


def last_states(facts: Sequence[Event]) -> dict[Any, Any]:
    """Return the last state of each task."""
    return _newest(
        (event.workflow_name, event.task_name, _rank(event), event.name) for event in facts if is_state(event)
    )


def newest_states(world: World) -> dict[Any, Any]:
    """Return what the effects of a correct program show in the end."""
    return _newest(
        effect
        for effect in world.effects
        if effect[3] in ("task.started", "task.finished", "task.failed", "task.skipped")
    )


def shown_states(world: World) -> dict[Any, Any]:
    """Return what is shown in the end by a program that replaces the state of a task by each report."""
    return {(workflow, task): name for workflow, task, name in world.effects}


def is_state(event: Event) -> TypeGuard[TaskStarted | TaskEnd]:
    """Return True for a report that shows the state of a task."""
    return isinstance(event, TaskStarted | TaskEnd)


def _rank(event: Event) -> tuple[Any, ...]:
    return (getattr(event, "attempt", None) or 0, isinstance(event, TaskEnd), not getattr(event, "provisional", False))


def _newest(found: Any) -> dict[Any, Any]:
    best: dict[Any, Any] = {}
    for workflow, task, rank, name in found:
        best[workflow, task] = max(best.get((workflow, task), ((),)), (rank, name))
    return {key: name for key, (_, name) in sorted(best.items())}


# Programs with one mistake each.


def acknowledges_first(world: World) -> None:
    """It acknowledges an event before its effect, which is lost if the process ends in between."""
    for event in failures():
        event.ack()
        if is_final(event):
            world.effect(event.workflow_name, event.task_name)


def forgets_repetitions(world: World) -> None:
    """It counts a report each time that it is delivered."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                count(connection, event)
                connection.commit()


def remembers_in_memory(world: World) -> None:
    """It knows the counted reports until its process ends."""
    seen = set()
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional and event.id not in seen:
                count(connection, event)
                connection.commit()
                seen.add(event.id)


def marks_before_effect(world: World) -> None:
    """It commits the mark, and the count after that."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional and is_first(connection, event.id):
                connection.commit()
                count(connection, event)
                connection.commit()


def marks_after_effect(world: World) -> None:
    """It commits the count, and the mark after that."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                known = connection.execute("SELECT 1 FROM done WHERE id = ?", (event.id,)).fetchone()
                if known is None:
                    count(connection, event)
                    connection.commit()
                    is_first(connection, event.id)
                    connection.commit()


def commits_between_two_effects(world: World) -> None:
    """It commits one of its two counts with the mark, and the other one after that."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                if is_first(connection, event.id):
                    count(connection, event)
                    connection.commit()
                    count_task(connection, event)
                connection.commit()


def assumes_order(world: World) -> None:
    """It shows the state of the report that arrived last."""
    for event in subscribe("task.started", "task.finished", "task.failed", "task.skipped", name="states"):
        if isinstance(event, TaskEvent):
            world.effect(event.workflow_name, event.task_name, event.name)


def believes_provisional_reports(world: World) -> None:
    """It announces the failure that an engine suspects."""
    for event in failures():
        if isinstance(event, TaskFailed) and event.final is not False:
            world.effect(event.workflow_name, event.task_name)


def announces_retries(world: World) -> None:
    """It announces a failed attempt that another one follows."""
    for event in failures():
        if isinstance(event, TaskFailed) and not event.provisional:
            world.effect(event.workflow_name, event.task_name)


def expects_an_attempt(world: World) -> None:
    """It compares the number of the attempt, which a report of the engine may not have."""
    for event in failures():
        if isinstance(event, TaskFailed) and event.attempt >= event.max_attempts and not event.provisional:  # type: ignore[operator]
            world.effect(event.workflow_name, event.task_name)


def knows_tasks_only(world: World) -> None:
    """It counts one failure of a task, and takes that of the next attempt for a repetition."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                if is_first(connection, f"{event.workflow_name} {event.run_id} {event.task_name}"):
                    count(connection, event)
                connection.commit()


def forgets_the_workflow(world: World) -> None:
    """It knows attempts by the id of their run, which runs of two workflows may share."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                if is_first(connection, f"{event.run_id} {event.task_name} {event.attempt}"):
                    count(connection, event)
                connection.commit()


def counts_reporters(world: World) -> None:
    """It counts the failure that two reporters report twice."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and event.attempt is not None:
                if is_first(connection, f"{event.id} {event.reported_by}"):
                    count(connection, event)
                connection.commit()


def passes_over_errors(world: World) -> None:
    """It goes on after an error, as if the effect had happened."""
    for event in failures():
        try:
            if is_final(event):
                world.effect(event.workflow_name, event.task_name)
        except OSError:
            pass
        event.ack()


def expects_the_start_first(world: World) -> None:
    """It measures the time since the start, which may arrive later or in another process."""
    started = {}
    for event in subscribe("task.started", "task.failed", name="times", every_report=True):
        if isinstance(event, TaskStarted):
            started[event.workflow_name, event.run_id, event.task_name] = event.time
        elif is_final(event):
            _ = event.time - started[event.workflow_name, event.run_id, event.task_name]
            world.effect(event.workflow_name, event.task_name)


def collects_in_memory(world: World) -> None:
    """It announces at its end, when the events are acknowledged."""
    found = [event for event in failures() if is_final(event)]
    for event in found:
        world.effect(event.workflow_name, event.task_name)


def has_no_name(world: World) -> None:
    """It misses what happens while its process does not run."""
    for event in subscribe("task.failed", every_report=True):
        if is_final(event):
            world.effect(event.workflow_name, event.task_name)


def forgets_keys_too_early(world: World) -> None:
    """It forgets an id after an hour, and a repetition may come a day later."""
    with database(world) as connection:
        for event in failures():
            if isinstance(event, TaskFailed) and not event.provisional:
                connection.execute("DELETE FROM done WHERE at < ?", (world.clock() - 3600,))
                new = connection.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", (event.id, world.clock()))
                if new.rowcount:
                    count(connection, event)
                connection.commit()


def sums_up_at_the_end_of_the_run(world: World) -> None:
    """It announces the failures that it knows when the run ends; another may arrive later."""
    known: dict[Any, set[Any]] = {}
    for event in subscribe("task.failed", "workflow.failed", name="sums", every_report=True):
        if is_final(event):
            known.setdefault(event.source, set()).add((event.workflow_name, event.task_name))
        elif isinstance(event, WorkflowFailed):
            for each in sorted(known.pop(event.source, ())):
                world.effect(*each)


def failures_of_ended_runs(facts: Sequence[Event]) -> list[Any]:
    """Return the failed tasks of the runs that have ended."""
    ended = {event.workflow_name for event in facts if isinstance(event, WorkflowFailed)}
    return [each for each in final_failures(facts) if each[0] in ended]


def ignores_later_attempts(world: World) -> None:
    """It takes the first end of a task for the last one."""
    with database(world) as connection:
        for event in subscribe("task.finished", "task.failed", name="ends", every_report=True):
            is_end = isinstance(event, TaskEnd) and is_first(connection, f"{event.workflow_name} {event.task_name}")
            if is_end and is_final(event):
                world.effect(event.workflow_name, event.task_name)
            connection.commit()


CORRECT = {
    "announcer": Case(announcer, final_failures, announced),
    "counter": Case(counter, lambda facts: [attempts_failed(facts)] * 2, counted_twice),
    "states": Case(states, last_states, newest_states),
}
MISTAKEN = {
    each.start.__name__: each
    for each in (
        Case(acknowledges_first, final_failures, announced),
        Case(forgets_repetitions, attempts_failed, counted),
        Case(remembers_in_memory, attempts_failed, counted),
        Case(marks_before_effect, attempts_failed, counted),
        Case(marks_after_effect, attempts_failed, counted),
        Case(commits_between_two_effects, lambda facts: [attempts_failed(facts)] * 2, counted_twice),
        Case(assumes_order, last_states, shown_states),
        Case(believes_provisional_reports, final_failures, announced),
        Case(announces_retries, final_failures, announced),
        Case(expects_an_attempt, final_failures, announced),
        Case(knows_tasks_only, attempts_failed, counted),
        Case(forgets_the_workflow, attempts_failed, counted),
        Case(counts_reporters, attempts_failed, counted),
        Case(passes_over_errors, final_failures, announced),
        Case(expects_the_start_first, final_failures, announced),
        Case(collects_in_memory, final_failures, announced),
        Case(has_no_name, final_failures, announced),
        Case(forgets_keys_too_early, attempts_failed, counted),
        Case(sums_up_at_the_end_of_the_run, failures_of_ended_runs, announced),
        Case(ignores_later_attempts, final_failures, announced),
    )
}
