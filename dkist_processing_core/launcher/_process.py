"""
The process of one attempt: its start, its signals, its reports and its exit status.

Not here: the order of these steps (_supervision), the verdict on its end (_verdict), and termination requests
(termination_requests).
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from dkist_processing_core.attempt.report_pipe import STARTED, TERMINATION
from dkist_processing_core.launcher.bootstrap import program
from dkist_processing_core.launcher.process_end import ProcessEnd
from dkist_processing_core.process.descriptors import move_up
from dkist_processing_core.process.exit_status import has_ended, reap_orphans, take

if TYPE_CHECKING:
    import resource
    from collections.abc import Callable

# Of an endless line only the last part is kept: its writer must neither fill the memory nor wait at a full pipe.
_MAX_LINE = 1024 * 1024
_CHUNK = 64 * 1024
_DISMISSAL_SECONDS, _TURN_SECONDS = 0.5, 0.0005
# Once its launcher is gone the guard ends the task. It uses only shell builtins and sleep. A dying process closes its
# descriptors in no fixed order. So the guard waits until it has another parent: then the launcher is gone, and the task
# can detect that no process reads its reports.
_GUARD = """\
trap '' TERM INT HUP
read -r _ && exit
while read -r _ _ _ parent _ <"/proc/$$/stat" && [ "$parent" = "$PPID" ]; do sleep 0.01; done
kill -TERM "$1" 2>/dev/null
sleep 4
kill -KILL "-$1" 2>/dev/null
"""


class TaskProcess:
    """A started process that leads its own process group."""

    def __init__(self, pid: int, report: int, started: int, began: float) -> None:
        """Store the pid, the launcher's descriptors of the pipes for reports and for notices, and the time of start."""
        self.pid = pid
        self._started = started
        self.began = began
        """When the process was started, in the time of `time.monotonic`."""
        self._report = report
        self._waiting = select.poll()
        self._waiting.register(report, select.POLLIN)
        # Some sandboxes do not support pidfd_open(2), or refuse it: then the end is noticed after the poll's timeout.
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.pidfd_open(pid)
            self._waiting.register(self._descriptor, select.POLLIN)
        self._unread = b""
        self._is_listening = True
        self._reports: dict[str, Any] = {}
        self._guard: _Guard | None = None
        self._of_orphans: list[resource.struct_rusage] = []
        self.ending: Callable[[int], object] = lambda _: None
        """Called with the pid of a process of the task that this process waits for in place of its dead parent."""

    @classmethod
    def start(
        cls, python: Sequence[str], environ: Mapping[str, str], pipes: "Pipes", inherits: Iterable[int], began: float
    ) -> Self:
        """
        Start the constant program on an interpreter, as the leader of a new process group.

        Args:
            python: The interpreter's path, followed by its options.
            environ: The variables of the process.
            pipes: The pipes between this process and the new one, which inherits its ends.
            inherits: Other descriptors that it inherits.
            began: The present time of `time.monotonic`.

        Raises:
            OSError: The process cannot be started; then nothing of it is left behind.
        """
        for descriptor in (pipes.report_fd, pipes.started_fd, *inherits):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
        signals = {signal.SIGPIPE, signal.SIGXFSZ}
        pid = os.posix_spawn(
            python[0],
            # -u, so that the output of a task that is killed is in its log; -E and -I would ignore the variable for it.
            [*python, "-u", "-P", "-c", program()],
            dict(environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=signals,
        )
        os.close(pipes.report_fd)
        os.close(pipes.started_fd)
        return cls(pid, pipes.read_fd, pipes.notify_fd, began)

    def guard(self) -> None:
        """Start a separate process that ends the task when this process is killed."""
        self._guard = _Guard.over(self.pid)

    def record_start(self) -> None:
        """Notify the task that its start is in the journal."""
        self._notify(STARTED)

    def forward_termination(self) -> None:
        """Forward a termination request to the task alone: a pool whose workers are killed may wait endlessly."""
        # The notice comes first: a task whose author has installed a SIGTERM handler reads it there.
        self._notify(TERMINATION)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _notify(self, what: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._started, what)

    def kill_group(self) -> None:
        """Kill the task and its whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def notifies(self) -> bool:
        """Whether the kernel ends a wait for this process at its end."""
        return self._descriptor is not None

    def has_ended(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end, and read reports that arrive; return True if it has ended."""
        ready = {descriptor for descriptor, _ in self._waiting.poll(timeout * 1000)}
        if self._report in ready:
            self.listen()
        self._of_orphans += reap_orphans(self.pid, self._note_orphan)
        # The status is not read yet: while the task is a zombie, no other process can have its pid.
        return has_ended(self.pid)

    def _note_orphan(self, pid: int) -> None:
        if self._guard is None or pid != self._guard.pid:
            self.ending(pid)

    def reports(self) -> dict[str, Any]:
        """Return the facts that the process has reported so far."""
        return dict(self._reports)

    def end(self) -> ProcessEnd:
        """Read the exit status of a process that has ended, and return its end with its reports."""
        exit_code, usage = take(self.pid)
        duration = time.monotonic() - self.began
        if usage is None:
            return ProcessEnd(exit_code=None, processor_seconds=None, duration_seconds=duration, reports=self.reports())
        return ProcessEnd(
            exit_code=exit_code,
            processor_seconds=usage.ru_utime + usage.ru_stime,
            duration_seconds=duration,
            reports=self.reports(),
            used={
                "cpu_user_seconds": usage.ru_utime,
                "cpu_system_seconds": usage.ru_stime,
                "vol_ctxt": sum(each.ru_nvcsw for each in [usage, *self._of_orphans]),
                "inv_ctxt": sum(each.ru_nivcsw for each in [usage, *self._of_orphans]),
            },
        )

    def close(self) -> None:
        """Close the descriptors, and end the guard."""
        for descriptor in filter(None, (self._descriptor, self._report, self._started)):
            os.close(descriptor)
        if self._guard is not None:
            self._guard.dismiss()

    def listen(self) -> None:
        """
        Read the complete lines that the pipe holds now; lines that are not reports are skipped.

        This does not wait for the end of the pipe: processes that the task leaves behind may keep it open.
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
                    report = json.loads(line)
                    self._reports.update(report if isinstance(report, dict) else {})


class Pipes:
    """The descriptors between a launcher and its task: one pipe in each direction, each with its own identity."""

    def __init__(self) -> None:
        """Open the two pipes."""
        # High numbers: the low ones are for the task's files, and for standard streams that this process lacks.
        self.read_fd, self.report_fd = map(move_up, os.pipe())
        os.set_blocking(self.read_fd, False)
        # Nonblocking: the task may find nothing to read, and it may not read what this process writes.
        self.started_fd, self.notify_fd = map(move_up, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def close(self) -> None:
        """Close all descriptors of pipes that were never used."""
        for descriptor in (self.read_fd, self.report_fd, self.started_fd, self.notify_fd):
            os.close(descriptor)


class _Guard:
    """
    A shell that ends the task when this process is killed in any way: it waits at a pipe.

    The kernel's own parent-death signal would reach only the task, and the task could ignore it.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe

    @classmethod
    def over(cls, pid: int) -> "_Guard | None":
        """Start a guard and return it; return None if it cannot be started: the task then runs without one."""
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
        """Notify the guard that it is not needed any more, and wait for its end, so that no zombie is left behind."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"\n")
        os.close(self._pipe)
        until = time.monotonic() + _DISMISSAL_SECONDS
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(_TURN_SECONDS)


def processor_seconds_of(pid: int) -> float:
    """Return the processor time, in s, of a running process and of its children that have ended (proc_pid_stat(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return 0.0
