"""
The queue of the processes that wait for a journal while another one writes to it.

Not here: a publisher whose wait has timed out (test_degradation.py, test_storm.py).
"""

import pytest

from tests.running import run_python

# Each process appends its own name when it may start, and prints nothing: the journal shows the order.
QUEUE = """
import atexit, os, signal, sqlite3
from contextlib import suppress
from pathlib import Path
from dkist_processing_core.journal.message import Message
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import Properties
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.waiting import wait_until

bus = open_bus(DKISTProcessingCoreConfiguration())

class Waiter:
    def __init__(self, name, patience):
        start, self.start_ = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with bus.open_journal() as journal:
                os.read(start, 1)
                journal.patience = patience
                journal.append([Message("x", name, b"{{}}", Properties(name, "application/json"))])
            os._exit(0)
        atexit.register(self.end)

    def end(self):
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def start(self):
        os.write(self.start_, b"x")

    def has_ended(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 0

def queued():
    log = Path(f"{{bus.journal_path}}-wal").stat().st_ino
    return sum(f":{{log}} " in line and "FLOCK" in line for line in Path("/proc/locks").read_text().splitlines())

def names():
    with bus.open_journal() as journal:
        return [entry.message.routing_key for entry in journal.read(0, 100)]

def hold_journal():
    holder = sqlite3.connect(bus.journal_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    return holder

def free_journal(holder):
    holder.execute("ROLLBACK")
    holder.close()

def stop_in_queue(waiter):
    waiter.start()
    wait_until(lambda: queued() == 1, 5.0)
    os.kill(waiter.pid, signal.SIGSTOP)
    os.waitpid(waiter.pid, os.WUNTRACED)

with bus.open_journal():
    pass
{program}
"""

IN_ORDER = """
waiters = [Waiter(f"{number}", 20.0) for number in range(6)]
holder = hold_journal()
for number, waiter in enumerate(waiters):
    waiter.start()
    wait_until(lambda: queued() == number + 1, 5.0)
free_journal(holder)
print(all([waiter.has_ended() for waiter in waiters]), *names())
"""

BEHIND_ONE_THAT_IS_STOPPED = """
first, second = Waiter("first", 20.0), Waiter("second", 0.5)
holder = hold_journal()
stop_in_queue(first)
second.start()
wait_until(lambda: queued() == 2, 5.0)
free_journal(holder)
print(second.has_ended(), *names())
os.kill(first.pid, signal.SIGCONT)
print(first.has_ended(), *names())
"""


def test_processes_get_a_journal_in_the_order_in_which_they_came_for_it() -> None:
    """
    Of six processes that come while it is locked, none is overtaken by a later one.
    """
    done = run_python(QUEUE.format(program=IN_ORDER), {})

    assert (done.stdout, done.stderr) == ("True 0 1 2 3 4 5\n", "")


def test_a_process_that_is_stopped_in_the_queue_holds_up_no_other_beyond_its_patience() -> None:
    """
    The process behind it tries the journal again when its timeout is over, and finds it free.
    """
    done = run_python(QUEUE.format(program=BEHIND_ONE_THAT_IS_STOPPED), {})

    assert (done.stdout, done.stderr) == ("True second\nTrue second first\n", "")


IN_VAIN = """
from dkist_processing_core.errors import JournalError

def threads():
    return len(os.listdir("/proc/self/task"))

first = Waiter("first", 20.0)
with bus.open_journal() as journal:
    holder = hold_journal()
    stop_in_queue(first)
    before = threads()
    for _ in range(5):
        journal.patience = 0.05
        with suppress(JournalError):
            journal.remember("in vain")
    print(threads() - before, queued())
    free_journal(holder)
    os.kill(first.pid, signal.SIGCONT)
    print(first.has_ended())
    wait_until(lambda: queued() == 0, 5.0)
    wait_until(lambda: threads() == before, 5.0)
"""

FREE_BEHIND_ONE_THAT_IS_STOPPED = """
import time

first, second = Waiter("first", 20.0), Waiter("second", 20.0)
holder = hold_journal()
stop_in_queue(first)
second.start()
wait_until(lambda: queued() == 2, 5.0)
free_journal(holder)
began = time.monotonic()
print(second.has_ended(), *names())
print(time.monotonic() - began < 10.0)
"""


IN_TURNS = """
from itertools import groupby

start, start_ = os.pipe()
children = []
for name in "abc":
    pid = os.fork()
    if pid == 0:
        os.close(start_)
        with bus.open_journal(patience=20.0) as journal:
            os.read(start, 1)
            for number in range(100):
                journal.append([Message("x", name, b"{{}}", Properties(f"{{name}}-{{number}}", "application/json"))])
        os._exit(0)
    children.append(pid)
os.close(start_)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
with bus.open_journal() as journal:
    found = [entry.message.routing_key for entry in journal.read(0, 1000)]
turns = len(list(groupby(found)))
print(len(found), turns > 50 or turns)
"""

BESIDE_ONE_THAT_IS_STOPPED = """
import time

def append(number):
    journal.append([Message("x", "mine", b"{{}}", Properties(f"{{number}}", "application/json"))])

first = Waiter("first", 20.0)
with bus.open_journal() as journal:
    holder = hold_journal()
    stop_in_queue(first)
    journal.patience = 0.05
    with suppress(JournalError):
        append(0)
    free_journal(holder)
    journal.patience = 20.0
    began = time.monotonic()
    for number in range(100):
        append(number)
    print(time.monotonic() - began < 10.0)
"""


@pytest.mark.quiet  # a process that gets no processor time for a tenth of a second loses its turn
def test_processes_that_publish_in_a_loop_take_turns() -> None:
    """
    A process with frequent calls queues behind the others, which otherwise hardly ever find the journal free.
    """
    done = run_python(QUEUE.format(program=IN_TURNS.format()), {})

    assert (done.stdout, done.stderr) == ("[0, 0, 0]\n300 True\n", "")


def test_a_process_queues_once_behind_one_that_is_stopped_and_then_no_more() -> None:
    """
    It waits once for a free journal, and not once for each message.
    """
    program = f"from dkist_processing_core.errors import JournalError\n{BESIDE_ONE_THAT_IS_STOPPED.format()}"
    done = run_python(QUEUE.format(program=program), {})

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_process_that_is_stopped_in_the_queue_leaves_a_journal_that_is_free_to_the_others() -> None:
    """
    The process behind it checks the journal at intervals, and does not wait for its full time.
    """
    done = run_python(QUEUE.format(program=FREE_BEHIND_ONE_THAT_IS_STOPPED), {})

    assert (done.stdout, done.stderr) == ("True second\nTrue\n", "")


def test_each_call_that_waits_in_vain_takes_up_the_place_of_the_one_before() -> None:
    """
    Otherwise a process would have one more thread and descriptor with each call, for as long as the first one is
    stopped.
    """
    done = run_python(QUEUE.format(program=IN_VAIN), {})

    assert (done.stdout, done.stderr) == ("1 2\nTrue\n", "")


FORKED = """
import fcntl, os
from pathlib import Path
from dkist_processing_core.journal._queue import QueuePlace

journal = Path(os.environ["DKIST_CORE_STATE_DIR"], "x.db")
journal.parent.mkdir(exist_ok=True)
Path(f"{journal}-wal").touch()
release, begin = os.pipe()
told, tell = os.pipe()
if os.fork() == 0:
    place = QueuePlace(journal)
    print(place.wait(0.0), place.wait(0.0), flush=True)
    if os.fork() == 0:
        # It outlives its parent, which is killed at the head of the queue.
        os.close(begin)
        os.write(tell, b"x")
        os.read(release, 1)
        os._exit(0)
    os._exit(0)
os.wait()
os.read(told, 1)
with open(f"{journal}-wal") as log:
    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("free")
"""


def test_a_fork_keeps_no_place_of_its_parents() -> None:
    """
    Otherwise the queue would not move for as long as the fork lives.
    """
    done = run_python(FORKED, {})

    assert (done.stdout, done.stderr) == ("True False\nfree\n", "")


BESIDE = """
from dkist_processing_core.journal.message import Message
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import Properties
from dkist_processing_core.journal._queue import QueuePlace
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

bus = open_bus(DKISTProcessingCoreConfiguration())
with bus.open_journal() as first:
    place = QueuePlace(bus.journal_path)
    place.wait(0.0)
    with bus.open_journal() as second:
        place.leave()
        for journal in (first, second):
            journal.append([Message("x", "k", b"{}", Properties("", "application/json"))])
    print(len(first.pending(0, 10)))
"""


def test_a_connection_that_is_opened_beside_a_place_is_whole_when_the_place_is_left() -> None:
    """
    The descriptor of a place refers to the same file as one of SQLite's, and is separate from it.
    """
    done = run_python(BESIDE, {})

    assert (done.stdout, done.stderr) == ("2\n", "")


BY_ANOTHER_NUMBER = """
import os
from dkist_processing_core.journal.message import Message
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import Properties
from dkist_processing_core.journal._queue import QueuePlace
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

bus = open_bus(DKISTProcessingCoreConfiguration())
log = f"{bus.journal_path}-wal"

def numbers():
    found = {number: f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")}
    return [int(number) for number, path in found.items() if os.path.exists(path) and os.readlink(path) == log]

with bus.open_journal():
    (wanted,) = numbers()
open(log, "x").close()
null = os.open(os.devnull, os.O_RDONLY)
for number in range(128, wanted):
    os.dup2(null, number)
place = QueuePlace(bus.journal_path)
place.wait(0.0)
places = numbers()
os.closerange(3, 256)
with bus.open_journal() as journal:
    opened = numbers()
    place.leave()
    print(places == opened == numbers())
    journal.append([Message("x", "k", b"{}", Properties("", "application/json"))])
    print(journal.is_lost, len(journal.pending(0, 10)))
"""


def test_a_place_closes_no_log_of_sqlites_that_has_got_its_number() -> None:
    """
    The author's code has closed the place, and the journal was opened again: SQLite's log is the same file.
    """
    done = run_python(BY_ANOTHER_NUMBER, {})

    assert (done.stdout, done.stderr) == ("True\nFalse 1\n", "")


LOOKED_AT = """
import os
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.process.trusted_files import open_file

bus = open_bus(DKISTProcessingCoreConfiguration())
with bus.open_journal() as first:
    look = open_file(f"{bus.journal_path}-wal", os.O_RDONLY, sets_mode=False)
    with bus.open_journal():
        os.close(look)
        print(first.is_lost)
"""


def test_a_log_that_another_thread_looks_at_is_not_taken_for_sqlites() -> None:
    """
    Otherwise the end of the check would close the journal and open it again.
    """
    done = run_python(LOOKED_AT, {})

    assert (done.stdout, done.stderr) == ("False\n", "")
