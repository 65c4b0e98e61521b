"""
Tasks that end in every possible way, which the launcher must distinguish; importable, so that it can start them.

Each records the time right before its end in the file that FAULT_MARK names.
"""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from dkist_processing_core import TaskBase, Workflow

_MEBIBYTE = 1024 * 1024


def mark() -> None:
    """
    Note this moment, under the name of the task.
    """
    folder = os.environ.get("FAULT_MARKS")
    if folder:
        Path(folder, sys._getframe(1).f_locals["self"].task_name).write_text(repr(time.time()))


def wait_for_ever() -> None:
    """
    Wait without end, and report that it waits.
    """
    print("waiting", flush=True)  # noqa: T201 - its line is waited for
    os.read(os.pipe()[0], 1)


def _read(descriptor: int) -> bytes:
    return os.read(descriptor, 1)


def _begin(pipes: tuple[int, int]) -> bytes:
    os.write(pipes[0], b".")
    return _read(pipes[1])


class Succeeds(TaskBase):
    """
    Ends well.
    """

    def run(self) -> None:
        """
        Do nothing.
        """
        mark()


class Raises(TaskBase):
    """
    Fails as most tasks do.
    """

    def run(self) -> None:
        """
        Raise.
        """
        mark()
        raise ArithmeticError("wanted")


class Exits3(TaskBase):
    """
    Leaves by sys.exit with a number.
    """

    def run(self) -> None:
        """
        Leave.
        """
        mark()
        sys.exit(3)


class Exits99(TaskBase):
    """
    Leaves with the status that Airflow takes for a skip by default.
    """

    def run(self) -> None:
        """
        Leave.
        """
        mark()
        sys.exit(99)


class LeavesInTheMiddle(TaskBase):
    """
    Leaves past everything, with a status that looks like success.
    """

    def run(self) -> None:
        """
        Leave.
        """
        mark()
        os._exit(0)


class IsKilled(TaskBase):
    """
    Is killed.
    """

    def run(self) -> None:
        """
        Have the kernel end this process.
        """
        mark()
        os.kill(os.getpid(), signal.SIGKILL)


class Crashes(TaskBase):
    """
    Reads where nothing is, as a faulty extension module does.
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
    Takes memory until the kernel kills it.
    """

    def run(self) -> None:
        """
        Take a MiB at a time, and touch it; not more than 2 GiB, where nothing limits this process.

        Not all at once, because the growth must be observable.
        """
        taken = []
        for _ in range(2048):
            mark()
            taken.append(mmap.mmap(-1, _MEBIBYTE))
            taken[-1].write(b"x" * _MEBIBYTE)
            signal.sigtimedwait([], 0.005)


class TakesAllAddressSpace(TaskBase):
    """
    Asks for more than its limit allows.
    """

    def run(self) -> None:
        """
        Ask for a GiB with room for 64 MiB.
        """
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 64 * _MEBIBYTE, resource.RLIM_INFINITY))
        mark()
        bytearray(1024 * _MEBIBYTE)


class Waits(TaskBase):
    """
    Waits until it receives a termination request.
    """

    def run(self) -> None:
        """
        Wait.
        """
        wait_for_ever()


class Pools(TaskBase):
    """
    Waits for the workers of a pool, which are forks of it.
    """

    def run(self) -> None:
        """
        Have two workers wait.
        """
        (never, _), (begun, begin) = os.pipe(), os.pipe()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            # Both are at work before the note is written: an exception while work is handed out may leave a pool of
            # Python's waiting without end, which is another subject.
            waiting = pool.map_async(_begin, [(begin, never)] * 2, chunksize=1)
            for _ in range(2):
                os.read(begun, 1)
            print("waiting", flush=True)  # noqa: T201 - its line is waited for
            waiting.get()


class HearsNothing(TaskBase):
    """
    Ignores SIGTERM.
    """

    def run(self) -> None:
        """
        Wait, deaf.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait_for_ever()


class LeavesGrandchild(TaskBase):
    """
    Leaves a process behind that holds all descriptors that it has inherited.
    """

    def run(self) -> None:
        """
        Start one that waits until the test ends it, by the file named grandchild in the folder of the marks.
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
        Fail.
        """
        mark()
        raise OSError("the scratch folder is not empty")


class ShowsItsEnvironment(TaskBase):
    """
    Writes down the names of its variables, and the values of some.
    """

    def run(self) -> None:
        """
        Print them, one a line.
        """
        for name, value in sorted(os.environ.items()):
            print(f"{name}={value}")  # noqa: T201 - its lines are read


class StartsAnother(TaskBase):
    """
    Starts a program, which it leaves in its group.
    """

    def run(self) -> None:
        """
        Start one and wait.
        """
        child = subprocess.Popen(["/bin/sleep", "60"])
        Path(os.environ["FAULT_MARKS"], "grandchild").write_text(str(child.pid))
        wait_for_ever()


class SpeaksInSpans(TaskBase):
    """
    Opens its own span.
    """

    def run(self) -> None:
        """
        Open it.
        """
        with self.telemetry_span("own step"):
            pass


class WorksHard(TaskBase):
    """
    Uses a processor and some memory, and then dies.
    """

    def run(self) -> None:
        """
        Count for half a second with 100 MiB, and be killed.
        """
        held = b"x" * (100 * _MEBIBYTE)
        while time.process_time() < 0.7:  # with the time that its start takes
            sum(held[:1000])
        os.kill(os.getpid(), signal.SIGKILL)


class LiesOnItsStreams(TaskBase):
    """
    Writes to its standard streams text that belongs to the report pipe, and leaves in the middle.
    """

    def run(self) -> None:
        """
        Record the three descriptors, and claim to have returned.
        """
        found = [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)]
        Path(os.environ["FAULT_MARKS"], "descriptors").write_text("\n".join(found))
        for number in (1, 2):
            os.write(number, b'{"returned": true}\n')
        os._exit(0)


class LeavesOrphans(TaskBase):
    """
    Starts processes whose parent ends before they do, and goes on until none of them is left, including zombies.
    """

    def run(self) -> None:
        """
        Wait for them, and leave with a particular status.
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
    Closes numbers that it never opened, as careless code does before it starts a program, and writes its own files.
    """

    def run(self) -> None:
        """
        Close the descriptors that the variable CLOSED names: all numbers below a limit, or those of files by the end of
        their names.
        """
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
    Meets a task of another process, by the two named pipes in the folder that MEETING names.
    """

    def run(self) -> None:
        """
        Notify the other task that this one runs, and wait for the other's note.
        """
        folder = Path(os.environ["MEETING"])
        (folder / "began").write_text("")
        (folder / "done").read_text()


class OpensCounters(TaskBase):
    """
    Closes numbers that it never opened, opens so many counters that they get ours, and fails.
    """

    def run(self) -> None:
        """
        Hold counters, all of which are one file to the kernel.
        """
        os.closerange(3, 4096)
        self.counters = [os.eventfd(0) for _ in range(300)]
        raise ValueError("counted")


def close_descriptors(named: str) -> None:
    """
    Close all numbers from 3 to one, or those of files whose names end in a certain way.
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
dependent = Workflow(process_category="all", process_name="dependent", workflow_package=__package__)
"""A success, a failure that waits for it, and a task that waits for the failure."""
dependent.add_node(Succeeds)
dependent.add_node(Raises, upstreams=Succeeds)
dependent.add_node(Exits3, upstreams=Raises)
