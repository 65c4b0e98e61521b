"""
What a handler may do to the process of its consumer: fork, and other acts that concern more than its event.

Not here: what it does with its transaction (test_acting), and the end of a process by a kill (test_kills).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.settings.reading import read_settings
from tests.consumer.effects import Effects
from tests.facts import failed
from tests.pace import here
from tests.running import command, run_command
from tests.services.broker import Broker
from tests.services.sockets import free_ports

FORKING = """
import os, threading, warnings
from sqlalchemy import text
from dkist_processing_core import Consumer

warnings.simplefilter("ignore", DeprecationWarning)
consumer, worked = Consumer("actor"), threading.Event()

def fork(name, raised=None):
    pid = os.fork()
    if pid == 0:
        if raised is not None:
            raise raised
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(name, "has forked a process that ended with", status, flush=True)

@consumer.on("task.failed")
def act(failure, transaction):
    transaction.execute(text("INSERT INTO effect VALUES (1, 'run', :task)"), {"task": failure.task_name})
    worked.wait(20)
    fork(failure.task_name, {"Raises": KeyError("missing"), "Exits": SystemExit(3)}.get(failure.task_name))

@consumer.on("task.failed")
async def act_later(failure):
    fork("async " + failure.task_name)

@consumer.every(0.2)
def work():
    if not worked.is_set():
        fork("work")
        worked.set()
"""


def publish(*names: str) -> None:
    """
    Put failures of tasks on the embedded journal.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*map(failed, names))


def consume(
    folder: Path, program: str, effects: Effects, *options: str, since: str = "first"
) -> "subprocess.CompletedProcess[str]":
    """
    Run a consumer as the command does, until it is idle or ends.
    """
    (folder / "actors.py").write_text(program)
    options = ("--since", since, "--until-idle", *options)
    return run_command("consume", "actors", *options, cwd=folder, DKIST_CORE_INBOX=effects.url)


@pytest.mark.parametrize("effects", [pytest.param("postgresql", marks=pytest.mark.processes)], indirect=True)
def test_a_fork_that_returns_from_a_handler_ends_and_its_parent_goes_on(tmp_path: Path, effects: Effects) -> None:
    """
    It would go on as a second worker on the connections of its parent.
    """
    publish("Returns", "Raises", "Exits")

    ran = consume(tmp_path, FORKING, effects)

    lines = ran.stdout.splitlines()
    assert [line for line in lines if not line.startswith("work")] == [
        "Returns has forked a process that ended with 0",
        "async Returns has forked a process that ended with 0",
        "Raises has forked a process that ended with 1",
        "async Raises has forked a process that ended with 0",
        "Exits has forked a process that ended with 3",
        "async Exits has forked a process that ended with 0",
    ]
    assert [line for line in lines if line.startswith("work")] == ["work has forked a process that ended with 0"]
    assert "act has failed in a fork of the consumer: KeyError: 'missing'\n" in ran.stderr
    assert ran.stderr.count("has ended; handled: 3, failed tries: 0, dead: 0") == 1
    assert sorted(effects.events) == ["Exits", "Raises", "Returns"]
    assert ran.returncode == 0


OUTLIVED = """
import os, signal, warnings
from pathlib import Path
from sqlalchemy import text
from dkist_processing_core import Consumer

warnings.simplefilter("ignore", DeprecationWarning)
consumer = Consumer("actor")

@consumer.on("task.failed")
def act(failure, transaction):
    transaction.execute(text("INSERT INTO effect VALUES (1, 'run', :task)"), {"task": failure.task_name})
    if failure.task_name == "Forks" and not Path("fork").exists():
        pid = os.fork()
        if pid == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 1), os.dup2(nothing, 2)
            signal.pause()
        Path("fork").write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "bus", ["embedded", pytest.param("broker", marks=[pytest.mark.rabbitmq, pytest.mark.processes])]
)
def test_a_fork_that_outlives_its_consumer_keeps_nothing_of_it(
    request: pytest.FixtureRequest, tmp_path: Path, effects: Effects, use: Callable[[Broker], None], bus: str
) -> None:
    """
    The rows, the place of the receiver, its messages and the port of the health are free, as if there was no fork.
    """
    if bus == "broker":
        use(request.getfixturevalue("broker"))
    (port,) = free_ports(1)
    publish("Forks", "A")

    killed = consume(tmp_path, OUTLIVED, effects, "--health", str(port))
    fork = int((tmp_path / "fork").read_text())
    publish("B")
    began = time.monotonic()
    try:
        ran = consume(tmp_path, OUTLIVED, effects, "--health", str(port))
    finally:
        os.kill(fork, signal.SIGKILL)
    seconds = time.monotonic() - began

    assert killed.returncode == -signal.SIGKILL
    assert ran.returncode == 0, ran.stderr
    assert sorted(effects.events) == ["A", "B", "Forks"]
    # A broker that misses heartbeats of the dead process keeps its messages for about twenty seconds.
    assert seconds < here(15)


SECRET = "a secret of the file"
SHOWING = """
import os
from dkist_processing_core import Consumer

consumer, fails = Consumer("actor", max_tries=1), []

@consumer.on("task.failed", task="InTheConsumer")
def act(failure, transaction):
    show()

@consumer.on("task.failed", task="InAFork")
def act_in_a_fork(failure):
    if os.fork() == 0:
        show()
    os.wait()

@consumer.every(0.001)
def work():
    if not fails:
        fails.append(True)
        show()

def show():
    password = os.environ["DKIST_CORE_INBOX"].rpartition("@")[0].rpartition(":")[2]
    raise RuntimeError(f"{open('.env').read()!r} and {password} are wrong")
"""


@pytest.mark.parametrize("effects", [pytest.param("postgresql", marks=pytest.mark.processes)], indirect=True)
def test_neither_a_log_nor_a_row_shows_a_secret_of_the_settings_or_of_the_inbox(
    tmp_path: Path, effects: Effects
) -> None:
    """
    A handler may show what the environment does not hold: an entry of the file `.env`, a part of an address.
    """
    (tmp_path / ".env").write_text(f"ISB_PASSWORD={SECRET}\n")
    (tmp_path / ".env").chmod(0o600)
    password = make_url(effects.url).password or ""
    publish("InTheConsumer", "InAFork", SECRET)

    ran = consume(tmp_path, SHOWING, effects)
    refused = run_command("consume", SECRET, cwd=tmp_path)

    shown = f"{ran.stdout}{ran.stderr}{effects.failures}{refused.stdout}{refused.stderr}"
    line = r"'ISB_PASSWORD=[redacted]\n' and [redacted] are wrong"
    assert (ran.stderr.count(line), effects.failures.count(line), refused.returncode) == (3, 2, 2), shown
    assert SECRET not in shown
    assert password not in shown


CLOSING = """
import os
from sqlalchemy import text
from dkist_processing_core import Consumer

consumer = Consumer("actor")

@consumer.on("task.failed")
KIND act(failure, transaction):
    transaction.execute(text("INSERT INTO effect VALUES (1, 'run', :task)"), {"task": failure.task_name})
    if failure.task_name == "Closes" and not os.path.exists("closed"):
        open("closed", "x").close()
        os.closerange(3, 1000)
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_handler_that_closes_all_descriptors_ends_the_consumer(tmp_path: Path, effects: Effects, kind: str) -> None:
    """
    One sentence names the reason, and the next process handles the event.
    """
    publish("A", "Closes", "B")

    program = CLOSING.replace("KIND", kind)
    ran = consume(tmp_path, program, effects)
    again = consume(tmp_path, program, effects)

    assert (ran.returncode, again.returncode) == (1, 0)
    error = ran.stderr.splitlines()[-1]
    assert error.startswith("error: the inbox ")
    assert "can no longer be used by this process: other code has closed its descriptors, such as os.close" in error
    assert "the inbox" not in "".join(line for line in ran.stderr.splitlines() if line.startswith("WARNING"))
    assert sorted(effects.events) == ["A", "B", "Closes"]


PRINTING = """
import sys
from dkist_processing_core import Consumer

consumer = Consumer("actor", max_tries=2, first_pause=0.0, longest_pause=0.0)

@consumer.on("task.failed")
def act(failure, transaction):
    print("a line", flush=True)
    if not sys.stderr.closed:
        sys.stderr.close()
        raise KeyError("missing")
"""


@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_closed_output_ends_no_consumer(tmp_path: Path, effects: Effects) -> None:
    """
    A service may have been started without its standard output, and a handler may close the error stream.
    """
    (tmp_path / "actors.py").write_text(PRINTING)
    publish("A", "B")

    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("consume", "actors", "--since", "first", "--until-idle")],
        cwd=tmp_path,
        env={**os.environ, "DKIST_CORE_INBOX": effects.url},
        check=False,
        timeout=300,
    )

    assert ran.returncode == 0
    assert sorted(task for task, _, _ in effects.of_state("done")) == ["A", "B"]
