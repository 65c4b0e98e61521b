"""
Cost of a dead broker and a dead collector for an attempt on a real Airflow: task runner, callbacks, launcher and task.

The time is Airflow's, from the start of the attempt until its end was stored. The tests are long, so only `make soak`
runs them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from tests.airflow.ground import Ground, exported, settings_of
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.postgres import PostgresServer
from tests.services.proxy import Proxy

LIMIT = 2.0
"""The default of EVENT_FLUSH_TIMEOUT."""
ROUNDS = 5


@pytest.fixture
def ways(broker: Broker, otlp: OtlpReceiver) -> Iterator[tuple[Proxy, Proxy]]:
    """
    The proxies to broker and collector, which a test can freeze.
    """
    with Proxy(broker.port) as bus, Proxy(int(otlp.grpc_endpoint.rpartition(":")[2])) as collector:
        yield bus, collector


@pytest.mark.soak
def test_a_dead_broker_and_collector_cost_an_attempt_two_seconds_at_most(
    ways: tuple[Proxy, Proxy],
    broker: Broker,
    postgres: PostgresServer,
    wheels: Path,
    state_dir: Path,
    tmp_path: Path,
    print_line: Callable[[str], None],
) -> None:
    """
    Compared with healthy ones, a silent broker and collector add at most two seconds to the least time of each outcome.
    """
    bus, collector = ways
    reached = replace(broker, host=bus.host, port=bus.port)
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.host}:{collector.port}"}
    ground = Ground(tmp_path, postgres, reached, wheels=wheels, state=state_dir, variables=traced)
    tasks = {"faulty_succeeds_1.0": "Succeeds", "faulty_raises_1.0": "Raises"}
    found: dict[tuple[str, bool], list[float]] = {(dag_id, dead): [] for dag_id in tasks for dead in (False, True)}
    exported(ground.airflow.dags_folder)
    with ground.airflow:
        for dag_id, task in tasks.items():
            # The first one builds the environment.
            ground.airflow.wait_for_dag(dag_id)
            seconds_of(ground, dag_id, task)
        for _ in range(ROUNDS):
            for dead in (False, True):
                for way in ways:
                    (way.freeze if dead else way.thaw)()
                for dag_id, task in tasks.items():
                    forget_what_was_dead(reached, state_dir)
                    found[dag_id, dead].append(seconds_of(ground, dag_id, task))
    grown = {task: min(found[dag_id, True]) - min(found[dag_id, False]) for dag_id, task in tasks.items()}
    print_line("\n".join(f"{dag_id}, {'dead' if dead else 'well'}: {times}" for (dag_id, dead), times in found.items()))
    print_line(f"the least has grown by {grown}")

    assert all(seconds <= LIMIT for seconds in grown.values())


def seconds_of(ground: Ground, dag_id: str, task: str) -> float:
    """
    Run a workflow to its end, and return how long the first attempt of a task took according to Airflow.
    """
    run_id = ground.airflow.trigger(dag_id, {"recipe_run_id": ground.next_number()})
    ground.airflow.wait_for_run(dag_id, run_id, "success", "failed", seconds=120.0)
    began, ended = (
        datetime.fromisoformat(ground.airflow.tasks_of(dag_id, run_id)[task][name])
        for name in ("start_date", "end_date")
    )
    return round((ended - began).total_seconds(), 2)


def forget_what_was_dead(broker: Broker, state: Path) -> None:
    """
    Remove the mark that spares the next attempt an unreachable service for half a minute.
    """
    with open_bus(settings_of(broker, state)).open_journal() as journal:
        journal.unreachable_until = 0
