"""
Unusual tasks that a launcher must handle: own handlers, event loops, clean-ups, nested runs, closed descriptors.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from dkist_processing_core import TaskBase, Workflow
from tests.launched import wait_for_ever


def _leave(number: int, _: FrameType | None) -> None:
    del number
    sys.exit(0)


def _fail(number: int, _: FrameType | None) -> None:
    raise RuntimeError(number)


class LeavesWhenTold(TaskBase):
    """
    Has the most usual handler.
    """

    def run(self) -> None:
        """
        Wait.
        """
        signal.signal(signal.SIGTERM, _leave)
        wait_for_ever()


class FailsWhenTold(TaskBase):
    """
    Has a handler that raises.
    """

    def run(self) -> None:
        """
        Wait.
        """
        signal.signal(signal.SIGTERM, _fail)
        wait_for_ever()


class Computes(TaskBase):
    """
    Has an event loop that is busy in another coroutine than the one that is waited for.
    """

    def run(self) -> None:
        """
        Compute without end.
        """

        async def compute() -> None:
            print("waiting", flush=True)  # noqa: T201 - its line is waited for
            while True:
                sum(range(1000))
                await asyncio.sleep(0)

        async def main() -> None:
            computing = asyncio.create_task(compute())
            await asyncio.Event().wait()
            await computing

        try:
            asyncio.run(main())
        finally:
            print("let go", flush=True)  # noqa: T201 - its line is looked for


class CleansUp(TaskBase):
    """
    Finishes, and receives a termination request while it releases its resources.
    """

    def run(self) -> None:
        """
        Do nothing.
        """

    def __exit__(self, *_: object) -> None:
        """
        Release the resources, when the signal has come.
        """
        print("waiting", flush=True)  # noqa: T201 - its line is waited for
        signal.sigtimedwait([], 0.5)
        print("let go", flush=True)  # noqa: T201 - its line is looked for


class LeavesThread(TaskBase):
    """
    Finishes, but has a thread that does not end.
    """

    def run(self) -> None:
        """
        Start it; it reports that it waits when no other work is left.
        """

        def outlive() -> None:
            threading.main_thread().join()
            wait_for_ever()

        threading.Thread(target=outlive).start()


class RunsAnother(TaskBase):
    """
    Runs another workflow.
    """

    def run(self) -> None:
        """
        Run it, and report when its resources are released.
        """
        workflow = Workflow(process_category="nested", process_name="run")
        workflow.add_node(Waiting)
        try:
            workflow.run(recipe_run_id=7)
        finally:
            print("let go", flush=True)  # noqa: T201 - its line is looked for


class Waiting(TaskBase):
    """
    Waits in the nested run.
    """

    def run(self) -> None:
        """
        Wait.
        """
        wait_for_ever()


class ClosesEverything(TaskBase):
    """
    Closes descriptors that it has not opened, as a daemon does, and opens its own files.
    """

    def run(self) -> None:
        """
        Close and open.
        """
        report = int(os.environ.get("REPORT", "0")) or max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
        mine = {os.readlink(f"/proc/self/fd/{number}"): number for number in range(3, report + 1) if _is_open(number)}  # noqa: PTH115
        for target, number in mine.items():
            if target.startswith(("pipe:", "anon_inode:[eventfd]")):
                os.close(number)
        folder = Path(os.environ["FAULT_MARKS"])
        self.files = [(folder / f"mine-{number}").open("wb") for number in range(8)]


def _is_open(number: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


class Chatters(TaskBase):
    """
    Writes much meaningless text to every pipe that it can write to.
    """

    def run(self) -> None:
        """
        Write two MiB.
        """
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            number = int(name)
            if number <= 2 or not _is_open(number) or not fcntl.fcntl(number, fcntl.F_GETFL) & os.O_WRONLY:
                continue
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):  # noqa: PTH115
                for _ in range(32):
                    os.write(number, b"{]\n" * 21845)


class IsLate(TaskBase):
    """
    Takes almost all the time until it would be killed.
    """

    def run(self) -> None:
        """
        End by itself, shortly before it would be killed.
        """
        signal.signal(signal.SIGTERM, lambda *_: None)
        print("waiting", flush=True)  # noqa: T201 - its line is waited for
        signal.pause()
        signal.sigtimedwait([], 3.7)
