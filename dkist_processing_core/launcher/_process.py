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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from dkist_processing_core.attempt.report_pipe import STARTED, TERMINATION
from dkist_processing_core.bootstrap import program
from dkist_processing_core.descriptors import move_up
from dkist_processing_core.exit_status import has_ended, reap_orphans, take
from dkist_processing_core.launcher._end import End

# Of a line without end the end is kept: whoever writes it must not fill the memory, nor wait at a full pipe.
_MAX_LINE = 1024 * 1024
_CHUNK = 64 * 1024
_DISMISSAL_SECONDS, _TURN_SECONDS = 0.5, 0.0005
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


class TaskProcess:
    """A started process, which leads a process group of its own."""

    def __init__(self, pid: int, report: int, started: int) -> None:
        """Take a process, the end of the pipe by which it reports, and that of the one by which it is notified."""
        self.pid = pid
        self._started = started
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
        self._is_listening = True
        self._told: dict[str, Any] = {}
        self._guard: _Guard | None = None

    @classmethod
    def start(cls, python: Sequence[str], environ: Mapping[str, str], line: "Line", inherits: Iterable[int]) -> Self:
        """
        Start the one constant program on an interpreter, with its side of the line and what else it is to inherit.

        `python` is the interpreter's path, followed by its options.

        Raises
        ------
        OSError
            where it cannot be started; then nothing is left of it.

        """
        for descriptor in (line.report_fd, line.started_fd, *inherits):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
        signals = {signal.SIGPIPE, signal.SIGXFSZ}
        pid = os.posix_spawn(
            python[0],
            # Not by a variable, which -E and -I pass over: what is printed before a task is killed is in its log.
            [*python, "-u", "-P", "-c", program()],
            dict(environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=signals,
        )
        os.close(line.report_fd)
        os.close(line.started_fd)
        return cls(pid, line.heard_fd, line.notify_fd)

    def guard(self) -> None:
        """Have a process of its own end the task when this one is killed."""
        self._guard = _Guard.over(self.pid)

    def note_start(self) -> None:
        """Let the task know that its start is in the journal."""
        self._notify(STARTED)

    def pass_on_order(self) -> None:
        """Tell the task to end; only itself: a pool whose workers die beside it may wait for them for ever."""
        # First: one with a handler of its own looks there.
        self._notify(TERMINATION)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _notify(self, what: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._started, what)

    def kill_group(self) -> None:
        """End the task and all of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def has_ended(self, timeout: float) -> bool:
        """Wait at most so many seconds for the end, and say whether it has come; listen meanwhile."""
        ready = {descriptor for descriptor, _ in self._waiting.poll(timeout * 1000)}
        if self._report in ready:
            self.listen()
        reap_orphans(self.pid)
        # Not waited for yet: as long as it is a zombie nobody else has its number.
        return has_ended(self.pid)

    def told(self) -> dict[str, Any]:
        """Return what the process has told so far."""
        return dict(self._told)

    def end(self) -> End:
        """Take the end of a process that has ended, with what it had reported by then."""
        exit_code, usage = take(self.pid)
        duration = time.monotonic() - self.began
        cpu_seconds = None if usage is None else usage.ru_utime + usage.ru_stime
        return End(exit_code, cpu_seconds, duration, self.told())

    def close(self) -> None:
        """Close the descriptors, and dismiss the guard."""
        for descriptor in filter(None, (self._descriptor, self._report, self._started)):
            os.close(descriptor)
        if self._guard is not None:
            self._guard.dismiss()

    def listen(self) -> None:
        """
        Read what there is, whole lines of it; what is none of ours is passed over.

        As far as the pipe is filled, never to its end: what the task leaves behind may hold it.
        """
        while self._is_listening:
            try:
                chunk = os.read(self._report, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self._waiting.unregister(self._report)
                self._is_listening = False
                return
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            self._unread = self._unread[-_MAX_LINE:]
            for line in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    said = json.loads(line)
                    self._told.update(said if isinstance(said, dict) else {})


class Line:
    """The descriptors between a launcher and its task: a pipe each way, since each pipe has an identity of its own."""

    def __init__(self) -> None:
        """Open them."""
        # At numbers that neither the task's files are given, nor its standard streams where this process has none.
        self.heard_fd, self.report_fd = map(move_up, os.pipe())
        os.set_blocking(self.heard_fd, False)
        # Not blocking for the task either, which may find nothing there, nor for a task that reads nothing.
        self.started_fd, self.notify_fd = map(move_up, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def close(self) -> None:
        """Close what was never used."""
        for descriptor in (self.heard_fd, self.report_fd, self.started_fd, self.notify_fd):
            os.close(descriptor)


class _Guard:
    """
    A shell that ends the task when this process is killed, however: it waits at a pipe.

    The kernel's own parent-death signal would reach the task alone, and could be ignored.
    """

    def __init__(self, pid: int, line: int) -> None:
        self._pid = pid
        self._line = line

    @classmethod
    def over(cls, pid: int) -> "_Guard | None":
        """Start one; None where no process can be had for it: the task goes on all the same."""
        try:
            read_end, write_end = os.pipe()
        except OSError:
            return None
        try:
            guard = os.posix_spawn(
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
        return cls(guard, write_end)

    def dismiss(self) -> None:
        """Tell it that nothing is left to do, and wait for its end, so that nobody inherits a zombie."""
        with contextlib.suppress(OSError):
            os.write(self._line, b"\n")
        os.close(self._line)
        until = time.monotonic() + _DISMISSAL_SECONDS
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(_TURN_SECONDS)
