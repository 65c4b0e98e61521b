"""
Fixtures shared by tests with a real Airflow: the database server, and an Airflow for each executor.

Not here: the workflows that they run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.ground import Ground, release
from tests.services.airflow import Airflow, MissingAirflowError
from tests.services.broker import Broker, open_broker
from tests.services.otlp import OtlpReceiver
from tests.services.postgres import MissingPostgresError, PostgresServer
from tests.services.processes import SessionWatch
from tests.services.rabbitmq import RabbitMQNode

_HERE = Path(__file__).parent
# The first test that needs an Airflow waits for the database, the broker and all of its processes.
_TIMEOUT_SECONDS = 1800


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark the tests of this folder, so that they run once and not on each Python: Airflow has its own Python.
    """
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.airflow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


@pytest.hookimpl(specname="pytest_collection_modifyitems", trylast=True)  # after the plugin that shuffles the modules
def pytest_keep_together(items: list[pytest.Item]) -> None:
    """
    Run these tests one after the other, those with the shared Airflow last, so that it runs no longer than needed.

    Its scheduler and its parser of DAG files work all the time, a quarter of a processor.
    """

    def place(item: pytest.Item) -> int:
        if _HERE not in item.path.parents:
            return 2
        return int("ground" in getattr(item, "fixturenames", ()))

    items.sort(key=place)


@pytest.fixture(scope="package")
def postgres(session_watch: SessionWatch) -> Iterator[PostgresServer]:
    """
    The database server that all Airflows share.
    """
    try:
        server = PostgresServer()
        server.start()
    except MissingPostgresError as missing:
        pytest.fail(str(missing), pytrace=False)
    with server:
        session_watch.assert_loopback_only()
        yield server


@pytest.fixture(scope="package")
def airflow_broker(rabbitmq: RabbitMQNode) -> Iterator[Broker]:
    """
    The virtual host that the tasks of `local_airflow` report to.
    """
    with open_broker(rabbitmq) as broker:
        yield broker


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder with the released library and pipelines; the environments of tasks are next to it.
    """
    folder = tmp_path_factory.mktemp("released") / "wheels"
    release(folder)
    return folder


@pytest.fixture(scope="package")
def ground(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresServer,
    airflow_broker: Broker,
    wheels: Path,
    _state_root: Path,
) -> Iterator[Ground]:
    """
    The Airflow of these tests with the LocalExecutor, all exported workflows, and a listener on its bus.
    """
    state = _state_root / "state-airflow"
    state.mkdir(mode=0o700)
    try:
        ground = Ground(tmp_path_factory.mktemp("local"), postgres, airflow_broker, wheels=wheels, state=state)
    except MissingAirflowError as missing:
        pytest.fail(str(missing), pytrace=False)
    with ground.open():
        yield ground


@pytest.fixture
def local_airflow(ground: Ground, postgres: PostgresServer, airflow_broker: Broker) -> Airflow:
    """
    An Airflow with the LocalExecutor, whose tasks report to `airflow_broker`, with everything running.

    It lasts as long as these tests: the names of each test's DAGs are unique.
    """
    postgres.start()
    airflow_broker.node.recover()
    ground.airflow.recover()
    return ground.airflow


@pytest.fixture
def celery_ground(
    tmp_path: Path,
    postgres: PostgresServer,
    rabbitmq: RabbitMQNode,
    broker: Broker,
    wheels: Path,
    state_dir: Path,
    otlp: OtlpReceiver,
) -> Iterator[Ground]:
    """
    An Airflow with a Celery worker for each of two queues, whose tasks report to `broker` and trace to `otlp`
    over HTTP.

    Celery's own messages have a separate virtual host.
    """
    with open_broker(rabbitmq) as messages:
        try:
            ground = Ground(
                tmp_path,
                postgres,
                broker,
                wheels=wheels,
                state=state_dir,
                celery=messages,
                variables=otlp.http_env | {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            )
        except MissingAirflowError as missing:
            pytest.fail(str(missing), pytrace=False)
        for queue in ("default", "high_memory"):
            ground.airflow.add_worker(queue)
        with ground.open():
            yield ground
