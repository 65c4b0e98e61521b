"""
Tasks that end in each possible way, for the launcher to distinguish; importable, so that it can start them.

Each writes the time right before its end to a file in the folder that FAULT_MARKS names. Those that wait for nothing
first live for LIVES_SECONDS, and write a log.
"""

import contextlib
import ctypes
import logging
import mmap
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path

from dkist_processing_core import TaskBase, Workflow
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.journal.locks import FileLock
from tests.waiting import wait_until

_MEBIBYTE = 1024 * 1024


LINES = 30
"""How many lines a task logs that lives for some time."""


def live() -> None:
    """
    Log some lines, and be here for some seconds, once in a process; do nothing if the test wants none.
    """
    seconds = float(os.environ.pop("LIVES_SECONDS", "0"))
    if seconds:
        for number in range(LINES):
            logging.getLogger("author").info("line %d", number)
        signal.sigtimedwait([], seconds)


def mark() -> None:
    """
    Write the current time, under the name of the task.
    """
    live()
    folder = os.environ.get("FAULT_MARKS")
    if folder:
        Path(folder, sys._getframe(1).f_locals["self"].task_name).write_text(repr(time.time()))


def wait_for_ever() -> None:
    """
    Print that the task waits, and wait without an end.
    """
    live()
    print("waiting", flush=True)  # noqa: T201 - read by a test
    os.read(os.pipe()[0], 1)


def _read(descriptor: int) -> bytes:
    return os.read(descriptor, 1)


def _begin(pipes: tuple[int, int]) -> bytes:
    os.write(pipes[0], b".")
    return _read(pipes[1])


class Succeeds(TaskBase):
    """
    Succeeds.
    """

    def run(self) -> None:
        """
        Do nothing.
        """
        mark()


class Raises(TaskBase):
    """
    Fails with an exception, as most tasks do.
    """

    def run(self) -> None:
        """
        Raise an exception.
        """
        mark()
        raise ArithmeticError("wanted")


class Exits3(TaskBase):
    """
    Exits by sys.exit with a number.
    """

    def run(self) -> None:
        """
        Exit with 3.
        """
        mark()
        sys.exit(3)


class Exits99(TaskBase):
    """
    Exits with the number that Airflow takes for a skip by default.
    """

    def run(self) -> None:
        """
        Exit with 99.
        """
        mark()
        sys.exit(99)


class LeavesInTheMiddle(TaskBase):
    """
    Exits by `os._exit`, with the status of a success.
    """

    def run(self) -> None:
        """
        Exit with 0.
        """
        mark()
        os._exit(0)


class IsKilled(TaskBase):
    """
    Is killed by a signal.
    """

    def run(self) -> None:
        """
        Kill this process.
        """
        mark()
        os.kill(os.getpid(), signal.SIGKILL)


class Crashes(TaskBase):
    """
    Reads from an invalid address, as a faulty extension module does.
    """

    def run(self) -> None:
        """
        Read from address 0.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        mark()
        ctypes.string_at(0)


class TakesAllMemory(TaskBase):
    """
    Allocates memory until the kernel kills it.
    """

    def run(self) -> None:
        """
        Allocate and write one MiB at a time, up to 2 GiB where the memory of this process is not limited.

        A single allocation would leave no time to measure the growth.
        """
        taken = []
        for _ in range(2048):
            mark()
            taken.append(mmap.mmap(-1, _MEBIBYTE))
            taken[-1].write(b"x" * _MEBIBYTE)
            signal.sigtimedwait([], 0.005)


class TakesAllAddressSpace(TaskBase):
    """
    Allocates more memory than its limit allows.
    """

    def run(self) -> None:
        """
        Allocate a GiB where the limit leaves 64 MiB.
        """
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 64 * _MEBIBYTE, resource.RLIM_INFINITY))
        mark()
        bytearray(1024 * _MEBIBYTE)


class Waits(TaskBase):
    """
    Waits until it is terminated.
    """

    def run(self) -> None:
        """
        Wait.
        """
        wait_for_ever()


class SucceedsWhenTold(TaskBase):
    """
    Catches the termination, and succeeds when the test requests it.
    """

    def run(self) -> None:
        """
        Wait for the termination, and then for the file named told in the folder of the marks.
        """
        try:
            wait_for_ever()
        except SystemExit:
            wait_until(Path(os.environ["FAULT_MARKS"], "told").exists)


class Pools(TaskBase):
    """
    Waits for the workers of a pool, which are forks of it.
    """

    def run(self) -> None:
        """
        Start two workers that wait.
        """
        (never, _), (begun, begin) = os.pipe(), os.pipe()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            # Both work before the line is printed: an exception while a pool of Python hands out work may leave the
            # pool waiting without an end, which is another matter.
            waiting = pool.map_async(_begin, [(begin, never)] * 2, chunksize=1)
            for _ in range(2):
                os.read(begun, 1)
            live()
            print("waiting", flush=True)  # noqa: T201 - read by a test
            waiting.get()


class HearsNothing(TaskBase):
    """
    Ignores SIGTERM.
    """

    def run(self) -> None:
        """
        Wait, without a reaction to SIGTERM.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait_for_ever()


class LeavesGrandchild(TaskBase):
    """
    Leaves a process that keeps all inherited descriptors open.
    """

    def run(self) -> None:
        """
        Start a process that waits until the test ends it, by the file named grandchild in the folder of the marks.
        """
        child = os.fork()
        if child == 0:
            os.execv("/bin/sleep", ["sleep", "60"])
        Path(os.environ["FAULT_MARKS"], "grandchild").write_text(str(child))
        mark()


class FailsAfterwards(TaskBase):
    """
    Finishes, and fails while it releases its resources.
    """

    def run(self) -> None:
        """
        Do nothing.
        """

    def __exit__(self, *_: object) -> None:
        """
        Raise an exception.
        """
        mark()
        raise OSError("the scratch folder is not empty")


class ShowsItsEnvironment(TaskBase):
    """
    Prints the names of its variables, and the values of some.
    """

    def run(self) -> None:
        """
        Print one variable a line.
        """
        for name, value in sorted(os.environ.items()):
            print(f"{name}={value}")  # noqa: T201 - read by a test


class StartsAnother(TaskBase):
    """
    Starts a program, which stays in its process group.
    """

    def run(self) -> None:
        """
        Start a program and wait.
        """
        child = subprocess.Popen(["/bin/sleep", "60"])
        Path(os.environ["FAULT_MARKS"], "grandchild").write_text(str(child.pid))
        wait_for_ever()


class HoldsSecrets(TaskBase):
    """
    Has two secrets in its log, in the names of threads, in its progress and in variables, and waits.
    """

    def run(self) -> None:
        """
        Use a given secret, and one that this task sets itself.
        """
        given = os.environ["SITE_TOKEN"]
        own = os.environ["OWN_PASSWORD"] = given[::-1]
        log = logging.getLogger("author")
        for secret in (given, own):
            log.warning("log in with %s", secret)
            threading.Thread(target=threading.Event().wait, name=f"for {secret}", daemon=True).start()
        try:
            int(given)
        except ValueError:
            log.exception("trying %s", own)
        self.progress(1, 2, "file", f"as {given}, then as {own}")
        wait_for_ever()


class HasMuch(TaskBase):
    """
    Has more threads and log lines than an event has room for, and waits.
    """

    def run(self) -> None:
        """
        Start 200 threads, log 10,000 lines, and wait.
        """
        event = threading.Event()
        for number in range(200):
            threading.Thread(target=event.wait, name=f"worker {number}", daemon=True).start()
        log = logging.getLogger("author")
        for number in range(10_000):
            log.info("step %d", number)
        wait_for_ever()


class SpeaksInSpans(TaskBase):
    """
    Opens a span.
    """

    def run(self) -> None:
        """
        Open a span.
        """
        with self.telemetry_span("own step"):
            pass


class WorksHard(TaskBase):
    """
    Uses processor time and memory, and is then killed.
    """

    def run(self) -> None:
        """
        Compute with 100 MiB for longer than there is between two samples, and kill this process.
        """
        held = b"x" * (100 * _MEBIBYTE)
        until = time.process_time() + 1.5
        while time.process_time() < until:
            sum(held[:1000])
        os.kill(os.getpid(), signal.SIGKILL)


class UsesResources(TaskBase):
    """
    Writes and reads as much as one variable requires, computes in two processes as the other does, and holds 200 MiB.
    """

    def run(self) -> None:
        """
        Use them one after the other, and write down the processor time of this process and its children.
        """
        size, seconds = int(os.environ["USED_BYTES"]), float(os.environ["USED_SECONDS"])
        path = Path(os.environ["FAULT_MARKS"], "used")
        with path.open("wb", buffering=0) as file:
            for _ in range(size // _MEBIBYTE):
                file.write(b"x" * _MEBIBYTE)
        with path.open("rb", buffering=0) as file:
            while file.read(_MEBIBYTE):
                pass
        workers = [os.fork() for _ in range(2) if os.getpid() == self._pid]
        if os.getpid() != self._pid:
            while time.process_time() < seconds:
                pass
            os._exit(0)
        for worker in workers:
            os.waitpid(worker, 0)
        # More than the two copies of this process had, whose shared memory counts for each.
        held = bytearray(200 * _MEBIBYTE)
        held[:: mmap.PAGESIZE] = b"x" * len(held[:: mmap.PAGESIZE])
        signal.sigtimedwait([], 0.5)
        used = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        path.with_name("computed").write_text(str(sum(each.ru_utime + each.ru_stime for each in used)))

    @cached_property
    def _pid(self) -> int:
        return os.getpid()


class LiesOnItsStreams(TaskBase):
    """
    Writes lines of the report pipe to its standard streams, and exits before its end.
    """

    def run(self) -> None:
        """
        Write down the three descriptors, and print the report of a success.
        """
        found = [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)]
        Path(os.environ["FAULT_MARKS"], "descriptors").write_text("\n".join(found))
        for number in (1, 2):
            os.write(number, b'{"returned": true}\n')
        os._exit(0)


class LeavesOrphans(TaskBase):
    """
    Starts processes that outlive their parent, and continues until none of them is left, not even as a zombie.
    """

    def run(self) -> None:
        """
        Wait for them, and exit with a status other than 0.
        """
        orphans = [self._orphan() for _ in range(3)]
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{orphan}").exists() for orphan in orphans):
            if time.monotonic() > deadline:
                raise TimeoutError("an orphan stays a zombie")
            signal.sigtimedwait([], 0.02)
        sys.exit(3)

    def _orphan(self) -> int:
        reading, writing = os.pipe()
        parent = os.fork()
        if parent == 0:
            orphan = os.fork()
            if orphan:
                os.write(writing, str(orphan).encode())
            os._exit(0)
        os.waitpid(parent, 0)
        return int(os.read(reading, 20))


class ClosesDescriptors(TaskBase):
    """
    Closes descriptors that it did not open, as careless code does before it starts a program, and writes files.
    """

    def run(self) -> None:
        """
        Close the descriptors that the variable CLOSED names: all numbers below a limit, or those of files with a name
        suffix.
        """
        wait_until(_delivery_rests)
        close_descriptors(os.environ["CLOSED"])
        folder, count = Path(os.environ["WRITTEN"]), int(os.environ.get("COUNT", "8"))
        self.files = [(folder / str(number)).open("w+b", buffering=0) for number in range(count)]
        for number in range(2):
            for file in self.files:
                file.write(b"x" * 57_600)
            self.progress(number)
        if "KILLED" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)


class Meets(TaskBase):
    """
    Waits for a task of another process, by the two named pipes in the folder that MEETING names.
    """

    def run(self) -> None:
        """
        Signal to the other task that this one runs, and wait for its signal.
        """
        folder = Path(os.environ["MEETING"])
        (folder / "began").write_text("")
        (folder / "done").read_text()


class OpensCounters(TaskBase):
    """
    Closes descriptors that it did not open, opens many counters that get the launcher's numbers, and fails.
    """

    def run(self) -> None:
        """
        Open counters, all of which are one file to the kernel.
        """
        os.closerange(3, 4096)
        self.counters = [os.eventfd(0) for _ in range(300)]
        raise ValueError("counted")


def _delivery_rests() -> bool:
    """
    Return True if no thread of this process is about to use a file: none is safe from other code that closes it then.
    """
    bus = open_bus(DKISTProcessingCoreConfiguration())
    if not bus.is_remote:
        return True
    with bus.open_journal() as journal:
        if journal.books().pending:
            return False
    lock = FileLock(bus.journal_path.with_suffix(".lock"))
    is_free = lock.acquire()
    lock.release()
    return is_free


def close_descriptors(named: str) -> None:
    """
    Close all descriptors from 3 to a number, or those of files whose names end with a suffix.
    """
    if named.isdecimal():
        os.closerange(3, int(named))
        return
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(each.readlink()).partition(":[")[0].endswith(named):
                os.close(int(each.name))


def _workflow(name: str, *tasks: type[TaskBase]) -> Workflow:
    workflow = Workflow(process_category="all", process_name=name, workflow_package=__package__)
    for task in tasks:
        workflow.add_node(task)
    return workflow


everything = _workflow(
    "faults",
    Succeeds,
    Raises,
    Exits3,
    Exits99,
    LeavesInTheMiddle,
    IsKilled,
    Crashes,
    TakesAllAddressSpace,
    FailsAfterwards,
)
"""Each fault that needs no other process, side by side."""
liars = _workflow("liars", LiesOnItsStreams)
"""A task that makes a false claim."""
endless = _workflow("endless", Waits, Pools, HearsNothing)
"""Three tasks that wait without end: one accepts a termination request, one has a pool, one ignores the request."""
unequal = _workflow("unequal", Waits, SucceedsWhenTold)
"""Two tasks that wait without end: one fails at a termination request, the other one succeeds later."""
dependent = Workflow(process_category="all", process_name="dependent", workflow_package=__package__)
"""A success, a failure that waits for it, and a task that waits for the failure."""
dependent.add_node(Succeeds)
dependent.add_node(Raises, upstreams=Succeeds)
dependent.add_node(Exits3, upstreams=Raises)
