"""
A consumer with an inbox: it announces each final failure, and counts the failures of each task in its database.

    dkist-core consume examples/consumers/announcer.py
"""

from sqlalchemy import Connection, text

from dkist_processing_core import Consumer
from dkist_processing_core.events import TaskFailed

TABLE = "CREATE TABLE IF NOT EXISTS failures (task TEXT PRIMARY KEY, number INTEGER)"

announcer = Consumer("announcer", ordered="run")


@announcer.on("task.failed", workflow="l0_to_l1_*")
def count(failure: TaskFailed, transaction: Connection) -> None:
    """
    Count the failures of each task. The count and the mark of the event are one transaction.
    """
    transaction.execute(text(TABLE))
    transaction.execute(
        text("INSERT INTO failures VALUES (:task, 1) ON CONFLICT (task) DO UPDATE SET number = failures.number + 1"),
        {"task": failure.task_name},
    )


@announcer.on("task.failed", workflow="l0_to_l1_*")
def announce(failure: TaskFailed) -> None:
    """
    Print a line for each failure that no other attempt follows.
    """
    if failure.final:
        print(f"{failure.workflow_name}/{failure.task_name}: {failure.summary}", flush=True)


@announcer.every(24 * 3600)
def report(transaction: Connection) -> None:
    """
    Print the count of each task once a day, in one process.
    """
    transaction.execute(text(TABLE))
    for task, number in transaction.execute(text("SELECT task, number FROM failures ORDER BY number DESC")):
        print(f"{task}: {number} failures", flush=True)
