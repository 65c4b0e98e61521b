"""
Processes of a consumer are killed at random moments: each event has its effect once, and those of a run in their order.

Not here: the program that kills them (killed).
"""

import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.settings.reading import read_settings
from tests.consumer.killed import KILLER, Plan, consumer_of
from tests.facts import progressed
from tests.running import ROOT
from tests.services.broker import Broker

SEED_VARIABLE = "KILL_SEED"
# How many kills each of the long tests makes, if not a thousand.
KILLS_VARIABLE = "KILLS"
RUNS = 20
SECONDS = 100.0
# The broker is a fixture that only these cases request.
ON_A_BROKER = [pytest.mark.rabbitmq, pytest.mark.versions]
# `make test` runs one type of queue on each version of RabbitMQ, and `make soak` both.
ON_ONE_BROKER = [pytest.mark.rabbitmq]
pytestmark = pytest.mark.processes


class Actor:
    """
    A consumer that is killed, with its bus and its database.
    """

    def __init__(self, plan: Plan) -> None:
        """
        Make its tables, and the place where its events wait.
        """
        self.plan = plan
        self._engine = create_engine(plan.inbox)
        key = "INTEGER PRIMARY KEY" if plan.inbox.startswith("sqlite") else "BIGSERIAL PRIMARY KEY"
        with self._engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE effect (id {key}, run TEXT, sequence INTEGER)"))
        consumer_of(plan).run(until_idle=True)

    def publish(self, count: int, *, killer: str | None = None) -> None:
        """
        Publish so many events in turn for each run, and for one run first an event that kills its process.
        """
        events = [progressed("A", number, run_id=f"r{run}") for number in range(count) for run in range(RUNS)]
        if killer is not None:
            events.insert(len(events) // 2, progressed("A", KILLER, run_id=killer))
        with Publisher.open(read_settings()) as publisher:
            for at in range(0, len(events), 500):
                publisher.publish(*events[at : at + 500])
            assert publisher.flush(SECONDS)

    def run(self) -> str:
        """
        Run the program to its end, and return its log.
        """
        ran = subprocess.run(
            [sys.executable, "-m", "tests.consumer.killed", self.plan.as_argument],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=20 * SECONDS,
        )
        assert ran.returncode == 0, ran.stderr[-5000:]
        return ran.stderr

    @property
    def faults(self) -> dict[str, list[tuple[str, int]]]:
        """
        The events of which the effect was missed or doubled, and those that came after a later one of their run.
        """
        with self._engine.connect() as connection:
            found_rows = connection.execute(text("SELECT run, sequence FROM effect ORDER BY id")).all()
        rows = [(str(run), int(sequence)) for run, sequence in found_rows]
        found, last = Counter(rows), dict[str, int]()
        inverted: list[tuple[str, int]] = []
        for run, sequence in rows:
            if sequence < last.get(run, -1):
                inverted.append((run, sequence))
            last[run] = sequence
        whole = {(f"r{run}", number) for number in range(self.count) for run in range(RUNS)}
        return {
            "missed": sorted(whole - set(found)),
            "doubled": [row for row, count in found.items() if count > 1],
            "inverted": inverted,
        }

    count = 0

    def rows(self, state: str) -> list[str]:
        """
        Return the reasons of the rows in a state.
        """
        query = text("SELECT reason FROM dkist_core_inbox WHERE state = :state")
        with self._engine.connect() as connection:
            return list(connection.scalars(query, {"state": state}))

    def close(self) -> None:
        """
        Close the connections.
        """
        self._engine.dispose()


@pytest.fixture
def seed() -> int:
    """
    Return a random seed, or the one of the environment.
    """
    return int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))


@pytest.fixture
def actor_of(
    request: pytest.FixtureRequest,
    state_dir: Path,
    use: Callable[[Broker], None],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> Iterator[Callable[..., Actor]]:
    """
    A function that returns a consumer on the embedded bus, or with a queue of a type, and with a new database.
    """
    opened: list[Actor] = []
    created: list[str] = []

    def actor_of(bus: str, kind: str, **plan: Any) -> Actor:
        if bus != "embedded":
            monkeypatch.setenv("ISB_QUEUE_TYPE", bus)
            use(request.getfixturevalue("broker"))
        url = f"sqlite:///{state_dir}/inbox.db"
        if kind == "postgresql":
            server = request.getfixturevalue("postgres")
            created.append(f"killed_{secrets.token_hex(4)}")
            server.create_database(created[-1])
            url = server.url(created[-1], driver="psycopg")
        opened.append(Actor(replace(Plan(url, seed), **plan)))
        return opened[-1]

    yield actor_of
    for each in opened:
        each.close()
    for name in created:
        request.getfixturevalue("postgres").drop_database(name)


ON_ARRIVAL = {"batch_size": 500, "workers": 1, "ordered": False, "on_arrival": True}
CASES = [
    ("embedded", "sqlite", {"processes": 2, "batch_size": 5}),
    pytest.param("classic", "postgresql", {"processes": 2}, marks=ON_ONE_BROKER),
    pytest.param("quorum", "sqlite", {}, marks=ON_A_BROKER),
]


def check(actor: Actor, count: int, print_line: Callable[[str], None]) -> None:
    """
    Publish, kill, and compare the effects with the events.
    """
    print_line(f"{SEED_VARIABLE}={actor.plan.seed}")
    actor.count = count
    actor.publish(count)

    actor.run()

    assert [kind for kind, found in promised(actor).items() if found] == []
    assert actor.rows("dead") == []


def promised(actor: Actor) -> dict[str, list[tuple[str, int]]]:
    """
    Return the faults that the plan excludes: without an order, two of a run may be handled at the same time.
    """
    return {kind: found for kind, found in actor.faults.items() if actor.plan.ordered or kind != "inverted"}


@pytest.mark.parametrize(("bus", "kind", "plan"), CASES)
def test_each_event_has_its_effect_once_and_in_order_however_often_a_consumer_is_killed(
    actor_of: Callable[..., Actor], print_line: Callable[[str], None], bus: str, kind: str, plan: dict[str, int]
) -> None:
    """
    This holds with several processes of the consumer, on each bus and in each database.
    """
    check(actor_of(bus, kind, **plan), 60, print_line)


@pytest.mark.parametrize(
    ("bus", "kind", "plan"),
    [
        pytest.param("classic", "postgresql", {"processes": 2}, marks=ON_ONE_BROKER),
        pytest.param("quorum", "sqlite", {}, marks=ON_A_BROKER),
        ("embedded", "sqlite", {"batch_size": 5, "ordered": False}),
        ("embedded", "postgresql", {}),
        ("embedded", "sqlite", ON_ARRIVAL),
        pytest.param("classic", "postgresql", ON_ARRIVAL, marks=ON_ONE_BROKER),
    ],
)
def test_an_event_that_kills_its_consumer_is_dead_and_all_others_are_handled(
    actor_of: Callable[..., Actor], bus: str, kind: str, plan: dict[str, int]
) -> None:
    """
    The number of its starts does not depend on what a broker counts. In an order it holds back its own run alone.
    """
    actor = actor_of(bus, kind, kills=0, **plan)
    # Events are handled on arrival when none can be a repetition any more.
    actor.count = 200 if plan is ON_ARRIVAL else 5
    actor.publish(actor.count, killer="killer")

    actor.run()

    assert not any(promised(actor).values())
    assert actor.rows("dead") == ["its consumer ended 5 times while it handled this event"]


@pytest.mark.parametrize(
    ("bus", "kind"), [("embedded", "sqlite"), pytest.param("classic", "postgresql", marks=ON_ONE_BROKER)]
)
def test_reports_that_are_handled_on_arrival_have_their_effects_once(
    actor_of: Callable[..., Actor], print_line: Callable[[str], None], bus: str, kind: str
) -> None:
    """
    The processes live long enough that most reports are no repetitions.
    """
    check(actor_of(bus, kind, kills=6, most_effects=4000, **ON_ARRIVAL), 600, print_line)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("bus", "kind", "plan"),
    [
        ("embedded", "sqlite", {"processes": 2}),
        ("embedded", "postgresql", {}),
        pytest.param("classic", "sqlite", {}, marks=ON_A_BROKER),
        pytest.param("classic", "postgresql", {"processes": 2}, marks=ON_A_BROKER),
        pytest.param("quorum", "sqlite", {"processes": 2}, marks=ON_A_BROKER),
        pytest.param("quorum", "postgresql", {}, marks=ON_A_BROKER),
        pytest.param("classic", "postgresql", {"processes": 2, "ordered": False}, marks=ON_A_BROKER),
    ],
)
def test_a_thousand_kills_neither_lose_nor_double_an_effect(
    actor_of: Callable[..., Actor], print_line: Callable[[str], None], bus: str, kind: str, plan: dict[str, int]
) -> None:
    """
    The same with more kills, on each combination of bus and database, with one process or two.
    """
    kills = int(os.environ.get(KILLS_VARIABLE) or 1000)
    check(actor_of(bus, kind, kills=kills, **plan), kills * 3 // 2, print_line)
