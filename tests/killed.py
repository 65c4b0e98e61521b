"""
A program that publishes, and that kills or stops itself at a chosen point of the publishing or the delivery.

Its one argument is a plan. It prints "attempted <id>" before and "returned <id>" after each publish, each with one
unbuffered write. It wraps methods of the library, in this process only. Not here: the consequences
(test_kill_points.py, test_processes.py).
"""

import functools
import itertools
import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

# Imported here, before the user changes: another user may not have the permission to read the files of this
# interpreter.
import dkist_processing_core.delivery.drainer  # noqa: F401
from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import TaskProgressed
from dkist_processing_core.journal import Journal, takeover
from dkist_processing_core.journal._file_format import FileFormat
from dkist_processing_core.journal.message import Message
from tests.facts import progressed

_SECONDS = 100.0


@dataclass(frozen=True)
class Plan:
    """
    The plan of the program: the events that it publishes, and the point at which it kills or stops itself.
    """

    name: str
    """The prefix of its tasks' names, so that no two plans report the same occurrence."""
    point: str = ""
    """A key of `POINTS`; empty for a program that ends normally."""
    occurrence: int = 1
    """The occurrence of the point at which the signal is sent."""
    signal: int = signal.SIGKILL
    sizes: tuple[int, ...] = (1,)
    """The numbers of events that are published together, in turn."""
    tasks: int = 1
    limit: int = 1
    """The number of events after which it ends normally."""
    pause: float = 0.0
    """The time in seconds for which it waits for a delivery after each publish."""
    timeout: float = 2.0
    """The timeout with which it closes its publisher."""
    empties: bool = False
    """Whether it waits until the outbox is empty."""
    forks: bool = False
    """Whether a fork publishes the same number of events through the same publisher."""
    user: int | None = None
    """The user as whom it publishes, with only that user's group and `group`."""
    group: int = 0

    @property
    def as_argument(self) -> str:
        """
        Return the plan as the program's argument.
        """
        return json.dumps(asdict(self))


class Trap:
    """
    A point that the program may pass a number of times before it kills or stops itself there.
    """

    def __init__(self, occurrence: int, number: int) -> None:
        """
        Set the occurrence at which the signal of this number is sent.
        """
        self._left = occurrence
        self._signal = number

    def is_due(self) -> bool:
        """
        Count one occurrence, and return True if it is the chosen one.
        """
        self._left -= 1
        return self._left == 0

    def spring(self) -> None:
        """
        Kill or stop the process here. The signal is sent to this thread, so that no further instruction runs.
        """
        signal.pthread_kill(threading.get_ident(), self._signal)

    def step(self) -> None:
        """
        Count one occurrence, and spring at the chosen one.
        """
        if self.is_due():
            self.spring()


def before(trap: Trap, owner: type | ModuleType, name: str) -> None:
    """
    Set a trap at the entry of a method.
    """
    method = getattr(owner, name)

    @functools.wraps(method)
    def trapped(*args: Any, **options: Any) -> Any:
        trap.step()
        return method(*args, **options)

    setattr(owner, name, trapped)


def after(trap: Trap, owner: type | ModuleType, name: str) -> None:
    """
    Set a trap at the return of a method.
    """
    method = getattr(owner, name)

    @functools.wraps(method)
    def trapped(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        trap.step()
        return result

    setattr(owner, name, trapped)


def inside(trap: Trap, owner: type | ModuleType, name: str, statement: str) -> None:
    """
    Set a trap inside a transaction of a method or function on a journal, right before SQLite runs a statement.
    """
    method = getattr(owner, name)

    def heard(text: str) -> None:
        if text.startswith(statement):
            trap.step()

    @functools.wraps(method)
    def trapped(journal: Journal, *args: Any, **options: Any) -> Any:
        journal._connection.set_trace_callback(heard)
        try:
            return method(journal, *args, **options)
        finally:
            journal._connection.set_trace_callback(None)

    setattr(owner, name, trapped)


def making(trap: Trap, statement: str) -> None:
    """
    Set a trap in the creation of a journal's file, right before SQLite runs a statement.
    """
    prepare = FileFormat.prepare

    def heard(text: str) -> None:
        if text.startswith(statement):
            trap.step()

    @functools.wraps(prepare)
    def trapped(of: FileFormat, connection: sqlite3.Connection, path: Path, destination: str) -> None:
        connection.set_trace_callback(heard)
        prepare(of, connection, path, destination)
        connection.set_trace_callback(None)

    setattr(FileFormat, "prepare", trapped)  # noqa: B010 - a type checker would rightly refuse the plain assignment


def flushed(trap: Trap) -> None:
    """
    Set a trap right after a message was written to the socket.
    """
    send = AmqpLink.send

    @functools.wraps(send)
    def trapped(link: AmqpLink, key: int, message: Message) -> None:
        send(link, key, message)
        if trap.is_due():
            assert link._connection is not None
            later = link._connection.ioloop.add_callback_threadsafe
            # A turn of the loop writes first, and then calls the functions that were added before it.
            later(lambda: later(trap.spring))

    setattr(AmqpLink, "send", trapped)  # noqa: B010 - a type checker would rightly refuse the plain assignment


POINTS: dict[str, Callable[[Trap], None]] = {
    "before-write, inserting": lambda trap: inside(trap, Journal, "append", "INSERT"),
    "before-write, committing": lambda trap: inside(trap, Journal, "append", "COMMIT"),
    "written": lambda trap: after(trap, Journal, "append"),
    "sent, not flushed": lambda trap: after(trap, AmqpLink, "send"),
    "sent, flushed": flushed,
    "confirmed, unread": lambda trap: before(trap, AmqpLink, "_on_confirm"),
    "confirmed, read": lambda trap: before(trap, Journal, "remove_confirmed"),
    "deleted, committing": lambda trap: inside(trap, Journal, "remove_confirmed", "COMMIT"),
    "deleted": lambda trap: after(trap, Journal, "remove_confirmed"),
    "making, empty": lambda trap: making(trap, "BEGIN"),
    "making, without WAL": lambda trap: making(trap, "PRAGMA journal_mode"),
    "making, with WAL": lambda trap: making(trap, "BEGIN IMMEDIATE"),
    "making, inside": lambda trap: making(trap, "CREATE TABLE sent_once"),
    "making, committing": lambda trap: making(trap, "PRAGMA user_version = "),
    "taking over, copying": lambda trap: inside(trap, takeover, "_append", "COMMIT"),
    "taking over, copied": lambda trap: before(trap, takeover, "note_taken_over"),
    "taking over, removed": lambda trap: after(trap, takeover, "note_taken_over"),
}
"""The points by kind and place; each function sets a trap there."""


def write(text: str) -> None:
    """
    Print a line that is written when this function returns.
    """
    os.write(1, text.encode())


def groups_of(plan: Plan) -> Iterator[list[TaskProgressed]]:
    """
    Yield the events of a plan in groups that are published together.
    """
    events = (
        progressed(f"{plan.name}-{number % plan.tasks}", number // plan.tasks, note="x" * (number % 7 * 100))
        for number in range(plan.limit)
    )
    sizes = itertools.cycle(plan.sizes)
    while group := list(itertools.islice(events, next(sizes))):
        yield group


def become(user: int, group: int) -> None:
    """
    Change to another user with one more group; before that, load the files that this user could not read.
    """
    open_bus(DKISTProcessingCoreConfiguration())
    "localhost".encode("idna")
    os.setgroups([group])
    os.setgid(user)
    os.setuid(user)


def publish(plan: Plan, publisher: Publisher) -> float:
    """
    Publish all events of a plan and return how long the slowest publish took.
    """
    slowest = 0.0
    for group in groups_of(plan):
        write("".join(f"attempted {event.id}\n" for event in group))
        began = time.monotonic()
        publisher.publish(*group)
        slowest = max(slowest, time.monotonic() - began)
        write("".join(f"returned {event.id}\n" for event in group))
        if plan.pause:
            publisher.flush(plan.pause)
    return slowest


def run(plan: Plan, publisher: Publisher) -> float:
    """
    Publish, close, and return how long the slowest publish took.
    """
    slowest = publish(plan, publisher)
    deadline = time.monotonic() + _SECONDS
    turn = threading.Event()
    while plan.empties and publisher._shelf.count_waiting() and time.monotonic() < deadline:
        turn.wait(0.02)
    publisher.close(plan.timeout)
    return slowest


def main(plan: Plan) -> None:
    """
    Carry out the plan.
    """
    os.umask(0o077)
    if plan.point:
        POINTS[plan.point](Trap(plan.occurrence, plan.signal))
    if plan.user is not None:
        become(plan.user, plan.group)
    settings = DKISTProcessingCoreConfiguration()
    began = time.monotonic()
    publisher = Publisher.open(settings)
    if plan.forks:
        half = Plan(**asdict(plan) | {"name": f"{plan.name}-fork"})
        fork = multiprocessing.get_context("fork").Process(target=run, args=(half, publisher))
        fork.start()
    slowest = run(plan, publisher)
    write(f"took {time.monotonic() - began} slowest {slowest}\n")
    if plan.forks:
        fork.join(_SECONDS)
        sys.exit(fork.exitcode)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
