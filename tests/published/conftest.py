"""
Fixtures shared by the tests of published pipelines: their environments, and the Redis with their tasks' inventory.

Not here: the locks in `requirements` from which the environments are created.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.published.environments import CLIENTS, REPLACED, Installed, MissingClientsError
from tests.services.processes import SessionWatch
from tests.services.redis import MissingRedisError, RedisServer

_HERE = Path(__file__).parent
# A test waits for all the imports of a pipeline, up to three times, while the rest of the suite runs.
_TIMEOUT_SECONDS = 1800


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark the tests of this folder, so that they run once, and only on the Python of the pipelines.
    """
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


def _installed(environment: Path, folder: Path) -> Installed:
    try:
        return Installed(environment, folder)
    except MissingClientsError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def replaced(_state_root: Path) -> Installed:
    """
    The pipelines with the replaced release.
    """
    return _installed(REPLACED, _state_root / "replaced")


@pytest.fixture(scope="session")
def clients(_state_root: Path) -> Installed:
    """
    The pipelines with this library.
    """
    return _installed(CLIENTS, _state_root / "clients")


@pytest.fixture(scope="session")
def redis(session_watch: SessionWatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """
    The server that the pipelines' tasks share.
    """
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
    except MissingRedisError as missing:
        pytest.fail(str(missing), pytrace=False)
    with server:
        session_watch.assert_loopback_only()
        yield server
