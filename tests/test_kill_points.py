"""
A publishing process is killed at every point of the publishing and the delivery, and no published event is lost.

Not here: a broker that is killed while a publisher runs (test_broker_restart.py), and processes that are stopped
(test_processes.py).
"""

import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkist_processing_core.delivery.publisher import Publisher
from tests.arrivals import Arrivals, Child, Ledger, ids_on_disk
from tests.facts import started
from tests.killed import POINTS, Plan
from tests.running import ROOT
from tests.services.broker import Broker
from tests.test_delivery import settings_of, unreachable
from tests.waiting import wait_until

SEED_VARIABLE = "KILL_SEED"
KINDS = ("before-write", "written", "sent", "confirmed", "deleted")
ANYWHERE = "anywhere"
# The latest occurrence of a point that may be chosen. The broker confirms many messages at once, so later points have
# fewer.
LATEST = {"before-write": 40, "written": 40, "sent": 40, "confirmed": 8, "deleted": 8}
LONGEST_LIFE = 0.4
WAYS = ("the next task", "a new process", "outbox drain", "this process")
# Longer than a publisher waits before it tries an unreachable broker again.
PATIENCE = 60.0
# On a busy machine, the first answer of a healthy broker may take longer than a task's default timeout. The task would
# then not try the broker again, and none of its later points would be reached.
UNHURRIED = {"EVENT_FLUSH_TIMEOUT": "20"}


@pytest.fixture
def seed() -> int:
    """
    Return a random seed, or the one of the environment.
    """
    return int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))


class Host:
    """
    A host with one outbox and one broker, on which tasks are killed repeatedly.
    """

    def __init__(self, broker: Broker, chance: random.Random, folder: Path) -> None:
        """
        Start with an empty outbox.
        """
        self._broker = broker
        self._chance = chance
        self._folder = folder
        self._settings = settings_of(broker)
        self._numbers = itertools.count()
        self.ledger = Ledger(self._settings, Arrivals(broker, self._settings))
        self.deliveries = dict.fromkeys(WAYS, 0)

    def kill(self, point: str, *, with_broker: bool = False) -> None:
        """
        Start a task that publishes, and kill it at a point, or at any time, and then possibly also the broker.
        """
        kind = point.partition(",")[0]
        with self._start(
            point="" if kind == ANYWHERE else point,
            occurrence=self._chance.randint(1, LATEST.get(kind, 1)),
            sizes=self._chance.choice([(1,), (1, 1, 1, 4), (3,)]),
            tasks=self._chance.choice([1, 1, 2]),
            pause=self._chance.choice([0.0, 0.0, 0.02]),
            limit=20_000,
        ) as child:
            if kind == ANYWHERE:
                child.wait_for_output()
                if with_broker:
                    self._broker.node.kill()
                child.wait_for_end(self._chance.uniform(0.0, LONGEST_LIFE))
                child.process.kill()
            assert child.wait_for_end(PATIENCE), child.output
            assert child.process.wait() == -signal.SIGKILL, child.output
        self.ledger.note_child(child, kind)
        if with_broker:
            self._broker.node.start()

    def _start(self, **options: object) -> Child:
        number = next(self._numbers)
        plan = Plan(name=f"host-{number}", **options)  # type: ignore[arg-type]  # they are checked by the class itself
        return Child(plan, self._broker.env | UNHURRIED, self._folder / f"{number}.txt")

    def deliver(self, way: str) -> None:
        """
        Deliver the remaining messages in one of the possible ways, and check that all have arrived.
        """
        self.deliveries[way] += 1
        if way == "the next task":
            return
        if way == "a new process":
            with self._start(empties=True) as child:
                assert child.wait_for_end(PATIENCE), child.output
                assert child.process.wait() == 0, child.output
            self.ledger.note_child(child, "none")
        elif way == "outbox drain":
            command = [sys.executable, "-m", "dkist_processing_core.cli", "outbox", "drain"]
            environment = os.environ | self._broker.env
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            event = started(f"host-{next(self._numbers)}")
            with Publisher.open(self._settings) as publisher:
                publisher.publish(event)
                wait_until(lambda: self.ledger.books.pending == 0, PATIENCE)
            self.ledger.note([event.id], [event.id], "none")
        self.ledger.assert_nothing_lost()


def points(chance: random.Random, count: int) -> list[str]:
    """
    Return `count` points in random order: 4 in 25 of each kind, with its places in turn, and the rest at any time.
    """
    found = []
    for kind in KINDS:
        places = [place for place in POINTS if place.partition(",")[0] == kind]
        chance.shuffle(places)
        found += list(itertools.islice(itertools.cycle(places), count * 4 // 25))
    found += [ANYWHERE] * (count - len(found))
    chance.shuffle(found)
    return found


def ways(chance: random.Random) -> Iterator[str]:
    """
    Yield the ways of delivery, all of them in turn, in random order.
    """
    while True:
        yield from chance.sample(WAYS, len(WAYS))


def summary(host: Host, chosen: list[str], seed: int) -> str:
    """
    Return a readable summary of the kills and deliveries.
    """
    kinds = [point.partition(",")[0] for point in chosen]
    kills = ", ".join(f"{kind} {kinds.count(kind)}" for kind in (*KINDS, ANYWHERE))
    delivered = ", ".join(f"{way} {count}" for way, count in host.deliveries.items())
    return (
        f"{len(chosen)} kills: {kills}; {SEED_VARIABLE}={seed} repeats them\n"
        f"left to: {delivered}\n{host.ledger.table()}"
    )


@pytest.mark.timeout(1800)  # less than a minute on an idle machine, several on a busy one
def test_whatever_instant_a_publisher_is_killed_at_nothing_is_lost(
    broker: Broker, tmp_path: Path, print_line: Callable[[str], None], seed: int
) -> None:
    """
    After 25 kills at all points: returned events ⊆ received ⊆ attempted, duplicates are equal, and the counts are
    exact.
    """
    chance = random.Random(seed)
    host, delivering, chosen = Host(broker, chance, tmp_path), ways(chance), points(chance, 25)
    try:
        for point in chosen:
            host.kill(point)
            host.deliver(next(delivering))
        host.deliver("this process")
    finally:
        print_line(summary(host, chosen, seed))

    host.ledger.assert_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_nothing_is_lost_in_hundreds_of_kills_of_publishers_and_some_of_the_broker(
    broker: Broker, tmp_path: Path, print_line: Callable[[str], None], seed: int
) -> None:
    """
    No event is lost in 200 kills. In five of those at any time, the broker is killed in the same second.
    """
    chance = random.Random(seed)
    host, delivering, chosen = Host(broker, chance, tmp_path), ways(chance), points(chance, 200)
    broken = set(chance.sample([place for place, point in enumerate(chosen) if point == ANYWHERE], 5))
    try:
        for place, point in enumerate(chosen):
            host.kill(point, with_broker=place in broken)
            # A process does not try a broker again for a while after it was unreachable, and a task reaches its points
            # only afterwards.
            host.deliver("this process" if place in broken else next(delivering))
        host.deliver("this process")
    finally:
        print_line(f"{summary(host, chosen, seed)}\nthe broker was killed and restarted {len(broken)} times")

    host.ledger.assert_nothing_lost()


@pytest.mark.parametrize(
    ("point", "may_return", "waiting", "arrived"),
    [
        ("before-write, inserting", False, 0, 0),
        ("before-write, committing", False, 0, 0),
        ("written", False, 1, 0),
        ("sent, not flushed", True, 1, 0),
        ("sent, flushed", True, 1, 1),
        ("confirmed, unread", True, 1, 1),
        ("confirmed, read", True, 1, 1),
        ("deleted, committing", True, 1, 1),
        ("deleted", True, 0, 1),
    ],
)
def test_every_point_lies_where_its_name_says(
    broker: Broker,
    tmp_path: Path,
    point: str,
    may_return: bool,  # noqa: FBT001
    waiting: int,
    arrived: int,
) -> None:
    """
    A publisher that is killed at a point with its first event leaves the event on disk, at the broker, at both or
    nowhere.
    """
    settings = settings_of(broker)
    arrivals = Arrivals(broker, settings)

    with Child(Plan("A", point=point), broker.env | UNHURRIED, tmp_path / "said.txt") as child:
        assert child.wait_for_end(PATIENCE), child.output
        assert child.process.wait() == -signal.SIGKILL, child.output

    wait_until(lambda: arrivals.read() == arrived)
    # If the broker had not confirmed the event, the kill may have come before or after the output of its publish.
    assert may_return or not child.output_of("returned")
    assert (len(ids_on_disk(settings)), len(arrivals.received)) == (waiting, arrived)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("making")])
def test_a_file_whose_making_was_cut_short_is_made_by_the_next(refusing_port: int, tmp_path: Path, point: str) -> None:
    """
    If a host's first process is killed while it creates the journal's file, the second process publishes normally.
    """
    settings = unreachable(refusing_port)
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    environment = {"MESH_CONFIG": json.dumps(mesh)}

    with Child(Plan("A", point=point), environment, tmp_path / "first.txt") as first:
        assert first.wait_for_end(PATIENCE), first.output
        assert first.process.wait() == -signal.SIGKILL, first.output
    with Child(Plan("B"), environment, tmp_path / "second.txt") as second:
        assert second.wait_for_end(PATIENCE), second.output
        assert second.process.wait() == 0, second.output

    assert first.output_of("returned") == []
    assert len(second.output_of("returned")) == 1
    assert ids_on_disk(settings) == set(second.output_of("returned"))
