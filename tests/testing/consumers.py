"""
Consumers with an inbox, correct ones and ones with a mistake each, for the tests of the simulation.

Not here: loops over `subscribe` (loops).
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, text

from dkist_processing_core import Consumer
from dkist_processing_core.events import Event, TaskFailed
from dkist_processing_core.testing import World
from tests.testing.loops import Case, announced, attempts_failed, final_failures, is_final

LATE = 30 * 86_400.0
"""How long a provisional report waits here: in the histories, a firm one may come days later."""


def make_tables(transaction: Connection) -> None:
    """Create the tables of the effects, beside those of the inbox."""
    transaction.execute(text("CREATE TABLE IF NOT EXISTS count (workflow PRIMARY KEY, failures)"))
    transaction.execute(text("CREATE TABLE IF NOT EXISTS history (number INTEGER PRIMARY KEY, run, name)"))


def count(transaction: Connection, event: Event) -> None:
    """Count a failed attempt."""
    make_tables(transaction)
    statement = "INSERT INTO count VALUES (:workflow, 1) ON CONFLICT DO UPDATE SET failures = failures + 1"
    transaction.execute(text(statement), {"workflow": event.workflow_name})


def record(transaction: Connection, event: Event) -> None:
    """Record an event behind those of its run."""
    make_tables(transaction)
    row = {"run": event.workflow_name, "name": event.id}
    transaction.execute(text("INSERT INTO history (run, name) VALUES (:run, :name)"), row)


def rows(world: World, query: str) -> list[Any]:
    """Return the rows of a query in the database of the inbox; none without the table."""
    with closing(sqlite3.connect(world.folder / "inbox.db")) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


def counted(world: World) -> dict[str, int]:
    """Return the counts."""
    return dict(rows(world, "SELECT workflow, failures FROM count ORDER BY 1"))


def counted_outside(world: World) -> dict[str, int]:
    """Return the counts in a database that is not the one of the inbox."""
    with closing(sqlite3.connect(world.folder / "own.db")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS count (workflow PRIMARY KEY, failures)")
        return dict(connection.execute("SELECT workflow, failures FROM count ORDER BY 1").fetchall())


def counts(_: World) -> Consumer:
    """Count each failed attempt once, in the transaction of the inbox."""
    consumer = Consumer("counts", provisional_after=LATE)

    @consumer.on("task.failed")
    def handle(event: TaskFailed, transaction: Connection) -> None:
        if not event.provisional:
            count(transaction, event)

    return consumer


def counts_in_batches(_: World) -> Consumer:
    """Count several attempts in one transaction."""
    consumer = Consumer("counts", provisional_after=LATE, batch_size=5)

    @consumer.on("task.failed")
    def handle(event: TaskFailed, transaction: Connection) -> None:
        if not event.provisional:
            count(transaction, event)

    return consumer


def announces(world: World) -> Consumer:
    """Announce each final failure at least once, and try again what is refused."""
    consumer = Consumer("announces", provisional_after=LATE)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if is_final(event):
            world.effect(event.workflow_name, event.task_name)

    return consumer


def announces_after_a_minute(world: World) -> Consumer:
    """Announce failures that are final as far as it knows, also those that only the engine reports."""
    consumer = Consumer("announces")

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if event.final is not False:
            world.effect(event.workflow_name, event.task_name)

    return consumer


def records_in_order(world: World) -> Consumer:
    """Record the events of a run in their order of arrival, although some are refused at first."""
    consumer = Consumer("records", ordered="run", provisional=True)

    @consumer.on()
    def handle(event: Event, transaction: Connection) -> None:
        record(transaction, event)
        world.effect(event.id)

    return consumer


def is_in_order(world: World) -> bool:
    """Return True if each event was handled, and the records of each run are in their order of arrival in the inbox."""
    query = "SELECT workflow, key FROM dkist_core_inbox WHERE state <> 'cancelled' ORDER BY workflow, seq"
    arrived = rows(world, query)
    return rows(world, "SELECT run, name FROM history ORDER BY run, number") == arrived


# Consumers with one mistake each.


def counts_in_another_database(world: World) -> Consumer:
    """It counts outside of the transaction that marks the event."""
    consumer = Consumer("counts", provisional_after=LATE)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if not event.provisional:
            counted_outside(world)
            with closing(sqlite3.connect(world.folder / "own.db")) as connection, connection:
                statement = "INSERT INTO count VALUES (?, 1) ON CONFLICT DO UPDATE SET failures = failures + 1"
                connection.execute(statement, (event.workflow_name,))

    return consumer


def keeps_count_in_memory(_: World) -> Consumer:
    """It stores a count that its process has begun at 0."""
    consumer = Consumer("counts", provisional_after=LATE)
    known: dict[str, int] = {}

    @consumer.on("task.failed")
    def handle(event: TaskFailed, transaction: Connection) -> None:
        if not event.provisional:
            make_tables(transaction)
            known[event.workflow_name] = known.get(event.workflow_name, 0) + 1
            row = {"workflow": event.workflow_name, "failures": known[event.workflow_name]}
            transaction.execute(text("INSERT OR REPLACE INTO count VALUES (:workflow, :failures)"), row)

    return consumer


def counts_each_report(_: World) -> Consumer:
    """It asks for each report, and counts a failure that two reporters report twice."""
    consumer = Consumer("counts", every_report=True)

    @consumer.on("task.failed")
    def handle(event: TaskFailed, transaction: Connection) -> None:
        if event.attempt is not None:
            count(transaction, event)

    return consumer


def believes_the_engine(world: World) -> Consumer:
    """It takes provisional reports at once."""
    consumer = Consumer("announces", provisional=True)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if event.final is not False:
            world.effect(event.workflow_name, event.task_name)

    return consumer


def announces_twice(world: World) -> Consumer:
    """It has two effects, and repeats the first when the second is refused."""
    consumer = Consumer("announces", provisional_after=LATE)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if is_final(event):
            world.effect("mail", event.workflow_name, event.task_name)
            world.effect("ticket", event.workflow_name, event.task_name)

    return consumer


def ignores_refusals(world: World) -> Consumer:
    """It catches the error that would have the event tried again."""
    consumer = Consumer("announces", provisional_after=LATE)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        try:
            if is_final(event):
                world.effect(event.workflow_name, event.task_name)
        except OSError:
            return

    return consumer


def gives_up_too_early(world: World) -> Consumer:
    """It tries an event once, and leaves it among the dead letters."""
    consumer = Consumer("announces", provisional_after=LATE, max_tries=1)

    @consumer.on("task.failed")
    def handle(event: TaskFailed) -> None:
        if is_final(event):
            world.effect(event.workflow_name, event.task_name)

    return consumer


def records_in_any_order(world: World) -> Consumer:
    """It needs the order of arrival, and does not ask for it."""
    consumer = Consumer("records", provisional=True)

    @consumer.on()
    def handle(event: Event, transaction: Connection) -> None:
        record(transaction, event)
        world.effect(event.id)

    return consumer


def gives_up_the_rest_of_a_run(world: World) -> Consumer:
    """It tries an event once, and leaves the later ones of its run parked behind it."""
    consumer = Consumer("records", ordered="run", provisional=True, max_tries=1)

    @consumer.on()
    def handle(event: Event, transaction: Connection) -> None:
        record(transaction, event)
        world.effect(event.id)

    return consumer


def keeps_rows_from_its_workers(_: World) -> Consumer:
    """It claims a row itself, so that no worker handles that one, nor the later ones of its run."""
    consumer = Consumer("records", ordered="run", provisional=True)

    @consumer.on()
    def handle(event: Event, transaction: Connection) -> None:
        record(transaction, event)
        own = "SELECT max(claim) FROM dkist_core_inbox"
        next_one = "SELECT min(seq) FROM dkist_core_inbox WHERE state = 'waiting' AND claim IS NULL"
        transaction.execute(text(f"UPDATE dkist_core_inbox SET claim = ({own}) WHERE seq = ({next_one})"))

    return consumer


def each_once(facts: Sequence[Event]) -> list[Any]:
    """Return one mail and one ticket for each final failure."""
    return sorted((what, *task) for what in ("mail", "ticket") for task in final_failures(facts))


CORRECT_CONSUMERS = {
    each.start.__name__: each
    for each in (
        Case(counts, attempts_failed, counted),
        Case(counts_in_batches, attempts_failed, counted),
        Case(announces, final_failures, announced),
        Case(records_in_order, lambda _: True, is_in_order),
    )
}
MISTAKEN_CONSUMERS = {
    each.start.__name__: each
    for each in (
        Case(counts_in_another_database, attempts_failed, counted_outside),
        Case(keeps_count_in_memory, attempts_failed, counted),
        Case(counts_each_report, attempts_failed, counted),
        Case(believes_the_engine, final_failures, announced),
        Case(announces_twice, each_once),
        Case(ignores_refusals, final_failures, announced),
        Case(gives_up_too_early, final_failures, announced),
        Case(records_in_any_order, lambda _: True, is_in_order),
        Case(gives_up_the_rest_of_a_run, lambda _: True, is_in_order),
        Case(keeps_rows_from_its_workers, lambda _: True, is_in_order),
    )
}
