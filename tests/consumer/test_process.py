"""
What a handler may do to the process of its consumer: fork, and other acts that concern more than its event.

Not here: what it does with its transaction (test_acting), and the end of a process by a kill (test_kills).
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.running import run_command

if TYPE_CHECKING:
    import subprocess

FORKING = """
import os, sys, warnings
from sqlalchemy import text
from dkist_processing_core import Consumer

warnings.simplefilter("ignore", DeprecationWarning)
consumer = Consumer("actor")

def fork(name, raised=None):
    pid = os.fork()
    if pid == 0:
        if raised is not None:
            raise raised
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(name, "has forked a process that ended with", status, flush=True)

@consumer.on("task.failed")
def act(failure, transaction):
    transaction.execute(text("CREATE TABLE IF NOT EXISTS effect (task TEXT)"))
    transaction.execute(text("INSERT INTO effect VALUES (:task)"), {"task": failure.task_name})
    fork(failure.task_name, {"Raises": KeyError("missing"), "Exits": SystemExit(3)}.get(failure.task_name))

@consumer.on("task.failed")
async def act_later(failure):
    fork("async " + failure.task_name)

@consumer.every(0.01)
def work():
    fork("work")
"""


def publish(*names: str) -> None:
    """
    Put failures of tasks on the embedded journal.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*map(failed, names))


def consume(folder: Path, program: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """
    Run a consumer as the command does, until it is idle or ends.
    """
    (folder / "actors.py").write_text(program)
    return run_command("consume", "actors", "--since", "first", "--until-idle", *options, cwd=folder)


def test_a_fork_that_returns_from_a_handler_ends_and_its_parent_goes_on(tmp_path: Path, state_dir: Path) -> None:
    """
    It would go on as a second worker on the connections of its parent.
    """
    publish("Returns", "Raises", "Exits")

    ran = consume(tmp_path, FORKING)

    lines = ran.stdout.splitlines()
    assert [line for line in lines if not line.startswith("work")] == [
        "Returns has forked a process that ended with 0",
        "async Returns has forked a process that ended with 0",
        "Raises has forked a process that ended with 1",
        "async Raises has forked a process that ended with 0",
        "Exits has forked a process that ended with 3",
        "async Exits has forked a process that ended with 0",
    ]
    assert {line for line in lines if line.startswith("work")} == {"work has forked a process that ended with 0"}
    assert "act has failed in a fork of the consumer: KeyError: 'missing'\n" in ran.stderr
    assert ran.stderr.count("has ended; handled: 3, failed tries: 0, dead: 0") == 1
    with closing(sqlite3.connect(state_dir / "inbox.db")) as inbox:
        assert inbox.execute("SELECT task FROM effect").fetchall() == [("Returns",), ("Raises",), ("Exits",)]
    assert ran.returncode == 0
