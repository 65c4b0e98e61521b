"""
What tests with a real Airflow share: the database server, and an Airflow for each executor.

Not here: the workflows that they run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.airflow.ground import Ground, Listener, listening
from tests.services.airflow import Airflow, MissingAirflowError
from tests.services.broker import Broker, open_broker
from tests.services.postgres import MissingPostgresError, PostgresServer
from tests.services.processes import SessionWatch
from tests.services.rabbitmq import RabbitMQNode

_HERE = Path(__file__).parent
# The first test that needs an Airflow waits for the database, the broker and all of its processes.
_TIMEOUT_SECONDS = 300


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark what lies here, so that these tests run once and not on each Python: Airflow brings a Python of its own.
    """
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.airflow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def airflow_broker(rabbitmq: RabbitMQNode) -> Iterator[Broker]:
    """
    The virtual host that the tasks of `local_airflow` report to.
    """
    with open_broker(rabbitmq) as broker:
        yield broker


@pytest.fixture(scope="session")
def _local_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresServer,
    airflow_broker: Broker,
    _state_root: Path,
) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    state = _state_root / "state-airflow"
    state.mkdir(mode=0o700)
    environment = airflow_broker.env | {"DKIST_CORE_STATE_DIR": str(state)} | Ground.variables(folder)
    try:
        airflow = Airflow(folder / "home", postgres, environment=environment)
    except MissingAirflowError as missing:
        pytest.fail(str(missing), pytrace=False)
    Ground.prepare(airflow, folder)
    with airflow:
        yield airflow


@pytest.fixture(scope="session")
def listener(airflow_broker: Broker) -> Iterator[Listener]:
    """
    All that arrives on the bus of `local_airflow` from now on.
    """
    with listening(airflow_broker) as listener:
        yield listener


@pytest.fixture(scope="session")
def ground(_local_airflow: Airflow, airflow_broker: Broker, listener: Listener) -> Ground:
    """
    The session's Airflow with the workflows of faults.
    """
    return Ground(_local_airflow, airflow_broker, listener, _local_airflow.folder.parent)


@pytest.fixture
def local_airflow(_local_airflow: Airflow, postgres: PostgresServer, airflow_broker: Broker) -> Airflow:
    """
    An Airflow with the LocalExecutor, whose tasks report to `airflow_broker`, with everything running.

    It lasts as long as the session: a test brings DAGs of names that no other test uses.
    """
    postgres.start()
    airflow_broker.node.recover()
    _local_airflow.recover()
    return _local_airflow


@pytest.fixture
def celery_airflow(
    tmp_path: Path, postgres: PostgresServer, rabbitmq: RabbitMQNode, state_dir: Path
) -> Iterator[Callable[..., Airflow]]:
    """
    A function that starts an Airflow with Celery workers, one for each list of queues, and returns when all are ready.

    Its tasks report to the broker given, if any; Celery has a virtual host of its own.
    """
    with ExitStack() as stack:

        def start(*queues: str, broker: Broker | None = None) -> Airflow:
            messages = stack.enter_context(open_broker(rabbitmq))
            environment = {"DKIST_CORE_STATE_DIR": str(state_dir)} | (broker.env if broker else {})
            try:
                airflow = Airflow(tmp_path / "airflow", postgres, environment=environment, celery=messages)
            except MissingAirflowError as missing:
                pytest.fail(str(missing), pytrace=False)
            for names in queues:
                airflow.add_worker(*names.split(","))
            stack.enter_context(airflow)
            return airflow

        yield start
