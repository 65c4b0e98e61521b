"""
Objects of one process in its forks: finalizers, locks, and the progress that several processes of a task report.
"""

import gc
import multiprocessing
import os
import signal
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from dkist_processing_core import TaskBase
from dkist_processing_core.attempt import lifecycle
from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import TaskFailed, TaskProgressed
from dkist_processing_core.process import forks
from dkist_processing_core.runs import RunState
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.running import run_python, status_of_fork


class Owner:
    """
    The owner of a finalizer.
    """


def test_a_finalizer_acts_only_in_the_process_that_made_it() -> None:
    """
    A fork inherits it, and runs it at its exit: it would act on objects that its parent still uses.
    """
    read, write = os.pipe()
    owner = Owner()
    finalizer = forks.finalize(owner, lambda: os.write(write, b"%d" % os.getpid()))

    in_fork = status_of_fork(finalizer)
    del owner
    gc.collect()

    assert in_fork == 0
    assert os.read(read, 100) == b"%d" % os.getpid()
    os.close(read)
    os.close(write)


def test_a_lock_that_a_thread_holds_is_free_in_a_fork() -> None:
    """
    The thread does not exist there, and would never release it; in its own process the lock is still held.
    """
    lock = forks.Lock()
    is_held, is_over, has_lock = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait()

    def use() -> None:
        for _ in range(2):
            with lock:
                has_lock.set()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    in_fork = status_of_fork(use)
    waiter = threading.Thread(target=use)
    waiter.start()
    had_lock = has_lock.wait(0.2)
    is_over.set()
    holder.join()
    waiter.join()

    assert in_fork == 0
    assert not had_lock
    assert has_lock.is_set()


def test_a_fork_beside_the_sqlite_of_other_threads_ends(tmp_path: Path) -> None:
    """
    A thread that is inside SQLite during the fork holds SQLite's own locks, and does not exist in the fork.
    """
    is_over = threading.Event()

    def use(file: Path) -> None:
        while not is_over.is_set():
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("SELECT * FROM sqlite_master").fetchall()

    threads = [threading.Thread(target=use, args=(tmp_path / f"{number}.db",)) for number in range(3)]
    with open_bus(read_settings()).open_journal():
        for thread in threads:
            thread.start()
        try:
            ends = [status_of_fork(lambda: None) for _ in range(60)]
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    assert ends == [0] * 60


KILLED = """
import os, signal
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed

Publisher.open(read_settings()).publish(failed("Killed"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fork_removes_no_log_that_a_later_process_has_left() -> None:
    """
    The last connection to a file removes its log by its path, and that of the fork is older than the log.
    """
    bus = open_bus(read_settings())
    read, write = os.pipe()
    with bus.open_journal():
        fork = os.fork()
        if fork == 0:
            try:
                os.read(read, 1)
                with Publisher.open(read_settings()) as publisher:
                    publisher.publish(failed("Fork"))
            finally:
                os._exit(0)
    killed = run_python(KILLED, {})
    os.write(write, b".")
    os.waitpid(fork, 0)
    os.close(read)
    os.close(write)
    with Publisher.open(read_settings()):
        pass

    assert killed.returncode == -signal.SIGKILL
    with subscribe(replay=True, timeout=0) as events:
        assert {event.task_name for event in events if isinstance(event, TaskFailed)} == {"Killed", "Fork"}


class Counting:
    """Counts how often it has begun in a fork."""

    begun = 0

    def begin_in_fork(self) -> None:
        """Count one more fork."""
        self.begun += 1


def test_an_object_of_a_process_begins_anew_in_each_fork_and_only_there() -> None:
    """A fork needs no separate check before it uses objects that its parent has opened."""
    counting = Counting()
    forks.begin_in_forks(counting)

    def use(times: int) -> None:
        assert counting.begun == times
        if times < 2:
            assert status_of_fork(lambda: use(times + 1)) == 0

    in_fork = status_of_fork(lambda: use(1))

    assert in_fork == 0
    assert counting.begun == 0


class Slow:
    """
    Its property takes the given time to compute.
    """

    computing, may_end = threading.Event(), threading.Event()

    def __init__(self, *, is_slow: bool) -> None:
        """
        Compute at once, or slowly.
        """
        self.is_slow = is_slow

    @forks.computed_once
    def value(self) -> object:
        """
        A new value.
        """
        if self.is_slow:
            self.computing.set()
            self.may_end.wait()
        return object()


def test_a_value_that_a_thread_computes_is_computed_anew_in_a_fork() -> None:
    """
    The fork does not wait for a thread of its parent; in the parent, the value is kept.
    """
    slow, quick = Slow(is_slow=True), Slow(is_slow=False)
    values: list[object] = []
    thread = threading.Thread(target=lambda: values.append(slow.value))
    thread.start()
    Slow.computing.wait()

    in_fork = status_of_fork(lambda: quick.value)
    Slow.may_end.set()
    thread.join()

    assert in_fork == 0
    assert values == [slow.value]
    assert quick.value is quick.value


def reported(task_class: type[TaskBase]) -> list[TaskProgressed]:
    """
    Return the progress that a task reports, each report once.
    """
    with task_class(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
        task()
    return [event for event in subscribe(replay=True, timeout=0) if isinstance(event, TaskProgressed)]


class Forking(TaskBase):
    """
    Reports from itself, from its forks, and from a fork of one of these.
    """

    def run(self) -> None:
        """
        Process four parts in other processes and one here.
        """
        self.progress(0, 5)
        for done in (1, 2, 3):
            assert status_of_fork(lambda part=done: self.report(part)) == 0  # type: ignore[misc]
        self.progress(5, 5)

    def report(self, done: int) -> None:
        """
        Report a part, the last one with a fork.
        """
        self.progress(done, 5)
        if done == 3:
            assert status_of_fork(lambda: self.progress(4, 5)) == 0


def test_progress_from_forks_has_numbers_of_its_own() -> None:
    """
    Each report is another event, and the latest of them has the highest number, whichever process sent it.
    """
    reports = reported(Forking)

    assert [report.done for report in reports] == [0, 1, 2, 3, 4, 5]
    assert len({report.id for report in reports}) == 6
    numbers = [report.sequence for report in reports]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    assert numbers[-1] < 2**53
    (run,) = RunState(reports).runs
    assert run.tasks[0].attempts[0].progress == reports[-1]


class Inheriting(TaskBase):
    """
    Reports from all processes of a pool, which have inherited the task.
    """

    def run(self) -> None:
        """
        Have each process report once.
        """
        barrier = multiprocessing.get_context("fork").Barrier(4)
        members = [
            multiprocessing.get_context("fork").Process(target=self.report, args=(barrier, done)) for done in range(4)
        ]
        for member in members:
            member.start()
        for member in members:
            member.join()
        assert [member.exitcode for member in members] == [0] * 4

    def report(self, barrier: "threading.Barrier", done: int) -> None:
        """
        Report at the same time as the others.
        """
        barrier.wait()
        self.progress(done, 4)


def test_processes_that_report_at_the_same_instant_have_numbers_of_their_own() -> None:
    """
    They share nothing, so none of them can leave anything locked.
    """
    reports = reported(Inheriting)

    assert sorted(report.done for report in reports) == [0, 1, 2, 3]
    assert len({report.id for report in reports}) == 4


class Pooling(TaskBase):
    """
    Reports for a pool, and has the pool's processes try to report for themselves.
    """

    context: BaseContext

    def run(self) -> None:
        """
        Have three parts processed in other processes.
        """
        with ProcessPoolExecutor(2, self.context) as pool:
            for done in pool.map(self.work, [1, 2, 3]):
                self.progress(done, 3)

    def work(self, part: int) -> int:
        """
        Process one part.
        """
        self.progress(-part)
        return part


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_copy_of_a_task_in_a_pool_leaves_its_progress_to_the_task(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A pool gets a copy without an attempt; the task reports progress as results come back.
    """
    monkeypatch.setattr(Pooling, "context", multiprocessing.get_context(method), raising=False)
    monkeypatch.setattr(lifecycle, "PROGRESS_SECONDS", 0.0)  # however far apart the results come back

    reports = reported(Pooling)

    assert [report.done for report in reports] == [1, 2, 3]
    assert all(report.done > 0 for report in reports)
