"""
A program that starts processes of one consumer again and again, and kills each at a random moment.

Its one argument is a plan. The processes are forks, so that most of their short lives is work. Not here: the check of
what they did (test_kills).
"""

import json
import os
import random
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, text

# Imported before the forks, which use these modules at once.
import dkist_processing_core.bus.amqp.named_queue
import dkist_processing_core.consumer.service  # noqa: F401
from dkist_processing_core import Consumer
from dkist_processing_core.events import TaskProgressed

KILLER = 2**31
"""The sequence number of an event whose handler kills its process."""
START_SHARE, LONGEST_START = 0.2, 0.2
"""Which share of the processes is killed at its start, and how many seconds after it."""
LONGEST_EFFECT = 0.01
PATIENCE = 1.0
FAILS_EACH = 7
"""Of how many events of a run one fails when a process calls its handler for the first time."""


@dataclass(frozen=True)
class Plan:
    """
    The consumer, and the lives of its processes.
    """

    inbox: str
    seed: int
    kills: int = 40
    processes: int = 1
    """How many live at a time."""
    most_effects: int = 25
    """After at most how many effects of all of them one is killed."""
    workers: int = 2
    batch_size: int = 1
    ordered: bool = True
    on_arrival: bool = False
    """Whether it takes batches of reports in the transactions in which they arrive."""

    @property
    def as_argument(self) -> str:
        """
        Return the plan as the program's argument.
        """
        return json.dumps(asdict(self))


def consumer_of(plan: Plan, on_effect: Callable[[], object] | None = None) -> Consumer:
    """
    Return the consumer of a plan, whose handler writes one row for each event, and then calls `on_effect`.
    """
    consumer = Consumer(
        "killed",
        inbox=plan.inbox,
        workers=plan.workers,
        batch_size=plan.batch_size,
        ordered="run" if plan.ordered else None,
        every_report=plan.on_arrival,
        first_pause=0.0,
        longest_pause=0.0,
        # Of an event that fails once in each process, none may be dead.
        max_tries=plan.kills + 10,
    )

    failed: set[tuple[str, int]] = set()

    def fail_once(event: TaskProgressed) -> None:
        key = event.run_id, event.sequence
        if event.sequence % FAILS_EACH == FAILS_EACH - 1 and key not in failed:
            failed.add(key)
            raise ValueError(key)

    def act(event: TaskProgressed, transaction: Connection) -> None:
        if event.sequence == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
        values = {"run": event.run_id, "sequence": event.sequence}
        transaction.execute(text("INSERT INTO effect (run, sequence) VALUES (:run, :sequence)"), values)
        if not plan.on_arrival:
            # What fails in a batch on arrival is handled later, so that few events would be handled on arrival.
            fail_once(event)
        if on_effect is not None:
            on_effect()

    def act_on_all(events: Sequence[TaskProgressed], transaction: Connection) -> None:
        for event in events:
            act(event, transaction)

    if plan.on_arrival:
        consumer.take_batches(act_on_all)
    else:
        consumer.on("task.progressed")(act)
    return consumer


def in_fork(action: Callable[[], object]) -> int:
    """
    Call `action` in a fork, and return its process id; the fork ends with status 0 if it returns.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return pid


def read(effects: int, count: int) -> None:
    """
    Return when so many effects were reported, or none for a while.
    """
    while count > 0 and select.select([effects], [], [], PATIENCE)[0]:
        count -= len(os.read(effects, count))


def kill_again_and_again(plan: Plan) -> None:
    """
    Keep a number of processes alive, and kill one after the other.
    """
    chance, turn = random.Random(plan.seed), threading.Event()
    living: list[int] = []
    effects, on_effect = os.pipe()
    consumer = consumer_of(plan, lambda: os.write(on_effect, b"."))
    # For forks that have not begun to run the consumer, which handles the signal by then.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for _ in range(plan.kills):
        while len(living) < plan.processes:
            living.append(in_fork(consumer.run))
        if chance.random() < START_SHARE:
            turn.wait(chance.uniform(0.0, LONGEST_START))
        else:
            read(effects, chance.randint(1, plan.most_effects))
            turn.wait(chance.uniform(0.0, LONGEST_EFFECT))
        pid = living.pop(chance.randrange(len(living)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for pid in living:
        os.kill(pid, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"a process ended with {status}"


def finish(plan: Plan) -> None:
    """
    Handle all that is left, in as many processes as that takes.
    """
    while os.waitstatus_to_exitcode(os.waitpid(in_fork(lambda: consumer_of(plan).run(until_idle=True)), 0)[1]):
        pass


if __name__ == "__main__":
    given = Plan(**json.loads(sys.argv[1]))
    kill_again_and_again(given)
    finish(given)
