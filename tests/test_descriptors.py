"""
Tasks that close foreign descriptors, and open files that get their numbers.

The files must contain the task's output, and the events must arrive. Not here: inherited descriptors in a fork
(test_processes.py).
"""

import contextlib
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import FrameType

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.session import Session
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError, JournalError, JournalLostError
from dkist_processing_core.events import TaskFailed
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.locks import FileLock, folder_lock
from dkist_processing_core.process.descriptors import HeldDescriptors, low_numbers_taken, move_up
from tests.bus.contract import SECONDS
from tests.facts import finished, started
from tests.launched import close_descriptors
from tests.running import ROOT, status_of_fork
from tests.services.broker import Broker
from tests.services.sockets import BlackHole
from tests.test_degradation import ids_in, locked
from tests.test_delivery import books_of, settings_of
from tests.test_faults import launch
from tests.waiting import wait_until

WRITTEN = b"x" * 57_600
BY_HAND = """
import os, sys
from pathlib import Path
from tests.launched import ClosesDescriptors

# One process for each way, without importing everything each time.
for number, named in enumerate(os.environ["WAYS"].split()):
    child = os.fork()
    if child == 0:
        os.environ["CLOSED"], os.environ["COUNT"] = named.split("*")
        os.environ["WRITTEN"] = f"{os.environ['WRITTEN']}/{number}"
        Path(os.environ["WRITTEN"]).mkdir()
        with ClosesDescriptors(recipe_run_id=1, workflow_name=f"w{number}", workflow_version="1") as task:
            task()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, (named, status)
"""


def damaged_in(folder: Path) -> dict[str, int]:
    """
    Return the files that do not hold what the task wrote, with their sizes; there must be some files.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return {str(path.relative_to(folder)): path.stat().st_size for path in files if path.read_bytes() != 2 * WRITTEN}


def run_by_hand(folder: Path, ways: list[str], **environment: str) -> str:
    """
    Call the task by hand once for each way, in separate processes, and return their logs.
    """
    done = subprocess.run(
        [sys.executable, "-c", BY_HAND],
        cwd=ROOT,
        env={**os.environ, **environment, "WRITTEN": str(folder), "WAYS": " ".join(ways)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_files_of_a_task_by_hand_hold_what_it_wrote_whatever_it_closed_before(tmp_path: Path) -> None:
    """
    No part of the journal is written into them, even if they are so many that they get its numbers. All events arrive.
    """
    ways = ["256*8", "65536*8", "embedded.db*8", "-wal*8", "-shm*8", "65536*270", "embedded.db*270", "-wal*270"]

    log = run_by_hand(tmp_path, ways)

    assert not damaged_in(tmp_path)
    # The next process that opens the journal moves the messages of the spare file into it.
    open_bus(DKISTProcessingCoreConfiguration()).open_journal().close()
    heard = {(event.run.workflow_name, event.name.rpartition(".")[2]) for event in subscribe(replay=True, timeout=0)}
    names = ("started", "progressed", "finished")
    assert heard == {(f"w{number}", name) for number in range(len(ways)) for name in names}
    # Only if the files now have the numbers, the journal cannot be opened again.
    assert log.count("can no longer be used by this process") == 3


def test_files_of_a_task_by_hand_are_whole_beside_a_thread_that_delivers(broker: Broker, tmp_path: Path) -> None:
    """
    The connection to the broker is opened again; the next process delivers the messages outside the outbox.
    """
    settings = settings_of(broker)
    ways = ["256*8", "65536*8", "socket*8", ".lock*8", ".db*8", "65536*270", "socket*270"]

    run_by_hand(tmp_path, ways, **broker.env)
    with Publisher.open(settings) as publisher:
        publisher.include_backlog()
        wait_until(lambda: books_of(settings).pending == 0)

    assert not damaged_in(tmp_path)
    # A fact is yielded once, and there is one end for each way.
    ended = islice(subscribe("task.finished", replay=True, timeout=SECONDS, settings=settings), len(ways))
    assert sorted(event.run.workflow_name for event in ended) == [f"w{number}" for number in range(len(ways))]


def replaced_at(function: str) -> tuple[Callable[..., None], list[int]]:
    """
    Return a trace function that puts a file into the place of each socket opened from now on, as `function` is called,
    and the list of the numbers that it has replaced.
    """
    earlier = set(sockets())
    numbers: list[int] = []

    def trace(frame: FrameType, *_: object) -> None:
        if frame.f_code.co_qualname.endswith(function) and not numbers:
            numbers.extend(set(sockets()) - earlier)
            with Path(os.devnull).open() as file:
                for number in numbers:
                    os.dup2(file.fileno(), number)

    return trace, numbers


def sockets() -> list[int]:
    """
    Return the numbers of this process's sockets.
    """
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += [int(each.name)] if each.is_socket() else []
    return found


def are_the_null_device(numbers: list[int]) -> bool:
    """
    Return True if there are such numbers and each still refers to the file that has replaced a socket.
    """
    return bool(numbers) and {os.fstat(number).st_rdev for number in numbers} == {Path(os.devnull).stat().st_rdev}


def test_sockets_replaced_as_a_connection_is_closed_are_the_authors(broker: Broker) -> None:
    """
    The connection waits for the broker's answer meanwhile; its end closes none of the files.
    """
    settings = settings_of(broker)

    def lose() -> None:
        trace, numbers = replaced_at("run_for")
        session = Session.open(settings, SECONDS)
        sys.settrace(trace)
        session.close()
        sys.settrace(None)
        del session
        gc.collect()
        assert are_the_null_device(numbers)

    assert status_of_fork(lose) == 0


@pytest.mark.parametrize("step", ["_move_up", "create_streaming_connection"])
def test_sockets_replaced_as_they_are_made_are_the_authors(step: str, broker: Broker) -> None:
    """
    A socket has a low number for a moment, which the author's files may get; they are neither moved nor closed.
    """
    settings = settings_of(broker)

    def lose() -> None:
        trace, numbers = replaced_at(step)
        sys.settrace(trace)
        with pytest.raises(BusUnreachableError, match="other code of this process has closed"):
            Session.open(settings, SECONDS)
        sys.settrace(None)
        gc.collect()
        assert are_the_null_device(numbers)

    assert status_of_fork(lose) == 0


def test_sockets_replaced_as_the_client_takes_them_over_are_no_error_of_this_package(broker: Broker) -> None:
    """
    Pika takes the file in the place of its socket for a mistake of its caller.
    """
    settings = settings_of(broker)

    def lose() -> None:
        trace, numbers = replaced_at("_AsyncStreamConnector.__init__")
        sys.settrace(trace)
        with pytest.raises(BusUnreachableError, match="other code of this process has closed"):
            Session.open(settings, SECONDS)
        sys.settrace(None)
        assert numbers

    assert status_of_fork(lose) == 0


def test_a_thread_that_resolves_a_name_ends_quietly_where_the_sockets_were_replaced(broker: Broker) -> None:
    """
    It has a connection to wake, and writes to none of the files that have its numbers.
    """
    mesh = broker.env["MESH_CONFIG"].replace("127.0.0.1", "localhost")
    settings = DKISTProcessingCoreConfiguration(mesh_config=mesh)

    def lose() -> None:
        ended: list[object] = []
        threading.excepthook = ended.append
        trace, numbers = replaced_at("_resolve")
        threading.settrace(trace)
        with pytest.raises(BusUnreachableError, match="other code of this process has closed"):
            Session.open(settings, SECONDS)
        # The connection notices the first number that is replaced, which may be before the other is.
        wait_until(lambda: threading.active_count() == 1)
        assert are_the_null_device(numbers)
        assert not ended

    assert status_of_fork(lose) == 0


CLOSES_AS_IT_CONNECTS = """
import logging, os, queue, socket, stat, sys
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import started
from tests.waiting import wait_until

said, found = queue.SimpleQueue(), []

class Lines(logging.Handler):
    def emit(self, record):
        said.put(record.getMessage())

logging.getLogger().addHandler(Lines())

def is_connecting():
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as copy:
                    if copy.family == socket.AF_INET:
                        found.append(number)
        except OSError:
            pass
    return bool(found)

bus = open_bus(DKISTProcessingCoreConfiguration())
publisher = Publisher.open(bus.settings)
publisher.publish(started("A"))

def takes_it_away():
    # On a slow machine the connection may have been given up a moment ago; another one follows.
    found.clear()
    if not is_connecting():
        return False
    if sys.argv[1] == "closes":
        try:
            os.close(found[0])
        except OSError:
            return False
    else:
        with open(os.devnull) as file:
            os.dup2(file.fileno(), found[0])
    return True

wait_until(takes_it_away)
print(said.get(timeout=300))
with bus.open_journal() as journal:
    print(journal.unreachable_until)
os._exit(0)
"""


@pytest.mark.parametrize("way", ["closes", "replaces"])
@pytest.mark.parametrize("answer", ["accepts", "is silent"])
def test_a_broker_counts_as_well_where_a_task_closes_the_socket_as_it_is_connected(
    way: str, answer: str, black_hole: BlackHole
) -> None:
    """
    Before and after the network has answered: other processes of the host try it at once.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as clients:
        port = black_hole.port if answer == "accepts" else full.getsockname()[1]
        for _ in range(3):
            # The kernel answers no connection while that many wait to be accepted.
            client = clients.enter_context(socket.socket())
            client.settimeout(0.0)
            client.connect_ex(full.getsockname())
        mesh = json.dumps({"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": port}})
        done = subprocess.run(
            [sys.executable, "-c", CLOSES_AS_IT_CONNECTS, way],
            cwd=ROOT,
            env={**os.environ, "MESH_CONFIG": mesh, "EVENT_FLUSH_TIMEOUT": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    assert done.returncode == 0, done.stderr
    line, mark = done.stdout.splitlines()
    assert float(mark) == 0
    assert "other code of this process has closed the connection's descriptors" in line


@pytest.mark.parametrize("way", ["256*8", "65536*8", "65536*270"])
def test_a_launched_task_that_closed_the_pipe_to_its_launcher_is_believed_by_its_journal(
    way: str, tmp_path: Path
) -> None:
    """
    Its end is in the journal, written in one transaction with a note for the launcher: success, reported once.
    """
    closed, count = way.split("*")

    with launch("ClosesDescriptors", CLOSED=closed, COUNT=count, WRITTEN=str(tmp_path)) as launched:
        status = launched.wait()

    assert status == 0, launched.lines
    assert not damaged_in(tmp_path)
    ends = [
        (event.name.rpartition(".")[2], event.reported_by)
        for event in subscribe("task.finished", "task.failed", replay=True, every_report=True, timeout=0)
    ]
    assert ends == [("finished", "task")]


def test_a_task_that_closed_the_pipe_is_believed_by_what_it_kept_beside_a_journal_that_is_locked(
    tmp_path: Path,
) -> None:
    """
    The launcher finds the note in the spare file, and waits for no process that writes to the journal.
    """
    settings = DKISTProcessingCoreConfiguration()
    open_bus(settings).open_journal().close()

    with (
        contextlib.closing(locked(settings)),
        launch("ClosesDescriptors", CLOSED="65536", WRITTEN=str(tmp_path)) as launched,
    ):
        status = launched.wait()

    assert status == 0, launched.lines
    ends: list[tuple[str, str | None]] = []

    def is_moved() -> bool:
        # One opening of the journal moves what it can in a short time.
        open_bus(settings).open_journal().close()
        events = subscribe("task.finished", "task.failed", replay=True, every_report=True, timeout=0)
        ends[:] = [(event.name.rpartition(".")[2], event.reported_by) for event in events]
        return bool(ends)

    wait_until(is_moved)
    assert ends == [("finished", "task")]


def test_a_launched_task_whose_counters_have_our_numbers_fails_for_its_own_reason() -> None:
    """
    fstat(2) cannot distinguish counters: a read of one of the task's would block without end.
    """
    with launch("OpensCounters") as launched:
        status = launched.wait()

    assert status == 1, launched.lines
    (end,) = subscribe("task.finished", "task.failed", replay=True, every_report=True, timeout=0)
    assert isinstance(end, TaskFailed)
    assert (end.cause, end.message) == ("exception", "counted")


def test_the_note_of_an_earlier_start_is_not_believed(tmp_path: Path) -> None:
    """
    The same attempt, launched again and killed, has failed, though its journal contains the end of the first start.
    """
    variables = {"CLOSED": "65536", "WRITTEN": str(tmp_path)}
    with launch("ClosesDescriptors", **variables) as first:
        before = first.wait()

    with launch("ClosesDescriptors", **variables, KILLED="") as again:
        status = again.wait()

    assert (before, status) == (0, 128 + signal.SIGKILL)


def test_every_connection_to_a_file_is_given_up_together() -> None:
    """
    The kernel drops all locks of a process on a file when one of its descriptors is closed: all connections are
    invalid.
    """
    settings = DKISTProcessingCoreConfiguration()
    with open_bus(settings).open_journal() as one, open_bus(settings).open_journal() as other:
        close_descriptors("-shm")

        with pytest.raises(JournalLostError, match="has closed descriptors of the journal"):
            one.last()
        with pytest.raises(JournalLostError):
            other.last()
        assert (one.is_lost, other.is_lost) == (True, True)
        with open_bus(settings).open_journal() as again:
            assert again.last() == 0


def test_a_number_that_is_an_author_s_by_now_is_never_closed(tmp_path: Path) -> None:
    """
    Neither a close, nor the garbage collector, nor the interpreter's exit closes it; the journal is not used any more.
    """
    path = tmp_path / "journal.db"

    def lose() -> None:
        journal = Journal.open(path)
        number, *_ = held_by(path)
        os.close(number)
        with (tmp_path / "author").open("wb") as file:
            os.dup2(file.fileno(), number)
        journal.close()
        del journal
        gc.collect()
        assert os.fstat(number).st_ino == (tmp_path / "author").stat().st_ino
        with pytest.raises(JournalError, match="can no longer be used by this process"):
            Journal.open(path)

    assert status_of_fork(lose) == 0


def held_by(path: Path) -> list[int]:
    """
    Return the numbers under which this process has a file open.
    """
    return [int(each.name) for each in Path("/proc/self/fd").iterdir() if os.path.realpath(each) == str(path)]


def test_a_lock_whose_descriptor_was_closed_is_held_no_more(tmp_path: Path) -> None:
    """
    The kernel has released it. It is acquired again, and the number's next owner keeps its file.
    """
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    (number,) = held_by(tmp_path / "lock")
    os.close(number)
    author = os.open("/dev/null", os.O_RDONLY)
    os.dup2(author, number)

    assert not lock.is_held
    lock.release()
    assert os.fstat(number).st_rdev == os.fstat(author).st_rdev
    assert lock.acquire()
    lock.release()
    os.close(number)
    os.close(author)


def test_high_numbers_fit_a_small_limit_on_open_files() -> None:
    """
    They begin at a quarter of the limit, so that opening a journal leaves room for the author's files.
    """

    def open_some() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        os.closerange(3, 64)
        with low_numbers_taken():
            assert os.open("/dev/null", os.O_RDONLY) == 16
        assert os.open("/dev/null", os.O_RDONLY) == 3
        assert move_up(3) == 17

    assert status_of_fork(open_some) == 0


def test_what_is_held_is_known_by_what_it_is() -> None:
    """
    A free number is not the recorded file, and neither is another file with the same number.
    """
    number = move_up(os.open("/dev/null", os.O_RDONLY))
    held = HeldDescriptors([number])
    before = held.are_ours
    os.close(number)
    freed = held.are_ours
    other = os.open("/", os.O_RDONLY)
    os.dup2(other, number)

    assert (before, freed, held.are_ours) == (True, False, False)
    os.close(number)
    os.close(other)


def test_a_publisher_goes_on_in_the_same_journal_when_its_descriptors_were_closed() -> None:
    """
    No message was kept in a spare file, and no work is left for other processes.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        close_descriptors(".db")
        publisher.publish(finished("A"))

        assert ids_in(settings) == [started("A").id, finished("A").id]
        assert publisher._shelf._overflow._spare is None


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_a_fork_keeps_no_lock_that_another_thread_takes_meanwhile(kind: str, tmp_path: Path) -> None:
    """
    At any time of the fork: a lock that its parent has released is free for other processes while the fork lives on.
    """
    lock = FileLock(tmp_path / "a.lock")
    is_over = threading.Event()

    def take() -> None:
        while not is_over.is_set():
            if kind == "a file":
                lock.acquire()
                lock.release()
            else:
                with folder_lock(tmp_path, seconds=SECONDS):
                    pass

    until, stay = os.pipe()
    forked, begun = os.pipe()
    taking = threading.Thread(target=take)
    taking.start()
    children = []
    for _ in range(60):
        children.append(os.fork())
        if not children[-1]:
            os.close(stay)
            os.write(begun, b".")
            os.read(until, 1)
            os._exit(0)
    is_over.set()
    taking.join()
    count = 0
    while count < len(children):
        count += len(os.read(forked, len(children)))

    try:
        if kind == "a file":
            assert [child for child in children if lock.path.resolve() in files_of(child)] == []
        else:
            with folder_lock(tmp_path, exclusive=True, seconds=0.0):
                pass
    finally:
        os.close(stay)
        for child in children:
            os.waitpid(child, 0)
        for descriptor in (until, forked, begun):
            os.close(descriptor)


def files_of(process: int) -> set[Path]:
    """
    Return the files that a process has open.
    """
    return {each.readlink() for each in Path(f"/proc/{process}/fd").iterdir()}
