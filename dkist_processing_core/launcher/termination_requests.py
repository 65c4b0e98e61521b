"""
The termination requests that a launcher receives as signals, and the reason for them.

Not here: the event that reports the end (_verdict), and the request in the task's process (process.termination).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from dkist_processing_core.process.termination import TerminationError

if TYPE_CHECKING:
    from dkist_processing_core.launcher._process import TaskProcess

GRACE_SECONDS = 4.0
"""How long a task may take after a termination request before its group is killed; Airflow itself waits 5 s."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A signal with no other use, so that it is not mistaken for a termination request from a living parent.
_PARENT_DIED = signal.SIGRTMAX
_PR_SET_PDEATHSIG = 1
# The kernel signals the death of the thread that started this process, a moment before that whole process is gone.
_PASSING_SECONDS, _TURN_SECONDS = 0.5, 0.002


def block_signals() -> None:
    """Block termination signals until `TerminationRequests.listen`, which then receives them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


class TerminationRequests:
    """
    A context in which SIGTERM, SIGINT and SIGHUP, and the death of the parent process, end the task.

    Before the task is started they raise `TerminationError`. After that the first one is forwarded to the task, and the
    second one kills it. When the task has ended they have no effect.
    """

    def __init__(self) -> None:
        """Store the parent process. No handler is installed."""
        self._parent = os.getppid()
        self._process: TaskProcess | None = None
        self._is_over = False
        self.received: signal.Signals | None = None
        """The signal of the first termination request; None before the first one."""
        self.received_at = 0.0
        """When it was received, in the time of `time.monotonic`."""
        self.is_orphaned = False
        """Whether the reason was the death of the parent process."""

    def __enter__(self) -> Self:
        """Install the handlers, and reset an inherited handling of SIGCHLD, so that children can be waited for."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        signal.signal(_PARENT_DIED, self._receive_parent_death)
        signal.signal(signal.SIGALRM, self._kill)
        return self

    def listen(self) -> None:
        """Unblock all signals, including those blocked by a parent; from now on a termination request may raise."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ignore the signals from now on: the remaining work ends soon by itself."""
        for number in (*_SIGNALS, _PARENT_DIED, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def watch_parent(self) -> None:
        """Request a signal from the kernel for the death of the parent process, even by SIGKILL (prctl(2))."""
        # Imported here, since the task is started first.
        import ctypes  # noqa: PLC0415

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(_PARENT_DIED), 0, 0, 0)
        if os.getppid() != self._parent:
            # It died before it was watched.
            os.kill(os.getpid(), _PARENT_DIED)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Block signals between the start of a process and the registration of its pid."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, _PARENT_DIED))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_SIGNALS, _PARENT_DIED))

    def forward_to(self, process: "TaskProcess") -> None:
        """Set the process to which termination requests are forwarded from now on."""
        self._process = process

    def conclude(self) -> None:
        """Ignore termination requests from now on: the process has ended."""
        self._is_over, self._process = True, None

    def begin_anew(self) -> None:
        """Accept termination requests again, as before the first process was started."""
        self._is_over = False

    @property
    def seconds_ago(self) -> float:
        """How many seconds ago the first termination request was received; 0 if there was none."""
        return 0.0 if self.received is None else time.monotonic() - self.received_at

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            self._kill(number, None)
            return
        self._forward(signal.Signals(number))

    def _receive_parent_death(self, _: int, __: FrameType | None) -> None:
        until = time.monotonic() + _PASSING_SECONDS
        while os.getppid() == self._parent:
            if time.monotonic() > until:
                # Only one thread of the parent has ended, or another process has sent this signal.
                return
            time.sleep(_TURN_SECONDS)
        if self.received is None and not self._is_over:
            self.is_orphaned = True
            self._forward(signal.SIGTERM)

    def _forward(self, number: signal.Signals) -> None:
        if self._is_over:
            return
        self.received, self.received_at = number, time.monotonic()
        if self._process is None:
            raise TerminationError(number)
        self._process.forward_termination()
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _kill(self, _: int, __: FrameType | None) -> None:
        if self._process is not None:
            self._process.kill_group()
