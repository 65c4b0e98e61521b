"""
The outboxes of a host, as an operator sees and handles them: `dkist-core outbox`.

Not here: what a publisher does by itself (test_delivery), nor what is refused and why (test_poison).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dkist_processing_core.bus import Books, open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.services.broker import Broker

ROOT = Path(__file__).parent.parent
# Publishes, says so, and waits to be killed: its broker never gets anything from it.
LEAVE = """
import os, signal, sys
from dkist_processing_core.bus._amqp_bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.publisher import Publisher
from tests.facts import progressed
first, count = map(int, sys.argv[1:])
AmqpBus.connect = lambda *_: signal.pause()
publisher = Publisher.open(DKISTProcessingCoreConfiguration.read())
publisher.publish(*[progressed("A", number) for number in range(first, first + count)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def outbox(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run a command about the outboxes as a user does.
    """
    return subprocess.run(
        [sys.executable, "-m", "dkist_processing_core.cli", "outbox", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def leave(count: int, first: int = 0) -> None:
    """
    Have a process publish so many events and be killed before any of them left the host.
    """
    done = subprocess.run([sys.executable, "-c", LEAVE, str(first), str(count)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def books() -> Books:
    """
    Return the books of the outbox that the settings name.
    """
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        return journal.books()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Broker], None]:
    """
    Have the settings name a broker.
    """

    def name(broker: Broker) -> None:
        for variable, value in broker.env.items():
            monkeypatch.setenv(variable, value)

    return name


@pytest.fixture
def owned(broker: Broker, use: Callable[[Broker], None]) -> Broker:
    """
    A virtual host of the test's own, named by the settings.
    """
    use(broker)
    return broker


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> int:
    """
    Have the settings name a port at which nothing listens.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    return refusing_port


# Drain


@pytest.mark.usefixtures("owned")
def test_what_a_killed_process_left_is_drained() -> None:
    """
    Its events were on disk; one command delivers them.
    """
    leave(30)
    before = books()

    told = outbox("drain")

    assert before == Books(published=30, confirmed=0, pending=30, set_aside=0)
    assert books() == Books(published=30, confirmed=30, pending=0, set_aside=0)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("delivered to RabbitMQ at 127.0.0.1:")
    assert told.stdout.endswith(": 30, still waiting: 0\n")


def test_a_broker_that_is_not_there_is_one_line(refused: int) -> None:
    """
    What waits goes on waiting, and the exit code is 1.
    """
    leave(3)

    told = outbox("drain")

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(
        f"error: RabbitMQ at 127.0.0.1:{refused} refuses the connection: nothing listens there"
    )
    assert told.stderr.endswith(".db: 3, delivered: 0\n")
    assert told.stderr.count("\n") == 1
    assert books() == Books(published=3, confirmed=0, pending=3, set_aside=0)


def test_the_embedded_journal_has_nothing_to_drain(state_dir: Path) -> None:
    """
    It is its own bus, and no error.
    """
    told = outbox("drain")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("nothing to drain: MESH_CONFIG names no interservice-bus")
    assert list(state_dir.iterdir()) == []
