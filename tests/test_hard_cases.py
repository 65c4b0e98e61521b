"""
Several things at once: signals while publishing, a backlog on a full disk, no disk and no permissions, a removed
journal.

Not here: each fault by itself (test_degradation.py, test_poison.py, test_processes.py).
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, MeshService
from dkist_processing_core.delivery.backlog import Backlog
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.delivery.outbox_warnings import OutboxWarnings
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.refusals import Refusals
from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.spare import spares_of
from tests.bus.contract import SECONDS
from tests.facts import finished, started
from tests.running import ROOT, run_python, status_of_fork
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.test_degradation import ids_in, locked
from tests.test_delivery import books_of, settings_of, unreachable, warnings_in
from tests.waiting import wait_until

INTERRUPTED = """
import random, signal, sys
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import finished, progressed

class Interruption(Exception): pass

def interrupt(*_):
    raise Interruption

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
# Made before: what makes them is pydantic, of which nobody knows whether it may be interrupted.
events = [progressed("A", number) for number in range(1500)]
last = finished("A")
publisher = Publisher.open(DKISTProcessingCoreConfiguration())
for event in events:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.0015))
        publisher.publish(event)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interruption:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
with publisher._shelf._lock:  # the mover may be in the middle of a transaction
    assert not publisher._shelf.journal._connection.in_transaction
publisher.publish(last)
assert publisher.flush(20.0)
publisher.close(5.0)
print(interrupted)
"""


def test_signals_that_raise_while_publishing_leave_everything_whole(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    However often a handler raises in the middle, nothing hangs, no lock is kept, and the next event is delivered.
    """
    # Coverage has its own lock, which does not survive this.
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)
    done = run_python(INTERRUPTED, broker.env)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
    books = books_of(settings_of(broker))
    assert (books.pending, books.set_aside) == (0, 0)
    assert books.confirmed >= 1501 - int(done.stdout)


FULL_WITH_BACKLOG = """
import resource, sys, threading
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

settings = DKISTProcessingCoreConfiguration()
bus = open_bus(settings)
with bus.open_journal() as journal:
    journal.append([to_message(progressed("A", number), bus.event_exchange) for number in range(300)])
    size = journal.path.with_name(journal.path.name + "-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    pause = threading.Event()
    with Publisher.open(settings) as publisher:
        for number in range(300, 340):
            publisher.publish(progressed("A", number))
            pause.wait(0.05)
        publisher.flush(30.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


def test_a_backlog_on_a_full_disk_is_not_sent_again_and_again(broker: Broker) -> None:
    """
    Messages that the broker has, and that the disk cannot delete, are remembered; the rest goes when there is room.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    with broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("seen")
        channel.queue_bind("seen", "workflow.events.x", "#")

        done = run_python(FULL_WITH_BACKLOG, broker.env)
        assert done.returncode == 0, done.stderr
        assert "lost" not in done.stderr, done.stderr
        count = channel.queue_declare("seen", passive=True).method.message_count
        with Publisher.open(settings_of(broker)) as publisher:
            # The process may have left some in a spare journal, which had room.
            path = publisher.bus.journal_path
            wait_until(lambda: not spares_of(path) and books_of(settings_of(broker)).pending == 0)
            del publisher
        seen: set[str] = set()

        def has_all() -> bool:
            # What the broker has confirmed is in its queues, which may still be a moment behind.
            got = iter(lambda: channel.basic_get("seen"), (None,) * 3)
            seen.update(properties.message_id for _, properties, _ in got)
            return len(seen) >= 340

        wait_until(has_all)

    assert count <= 2 * 340
    assert len(seen) == 340
    # On a slow machine, the thread that delivers may have had the journal for longer than the publisher waits.
    assert "cannot be used" in done.stderr
    assert len([line for line in done.stderr.splitlines() if "cannot be used" in line and "is locked" not in line]) <= 1


FULL_WITHOUT_ROOM = """
import resource
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:
    publisher.publish(progressed("A", 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
    for number in range(1, 200):
        publisher.publish(progressed("A", number))
    print(len(publisher._shelf.memory), publisher._shelf.has_spare, flush=True)
    publisher.flush(100.0)
"""


def test_what_no_disk_has_room_for_is_sent_before_the_end(proxied: tuple[Broker, Proxy]) -> None:
    """
    The journal is full, and so is the spare one: what follows is in memory, and a broker that answers late has it.
    """
    broker, proxy = proxied
    AmqpBus(settings_of(broker)).open_link().close()
    with broker.connect() as connection:
        connection.channel().queue_declare("seen")
        connection.channel().queue_bind("seen", "workflow.events.x", "#")
    proxy.freeze()
    with subprocess.Popen(
        [sys.executable, "-c", FULL_WITHOUT_ROOM],
        cwd=ROOT,
        env=os.environ | broker.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        in_memory, has_spare = process.stdout.readline().split()
        proxy.thaw()
        _, errors = process.communicate(timeout=300)
    with broker.connect() as connection:
        arrived = connection.channel().queue_declare("seen", passive=True).method.message_count

    assert process.returncode == 0, errors
    assert has_spare == "True"
    assert arrived >= int(in_memory) > 0
    assert "lost" not in errors


def test_what_the_journal_cannot_let_go_of_stays_in_mind_while_memory_is_delivered(tmp_path: Path) -> None:
    """
    Each source deletes its own messages: otherwise all messages of a full journal would be sent again.
    """
    settings = DKISTProcessingCoreConfiguration(
        mesh_config={"interservice-bus": MeshService(host="127.0.0.1", port=9)}, dkist_core_state_dir=tmp_path
    )
    bus, memory = AmqpBus(settings), InMemoryQueue(10)
    refusals = Refusals(bus, OutboxWarnings(bus.journal_path, memory))
    with bus.open_journal() as journal:
        ((seq, number),) = zip(
            journal.append([to_message(started("A"), bus.event_exchange)]), _numbers_of(memory, bus), strict=True
        )
        outbox, in_memory = Backlog(journal, refusals), Backlog(memory, refusals)
        outbox.unremoved.add(seq)

        in_memory.remove([number])
        assert (len(memory), in_memory.unremoved, outbox.unremoved) == (0, set(), {seq})

        in_memory.unremoved.add(number)
        outbox.remove()
        assert (journal.books().confirmed, in_memory.unremoved, outbox.unremoved) == (1, {number}, set())


def test_messages_of_all_sizes_are_read_once_and_in_order(tmp_path: Path) -> None:
    """However many are read at once, none is left out or returned twice."""
    settings = DKISTProcessingCoreConfiguration(
        mesh_config={"interservice-bus": MeshService(host="127.0.0.1", port=9)}, dkist_core_state_dir=tmp_path
    )
    bus = AmqpBus(settings)
    small = to_message(started("A"), bus.event_exchange)
    large = replace(small, body=bytes(60_000))
    with bus.open_journal() as journal:
        seqs = [seq for group in ([small] * 700, [large] * 150, [small] * 300) for seq in journal.append(group)]
        backlog = Backlog(journal, Refusals(bus, OutboxWarnings(bus.journal_path, InMemoryQueue(0))))
        backlog.begin()

        found = list(iter(lambda: backlog.next(is_alone=False), None))

    assert [entry.seq for entry in found if entry is not None] == seqs
    assert backlog.is_at_end


def _numbers_of(memory: InMemoryQueue, bus: AmqpBus) -> list[int]:
    memory.add([to_message(finished("A"), bus.event_exchange)], once=False)
    return [entry.seq for entry in memory.pending(0, 10)]


def test_without_a_disk_and_a_right_the_broker_is_not_stormed(proxied: tuple[Broker, Proxy], tmp_path: Path) -> None:
    """
    Messages in memory wait on one connection.
    """
    broker, proxy = proxied
    AmqpBus(settings_of(broker)).open_link().close()
    (tmp_path / "file").write_text("")
    user = broker.as_user(configure="^$", write="^$", read="^$")
    settings = settings_of(user).model_copy(update={"dkist_core_state_dir": tmp_path / "file" / "state"})

    before = proxy.accepted
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        publisher.flush(1.0)
        threading.Event().wait(1.5)
        connections = proxy.accepted - before
        broker.node.grant(user.username, broker.vhost, configure="^$", write=".*", read="^$")
        wait_until(lambda: not publisher.is_pending)

    assert connections <= 2


def test_a_journal_that_is_removed_is_made_anew_with_what_it_held(caplog: pytest.LogCaptureFixture) -> None:
    """
    A cleaner of temporary files has removed it: one line states it, and no event is lost.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        for path in publisher.bus.journal_path.parent.iterdir():
            path.unlink()
        publisher.publish(finished("A"))

        assert ids_in(settings) == [started("A").id, finished("A").id]
    (told,) = warnings_in(caplog)
    assert told.endswith("embedded.db was removed while it was in use, and is created again")


def test_a_journal_whose_path_shows_another_file_keeps_what_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    """
    It was moved, and other processes may use it: its rows stay there, and new ones go into the file at the path.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        path = publisher.bus.journal_path
        moved = path.parent / "moved"
        moved.mkdir()
        for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            each.rename(moved / each.name)
        open_bus(settings).open_journal().close()
        publisher.publish(finished("A"))

        assert ids_in(settings) == [finished("A").id]
    with Journal.open(moved / path.name) as journal:
        assert [entry.message.properties.message_id for entry in journal.read(0, 10)] == [started("A").id]
    (told,) = warnings_in(caplog)
    assert "is another file now" in told


def test_what_is_kept_in_mind_of_a_removed_journal_is_not_taken_for_the_new_one_s(broker: Broker) -> None:
    """
    Another file numbers its rows from 1 again: a message with the number of a confirmed one is still delivered.
    """
    settings = settings_of(broker)
    AmqpBus(settings).open_link().close()
    with broker.connect() as connection, Publisher.open(settings) as publisher:
        channel = connection.channel()
        channel.queue_declare("seen")
        channel.queue_bind("seen", "workflow.events.x", "#")
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        drainer = publisher._drainer
        assert drainer is not None
        assert drainer._outbox is not None
        drainer._outbox.unremoved.update({1, 2})
        for path in publisher.bus.journal_path.parent.iterdir():
            path.unlink()
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

        arrived = {properties.message_id for _, properties, _ in iter(lambda: channel.basic_get("seen"), (None,) * 3)}
    assert arrived == {started("A").id, finished("A").id}


def test_what_was_kept_beside_the_journal_goes_there_by_itself() -> None:
    """
    The start of a long task that publishes nothing more becomes visible to other processes.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings) as publisher:
        with closing(locked(settings)):
            publisher.publish(started("A"))

        wait_until(lambda: ids_in(settings) == [started("A").id])


def test_much_that_is_held_is_passed_over_once(broker: Broker) -> None:
    """
    If one permission is missing, the journal is not read from the beginning for each event.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    mine = broker.as_user(configure="^$", write=r"^workflow\.events\.x$", read="^$")
    settings = settings_of(mine)
    failures = [
        RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name=f"T{number}", dag_run_id="r")
        for number in range(300)
    ]
    with Publisher.open(settings) as publisher:
        for failure in failures:
            publisher.publish_failure(failure)
        publisher.publish(started("A"))
        wait_until(lambda: books_of(settings).confirmed == 1)
        drainer = publisher._drainer
        assert drainer is not None
        outbox = drainer._outbox
        assert outbox is not None
        wait_until(lambda: outbox._skipped[1] >= 300)

    assert books_of(settings) == Books(published=301, confirmed=1, pending=300, set_aside=0)


def test_who_has_delivered_is_not_alarmed_by_what_others_left(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """
    A publisher whose own events have arrived does not report the others.
    """
    AmqpBus(settings_of(broker)).open_link().close()
    mine = broker.as_user(configure="^$", write=r"^workflow\.events\.x$", read="^$")
    settings = settings_of(mine)
    with Publisher.open(settings) as publisher:
        publisher.publish_failure(
            RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="T", dag_run_id="r")
        )
        wait_until(lambda: len(warnings_in(caplog)) == 1)
    caplog.clear()
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

    assert not [text for text in warnings_in(caplog) if re.search(" events? waits? in ", text)]


FORKED = """
import os, threading
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

publisher = Publisher.open(DKISTProcessingCoreConfiguration())
is_over = threading.Event()

def load(name):
    number = 0
    while not is_over.is_set():
        publisher.publish(progressed(name, number))
        number += 1

threads = [threading.Thread(target=load, args=[name]) for name in "ABCD"]
for thread in threads:
    thread.start()
for _ in range(10):
    fork = os.fork()
    if fork == 0:
        os._exit(0 if publisher.flush(0.5) and not publisher.is_pending else 1)
    assert os.waitpid(fork, 0)[1] == 0
is_over.set()
for thread in threads:
    thread.join()
publisher.close(0.0)
"""


def test_a_fork_that_has_published_nothing_waits_for_nothing() -> None:
    """
    This holds whatever its parent's threads were doing at the fork.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert open_bus(DKISTProcessingCoreConfiguration()).journal_path.exists()


def without_rights(folder: Path) -> None:
    """
    Deny this process access to another user's folder: as another user, or by the folder's mode.
    """
    if os.getuid() == 0:
        os.setuid(65_534)
    else:
        folder.chmod(0)


@pytest.mark.parametrize("way", ["user", "root"])
def test_a_task_that_changes_its_user_or_its_root_takes_nothing_out_of_the_journal(way: str, tmp_path: Path) -> None:
    """
    An invisible file is not a removed file: messages of other processes stay there.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings) as other:
        other.publish(started("A"))

    def change() -> None:
        publisher = Publisher.open(settings)
        if way == "root" and os.getuid() == 0:
            os.chroot(tmp_path)
        else:
            without_rights(publisher.bus.journal_path.parent)
        publisher.publish(finished("A"))
        publisher.close()

    status = status_of_fork(change)

    open_bus(settings).journal_path.parent.chmod(0o700)
    assert status == 0
    assert ids_in(settings) == [started("A").id, finished("A").id]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A state folder for another user than root, who has no permission for the parent folders.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        monkeypatch.setenv("DKIST_CORE_STATE_DIR", folder)
        yield Path(folder)


def without_threads(folder: Path) -> None:
    """
    Deny this process further threads, as an ordinary user who owns a folder: root is not limited.
    """
    if os.getuid() == 0:
        os.chown(folder, 61_234, 61_234)
        os.setgroups([])
        os.setgid(61_234)
        os.setuid(61_234)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    with pytest.raises(RuntimeError):
        threading.Thread(target=int).start()


def test_without_a_thread_events_are_on_disk_and_delivered_at_the_close(broker: Broker, reachable: Path) -> None:
    """
    A process without a further thread delivers in the thread that closes.
    """
    settings = settings_of(broker)

    def publish() -> None:
        without_threads(reachable)
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"))
            assert ids_in(settings) == [started("A").id]
            publisher.close(SECONDS)

    assert status_of_fork(publish) == 0
    books = books_of(settings)
    assert (books.confirmed, books.pending) == (1, 0)


def test_without_a_thread_a_dead_broker_costs_no_more_than_the_limit(refusing_port: int, reachable: Path) -> None:
    """
    The wait is limited: the event stays in the journal.
    """
    settings = unreachable(refusing_port)

    def publish() -> None:
        without_threads(reachable)
        with Publisher.open(settings) as publisher:
            publisher.publish(started("A"))
            began = time.monotonic()
            publisher.close(1.0)
            assert time.monotonic() - began < 1.5

    assert status_of_fork(publish) == 0
    assert books_of(settings).pending == 1
