"""
The process of one attempt: started, signalled, waited for, listened to.

Not here: what its end means (_verdict), and who tells it to end (_orders).
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from dkist_processing_core.bootstrap import PROGRAM

# What a process and all it leaves behind may tell altogether; nobody listens to more.
_MAX_TOLD = 1024 * 1024
_CHUNK = 64 * 1024
# Once its launcher is gone the guard ends what is left; of the shell nothing but builtins and sleep. What dies closes
# its descriptors in no certain order: when the guard has another parent, the task will see that nobody hears it.
_GUARD = """\
trap '' TERM INT HUP
read -r _ && exit
while read -r _ _ _ parent _ <"/proc/$$/stat" && [ "$parent" = "$PPID" ]; do sleep 0.01; done
kill -TERM "$1" 2>/dev/null
sleep 4
kill -KILL "-$1" 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended, and what it had told until then."""

    exit_code: int
    """As `subprocess` has it: the status, or minus the number of the signal."""
    cpu_seconds: float
    """Of the process and of its children that it has waited for."""
    duration_seconds: float
    told: dict[str, Any] = field(default_factory=dict)
    """What came by the report descriptor: the objects of its lines, the later over the earlier."""


class TaskProcess:
    """A started process, which leads a process group of its own."""

    def __init__(self, pid: int, report: int) -> None:
        """Take a process and the end of a pipe by which it reports."""
        self.pid = pid
        self.began = time.monotonic()
        self._report = report
        self._waiting = select.poll()
        self._waiting.register(report, select.POLLIN)
        # Some sandboxes do not know it, or refuse it: then the end is noticed when the waiting is over.
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.pidfd_open(pid)
            self._waiting.register(self._descriptor, select.POLLIN)
        self._unread = b""
        self._heard = 0
        self._is_listening = True
        self._told: dict[str, Any] = {}
        self._guard = _guard_over(pid)

    @classmethod
    def start(cls, python: str, environ: Mapping[str, str], report: tuple[int, int], inherits: Iterable[int]) -> Self:
        """
        Start the one constant program on an interpreter.

        `report` is a pipe, whose writing end the process inherits, and `inherits` what else it does.
        """
        read_end, write_end = report
        for descriptor in (write_end, *inherits):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
        signals = {signal.SIGPIPE, signal.SIGXFSZ}
        pid = os.posix_spawn(
            python,
            [python, "-P", "-c", PROGRAM],
            dict(environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=signals,
        )
        os.close(write_end)
        os.set_blocking(read_end, False)
        return cls(pid, read_end)

    def terminate(self) -> None:
        """Tell the task to end; only itself: a pool whose workers die beside it may wait for them for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """End the task and all of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def has_ended(self, timeout: float) -> bool:
        """Wait at most so many seconds for the end, and say whether it has come; listen meanwhile."""
        ready = {descriptor for descriptor, _ in self._waiting.poll(timeout * 1000)}
        if self._report in ready:
            self._listen()
        # Not waited for yet: as long as it is a zombie nobody else has its number.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def told(self) -> dict[str, Any]:
        """Return what the process has told so far."""
        return dict(self._told)

    def end(self) -> End:
        """Take the end of a process that has ended. The descriptor is read as far as it is filled, never to its end."""
        _, status, usage = os.wait4(self.pid, 0)
        duration = time.monotonic() - self.began
        self._listen()
        for descriptor in filter(None, (self._descriptor, self._report)):
            os.close(descriptor)
        if self._guard is not None:
            # A line tells the guard that nothing is left to do.
            with contextlib.suppress(OSError):
                os.write(self._guard, b"\n")
            os.close(self._guard)
        exit_code = os.waitstatus_to_exitcode(status)
        return End(exit_code, usage.ru_utime + usage.ru_stime, duration, self.told())

    def _listen(self) -> None:
        """Read what there is, whole lines of it; what is none of ours is passed over."""
        while self._is_listening:
            try:
                chunk = os.read(self._report, _CHUNK)
            except BlockingIOError:
                return
            self._heard += len(chunk)
            if not chunk or self._heard > _MAX_TOLD:
                self._waiting.unregister(self._report)
                self._is_listening = False
                return
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    said = json.loads(line)
                    self._told.update(said if isinstance(said, dict) else {})


def _guard_over(pid: int) -> int | None:
    """
    Start what ends the task when this process is killed, and return the descriptor that keeps it waiting.

    The kernel's own parent-death signal would reach the task alone, and could be ignored. None where no process can be
    had for it: the task goes on all the same.
    """
    read_end, write_end = os.pipe()
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _GUARD, "dkist-core-guard", str(pid)],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read_end, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
            setsigmask=(),
        )
    except OSError:
        os.close(write_end)
        return None
    finally:
        os.close(read_end)
    return write_end
