"""
Several processes with one outbox: one of them is stopped, belongs to another user, or forks.

Not here: processes in sequence (test_kill_points.py), and a journal that is locked for other reasons
(test_degradation.py).
"""

import os
import random
import secrets
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal.spare import spares_of
from tests.arrivals import Arrivals, Child, Ledger, ids_on_disk
from tests.bus.contract import SECONDS
from tests.facts import finished, started
from tests.killed import Plan
from tests.running import ROOT
from tests.services.broker import Broker
from tests.test_delivery import LIMIT, settings_of

# The additional time on a busy machine.
TOLERANCE = 0.5
MANY = 1500
# A user other than this process's who belongs to the host's group, and that group.
OTHER_USER = 65534
SHARED_GROUP = 64123
IS_ROOT = os.getuid() == 0
# For a child whose events are kept: the broker refuses its connection.
REFUSED = {"ISB_PASSWORD": "wrong"}


class Host:
    """
    One outbox, one broker, and child processes that write their reports into a folder.
    """

    def __init__(self, broker: Broker, folder: Path, state: Path | None = None) -> None:
        """
        Start with an empty outbox, in the test's state folder or in `state`.
        """
        self._environment = broker.env | ({} if state is None else {"DKIST_CORE_STATE_DIR": str(state)})
        self._folder = folder
        found = settings_of(broker)
        self.settings = found if state is None else found.model_copy(update={"dkist_core_state_dir": state})
        self.ledger = Ledger(self.settings, Arrivals(broker, self.settings))

    def child(self, name: str, *, environment: Mapping[str, str] | None = None, **options: object) -> Child:
        """
        Start a child with a plan and additional variables.
        """
        plan = Plan(name, **options)  # type: ignore[arg-type]  # they are checked by the class itself
        return Child(plan, self._environment | dict(environment or {}), self._folder / f"{name}.txt")

    def end(self, child: Child, status: int = 0) -> None:
        """
        Wait for the end of a child, and note the events that it has reported.
        """
        assert child.wait_for_end(SECONDS * 2), child.output
        assert child.process.wait() == status, child.output
        self.ledger.note_child(child, "child")

    def deliver(self, *, counts_each_once: bool = True) -> None:
        """
        Deliver the pending messages, and check that no event was lost.
        """
        # By the command and not by a publisher: a process that was stopped while it connected may have marked the
        # broker as unreachable for a while.
        command = [sys.executable, "-m", "dkist_processing_core.cli", "outbox", "drain"]
        environment = os.environ | self._environment
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert spares_of(open_bus(self.settings).journal_path) == []
        self.ledger.assert_nothing_lost(counts_each_once=counts_each_once)

    def assert_on_disk(self) -> None:
        """
        Check that each published event is on disk or has arrived.
        """
        self.ledger.arrivals.read()
        assert self.ledger.returned - ids_on_disk(self.settings) - set(self.ledger.arrivals.ids) == set()


@pytest.fixture
def host(broker: Broker, tmp_path: Path) -> Host:
    """
    Return a host with an empty outbox.
    """
    return Host(broker, tmp_path)


@pytest.mark.parametrize(
    ("point", "then"),
    [
        ("deleted, committing", signal.SIGCONT),
        ("deleted, committing", signal.SIGKILL),
        ("before-write, committing", signal.SIGKILL),
        ("sent, not flushed", signal.SIGCONT),
        ("confirmed, read", signal.SIGKILL),
    ],
)
@pytest.mark.once  # it is about the locks of SQLite
def test_a_process_that_is_stopped_holds_nobody_up_for_longer_than_the_limit(
    host: Host, point: str, then: signal.Signals
) -> None:
    """
    One process is stopped inside a transaction or while it has the right to deliver. The others publish and close in
    time, and their events are on disk.
    """
    with host.child(
        "stopped", point=point, signal=signal.SIGSTOP, occurrence=3, limit=40, pause=0.1, timeout=SECONDS
    ) as stopped:
        stopped.wait_for_stop()
        with host.child("a", limit=5) as first, host.child("b", limit=5, sizes=(5,)) as second:
            host.end(first)
            host.end(second)
        host.assert_on_disk()
        stopped.process.send_signal(then)
        host.end(stopped, -then if then == signal.SIGKILL else 0)
    host.deliver(counts_each_once=False)

    assert max(first.seconds, second.seconds) < LIMIT + TOLERANCE


def test_a_process_that_is_stopped_at_any_moment_loses_nothing(host: Host) -> None:
    """
    Stopped several times under load: each other process publishes and closes in time, without an exception.
    """
    chance = random.Random(secrets.randbits(32))
    times = []
    for round_ in range(4):
        then = signal.SIGCONT if round_ % 2 else signal.SIGKILL
        with host.child(f"stopped-{round_}", limit=MANY, timeout=SECONDS) as stopped:
            stopped.wait_for_output()
            stopped.wait_for_end(chance.uniform(0.0, 0.5))
            stopped.process.send_signal(signal.SIGSTOP)
            stopped.wait_for_stop()
            with host.child(f"other-{round_}", limit=5) as other:
                host.end(other)
            times.append(other.seconds)
            host.ledger.note_child(stopped, "child")
            host.assert_on_disk()
            stopped.process.send_signal(then)
            host.end(stopped, -then if then == signal.SIGKILL else 0)
    host.deliver(counts_each_once=False)

    assert max(times) < LIMIT + TOLERANCE


def test_a_fork_that_publishes_beside_its_parent_loses_nothing(host: Host) -> None:
    """
    Both publish at the same time through the publisher that the parent opened, and both succeed.
    """
    with host.child("parent", forks=True, limit=200, timeout=SECONDS) as parent:
        host.end(parent)
    host.deliver()

    assert len(host.ledger.returned) == 400


def test_a_fork_publishes_on_when_its_parent_has_closed() -> None:
    """
    The parent is not the last user of the file, and must not remove the log that the fork writes to.
    """
    settings = DKISTProcessingCoreConfiguration()
    publisher = Publisher.open(settings)
    publisher.publish(started("A"))
    (is_ready, say_ready), (may_go_on, let_go_on) = os.pipe(), os.pipe()

    fork = os.fork()
    if fork == 0:
        status = 1
        try:
            publisher.publish(started("B"))
            os.write(say_ready, b"!")
            os.read(may_go_on, 1)
            publisher.publish(finished("B"))
            status = 0
        finally:
            os._exit(status)
    os.read(is_ready, 1)
    publisher.close()
    os.write(let_go_on, b"!")
    _, status = os.waitpid(fork, 0)
    for end in (is_ready, say_ready, may_go_on, let_go_on):
        os.close(end)

    assert status == 0
    assert ids_on_disk(settings) == {started("A").id, started("B").id, finished("B").id}


@pytest.mark.parametrize("point", ["taking over, copying", "taking over, copied", "taking over, removed"])
def test_who_is_killed_while_it_takes_over_a_spare_journal_loses_nothing(host: Host, point: str) -> None:
    """
    The messages that it was moving are in one of the two journals, or in both.
    """
    journal = open_journal(host.settings)
    with closing(sqlite3.connect(journal, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with host.child("keeps", limit=5, environment=REFUSED) as keeping:
            host.end(keeping)
    (spare,) = spares_of(journal)

    with host.child("killed", point=point) as killed:
        host.end(killed, -signal.SIGKILL)
    was_left = spare.exists()
    host.assert_on_disk()
    host.deliver(counts_each_once=False)

    assert was_left


@pytest.fixture
def shared() -> Iterator[Path]:
    """
    Yield a folder that its setgid bit shares with a group, and that another user can reach.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dkist-core-tests-") as folder:
        Path(folder).chmod(0o711)
        shared = Path(folder) / "shared"
        shared.mkdir()
        if IS_ROOT:
            os.chown(shared, -1, SHARED_GROUP)
        shared.chmod(0o2770)
        yield shared


def facts_of_files(folder: Path) -> set[tuple[int, int]]:
    """
    Return the modes and groups of the files in a folder.
    """
    found = [path.stat() for path in folder.iterdir()]
    return {(stat.S_IMODE(file.st_mode), file.st_gid) for file in found}


def another_user() -> dict[str, Any]:
    """
    Return the options that run a child as another user, where this process may do that.
    """
    return {"user": OTHER_USER, "group": SHARED_GROUP} if IS_ROOT else {}


@pytest.mark.parametrize("is_others_first", [True, False], ids=["the other's first", "ours first"])
def test_users_who_share_a_folder_deliver_for_each_other(
    broker: Broker,
    shared: Path,
    tmp_path: Path,
    is_others_first: bool,  # noqa: FBT001
) -> None:
    """
    Each user delivers the messages of the other, and the group may write to the files, with any umask.
    """
    host = Host(broker, tmp_path, shared)
    users = [another_user(), {}] if is_others_first else [{}, another_user()]
    found = []
    for turn, (leaving, delivering) in enumerate([users, users[::-1]]):
        with host.child(f"leaves-{turn}", point="written", **leaving) as killed:
            host.end(killed, -signal.SIGKILL)
        found.append(facts_of_files(shared))
        with host.child(f"delivers-{turn}", empties=True, timeout=SECONDS, **delivering) as child:
            host.end(child)
        found.append(facts_of_files(shared))
        host.ledger.assert_nothing_lost()

    assert found == [{(0o660, shared.stat().st_gid)}] * 4


@pytest.mark.parametrize("is_others", [True, False], ids=["the other's", "ours"])
def test_a_spare_journal_is_the_group_s_too(
    broker: Broker,
    shared: Path,
    tmp_path: Path,
    is_others: bool,  # noqa: FBT001
) -> None:
    """
    The other user takes over and delivers the messages that were kept beside a locked journal.
    """
    host = Host(broker, tmp_path, shared)
    keeping, delivering = (another_user(), {}) if is_others else ({}, another_user())
    journal = open_journal(host.settings)
    with closing(sqlite3.connect(journal, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with host.child("keeps", limit=5, environment=REFUSED, **keeping) as child:
            host.end(child)
        (spare,) = spares_of(journal)
        found = facts_of_files(shared)
        owner = spare.stat().st_uid
    with host.child("delivers", empties=True, timeout=SECONDS, **delivering) as child:
        host.end(child)
    host.ledger.assert_nothing_lost()

    assert spares_of(journal) == []
    assert found == {(0o660, shared.stat().st_gid)}
    assert owner == keeping.get("user", os.getuid())


def open_journal(settings: DKISTProcessingCoreConfiguration) -> Path:
    """
    Create the outbox, and return its path.
    """
    bus = AmqpBus(settings)
    bus.open_journal().close()
    return bus.journal_path
