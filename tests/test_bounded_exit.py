"""
Cost of observing for a task's process when broker or collector are dead: at most two seconds, and no lost event.

Not here: the figures themselves (`make bench`).
"""

import fcntl
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.spare import take_over_spares
from tests.pace import here
from tests.running import ROOT, run_python
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.sockets import BlackHole
from tests.test_delivery import books_of, settings_of

pytestmark = pytest.mark.quiet
TRIES = 3
LIMIT = 2.0
"""The default of EVENT_FLUSH_TIMEOUT: the time that the library may add to the wall time of an attempt."""
TASK = """
import sys
from dkist_processing_core import TaskBase
class Quick(TaskBase):
    def run(self):
        with self.telemetry_span("inside"):
            pass
with Quick(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def timed(environment: dict[str, str]) -> tuple[float, list[str]]:
    """
    Return the seconds that a task's process takes, and its lines of warning.
    """
    began = time.monotonic()
    done = run_python(TASK, environment)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    return took, [line for line in done.stderr.splitlines() if " INFO " not in line]


def with_collector(mesh: str, port: int) -> str:
    """
    Return a MESH_CONFIG that names a collector for all three signals in addition.
    """
    collector = {"mesh_address": "127.0.0.1", "mesh_port": port}
    return json.dumps(
        json.loads(mesh) | {f"otlp-{signal}-endpoint": collector for signal in ("traces", "metrics", "logs")}
    )


def mesh_at(port: int) -> str:
    """
    Return a MESH_CONFIG that names a broker.
    """
    return json.dumps({"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}})


def added_within(
    limit: float, undisturbed: float, take: Callable[[], float], settings: DKISTProcessingCoreConfiguration
) -> int:
    """
    Assert that one try of three adds no more than the limit, and return it; other processes may disturb a try.
    """
    added: list[float] = []
    while not added or (added[-1] > limit and len(added) < TRIES):
        if added:
            with open_bus(settings).open_journal() as journal:
                journal.unreachable_until = 0
        added.append(take() - undisturbed)
    assert added[-1] <= here(limit), added
    return len(added)


def assert_bounded(environment: dict[str, str], settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Run the task in healthy and in dead surroundings; return its output in the dead ones.
    """
    with OtlpReceiver() as receiver:
        undisturbed = min(timed(receiver.grpc_env)[0] for _ in range(2))
    lines: list[str] = []

    def take() -> float:
        took, lines[:] = timed(environment)
        return took

    tries = added_within(LIMIT, undisturbed, take, settings)
    assert (books_of(settings).pending, books_of(settings).confirmed) == (2 * tries, 0)
    return lines


def test_refused_by_broker_and_collector(refusing_port: int) -> None:
    """
    It does not wait, and one line each states which service refuses.
    """
    mesh = with_collector(mesh_at(refusing_port), refusing_port)

    lines = assert_bounded({"MESH_CONFIG": mesh}, DKISTProcessingCoreConfiguration(mesh_config=mesh))

    broker, collector = lines
    assert (
        " WARNING dkist_processing_core.delivery.outbox_warnings: "
        f"RabbitMQ at 127.0.0.1:{refusing_port} refuses the connection: nothing listens there" in broker
    )
    assert f"no connection to 127.0.0.1:{refusing_port}: Connection refused. Telemetry is kept in " in collector


def test_black_holes_for_broker_and_collector(black_hole: BlackHole) -> None:
    """
    Both accept connections and never answer: the task waits for both at the same time, for a limited time.
    """
    mesh = with_collector(mesh_at(black_hole.port), black_hole.port)

    lines = assert_bounded({"MESH_CONFIG": mesh}, DKISTProcessingCoreConfiguration(mesh_config=mesh))

    broker, collector = lines
    assert f"RabbitMQ at 127.0.0.1:{black_hole.port} does not answer in time" in broker
    assert " WARNING " in collector
    assert f"http://127.0.0.1:{black_hole.port} has not accepted everything in time. Telemetry is kept in" in collector


def test_a_broker_under_alarm_and_a_silent_collector(broker: Broker, black_hole: BlackHole) -> None:
    """
    The broker accepts the connection, and then reads nothing.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    broker.node.memory_alarm(on=True)
    environment = broker.env | {"MESH_CONFIG": with_collector(broker.env["MESH_CONFIG"], black_hole.port)}

    lines = assert_bounded(environment, settings_of(broker))

    assert "blocks publishers: " in lines[0]


def test_another_process_that_holds_the_outbox_and_a_silent_collector(broker: Broker, black_hole: BlackHole) -> None:
    """
    A stopped drainer keeps the lock; the broker is healthy, and the drainer cannot be accelerated.
    """
    settings = settings_of(broker)
    with ExitStack() as stack:
        journal = stack.enter_context(open_bus(settings).open_journal())
        held = FileLock(journal.path.with_suffix(".lock"))
        assert held.acquire()
        stack.callback(held.release)
        environment = broker.env | {"MESH_CONFIG": with_collector(broker.env["MESH_CONFIG"], black_hole.port)}

        lines = assert_bounded(environment, settings)

    assert any("has not confirmed them in time" in line for line in lines)


LAUNCHER = "from dkist_processing_core.launcher.launch import main; raise SystemExit(main())"
LOCAL_RUN = """
from dkist_processing_core import Workflow
from tests.launched import Succeeds
workflow = Workflow(process_category="one", process_name="task")
workflow.add_node(Succeeds)
assert workflow.run(recipe_run_id=1).succeeded
"""
IDENTITY = {
    "DKIST_CORE_RUN_ID": "manual__1",
    "DKIST_CORE_WORKFLOW": "W",
    "DKIST_CORE_VERSION": "dev",
    "DKIST_CORE_TASK": "Succeeds",
    "DKIST_CORE_RECIPE_RUN_ID": "5",
    "DKIST_CORE_TASK_MODULE": "tests.launched",
    "DKIST_CORE_TASK_SEARCH_PATH": json.dumps([str(ROOT), *sys.path]),
}


@pytest.mark.parametrize(("program", "events"), [(LAUNCHER, 3), (LOCAL_RUN, 5)], ids=["launcher", "local run"])
@pytest.mark.parametrize("is_silent", [True, False], ids=["black holes", "refused"])
def test_launcher_task_and_engine_share_the_two_seconds(
    program: str, events: int, *, is_silent: bool, black_hole: BlackHole, refusing_port: int
) -> None:
    """
    All participants of an attempt together cost as much as one alone.
    """

    def took(environment: dict[str, str]) -> float:
        began = time.monotonic()
        done = run_python(program, IDENTITY | environment)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    port = black_hole.port if is_silent else refusing_port
    mesh = with_collector(mesh_at(port), port)
    with OtlpReceiver() as receiver:
        undisturbed = min(took(receiver.grpc_env) for _ in range(2))

    settings = DKISTProcessingCoreConfiguration(mesh_config=mesh)
    tries = added_within(LIMIT, undisturbed, lambda: took({"MESH_CONFIG": mesh}), settings)

    assert (books_of(settings).pending, books_of(settings).confirmed) == (events * tries, 0)


ATTEMPT = """
import os, subprocess, sys
from dkist_processing_core.failure_callback import chat_ops_notification
from tests.test_callbacks import CALLBACKS, AirflowException, context
CALLBACKS.on_execute(context())
environ = os.environ | {"DKIST_CORE_TASK": "Raises"}
assert subprocess.run([sys.executable, "-c", sys.argv[1]], env=environ).returncode == 1
failure = context(error=AirflowException("Bash command failed. The command returned a non-zero exit code 1."))
for callback in CALLBACKS.on_failure_of("First"):
    callback(failure)
"""


@pytest.mark.parametrize("kind", ["journal", "folder"])
def test_engine_launcher_and_task_share_the_two_seconds_at_a_locked_place(kind: str, black_hole: BlackHole) -> None:
    """
    An attempt that fails: no journal of its folder can be used, and neither broker nor collector answers.
    """
    program = f"import sys; sys.argv[1:] = [{LAUNCHER!r}]\n{ATTEMPT}"

    def took(environment: dict[str, str]) -> float:
        began = time.monotonic()
        done = run_python(program, IDENTITY | environment)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    mesh = with_collector(mesh_at(black_hole.port), black_hole.port)
    with OtlpReceiver() as receiver:
        undisturbed = min(took(receiver.grpc_env) for _ in range(2))
    settings = DKISTProcessingCoreConfiguration(mesh_config=mesh)

    def disturbed() -> float:
        with ExitStack() as stack:
            path = open_bus(settings).journal_path
            open_bus(settings).open_journal().close()
            if kind == "folder":
                descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            else:
                # In this mode no other process can read the journal.
                holder = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
                holder.execute("PRAGMA locking_mode = EXCLUSIVE")
                holder.execute("BEGIN IMMEDIATE")
            return took({"MESH_CONFIG": mesh})

    tries = added_within(LIMIT, undisturbed, disturbed, settings)

    with open_bus(settings).open_journal() as journal:
        take_over_spares(journal)
    # The failure message and the event with it are published once.
    assert (books_of(settings).pending, books_of(settings).confirmed) == (6 * tries + 2, 0)


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_the_limit_is_the_one_that_was_set(seconds: str, black_hole: BlackHole) -> None:
    """
    A user who cannot spare two seconds sets EVENT_FLUSH_TIMEOUT.
    """
    mesh = with_collector(mesh_at(black_hole.port), black_hole.port)

    undisturbed = min(timed({})[0] for _ in range(2))
    settings = DKISTProcessingCoreConfiguration(mesh_config=mesh)
    environment = {"MESH_CONFIG": mesh, "EVENT_FLUSH_TIMEOUT": seconds}
    # Loading the exporters is part of the library's time, and is not waiting.
    tries = added_within(float(seconds) + 0.7, undisturbed, lambda: timed(environment)[0], settings)

    assert books_of(settings).pending == 2 * tries
