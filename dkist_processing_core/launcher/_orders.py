"""
What a launcher is told by signals: to end its task, and why.

Not here: what is reported then (_verdict).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from dkist_processing_core.termination import TerminationError

if TYPE_CHECKING:
    from dkist_processing_core.launcher._process import TaskProcess

GRACE_SECONDS = 4.0
"""How long a task that was told to end may take before its group is killed: an engine's own patience is 5 s."""
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# One that nobody sends for another reason, so that it is not taken for the order of a parent that lives.
_PARENT_DIED = signal.SIGRTMAX
_PR_SET_PDEATHSIG = 1
# The kernel tells of the thread that has started this process, a moment before the whole process is gone.
_PASSING_SECONDS, _TURN_SECONDS = 0.5, 0.002


def hold_back() -> None:
    """Let no order come before `Orders` listens: it comes then."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)


class Orders:
    """
    A context in which SIGTERM, SIGINT and SIGHUP, and the death of the parent process, end the task.

    Before there is a task they raise `TerminationError`. The first one is passed on, the second kills. When the task
    has ended they change nothing any more.
    """

    def __init__(self) -> None:
        """Note who the parent is; nothing is installed yet."""
        self._parent = os.getppid()
        self._process: TaskProcess | None = None
        self._is_over = False
        self.received: signal.Signals | None = None
        """The first signal that told to end; None as long as nobody has."""
        self.received_at = 0.0
        """When it came, in the time of `time.monotonic`."""
        self.is_orphaned = False
        """Whether it came because the parent process had died."""

    def __enter__(self) -> Self:
        """Install the handlers; children are waited for, whatever this process has inherited."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _ORDERS:
            signal.signal(number, self._obey)
        signal.signal(_PARENT_DIED, self._see_parent_die)
        signal.signal(signal.SIGALRM, self._kill)
        return self

    def listen(self) -> None:
        """Hear what was held back until now, by whomever, and what comes; from here on an order may raise."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Listen no more: what is left to do ends by itself, and soon."""
        for number in (*_ORDERS, _PARENT_DIED, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def watch_parent(self) -> None:
        """Have the kernel say so when the parent process dies, as by SIGKILL (PR_SET_PDEATHSIG, prctl(2))."""
        # Here, not above: the task is started first.
        import ctypes  # noqa: PLC0415

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(_PARENT_DIED), 0, 0, 0)
        if os.getppid() != self._parent:
            # It died before it was watched.
            os.kill(os.getpid(), _PARENT_DIED)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let no signal come between the start of a process and the knowledge of it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (*_ORDERS, _PARENT_DIED))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_ORDERS, _PARENT_DIED))

    def concern(self, process: "TaskProcess") -> None:
        """Name the process that is told from now on."""
        self._process = process

    def conclude(self) -> None:
        """Let what comes from now on be: the process that it would concern has ended."""
        self._is_over, self._process = True, None

    def begin_anew(self) -> None:
        """Listen again as before there was a process."""
        self._is_over = False

    @property
    def seconds_ago(self) -> float:
        """For how long the task has known that it is to end; 0 where nobody has told it."""
        return 0.0 if self.received is None else time.monotonic() - self.received_at

    def _obey(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            self._kill(number, None)
            return
        self._pass_on(signal.Signals(number))

    def _see_parent_die(self, _: int, __: FrameType | None) -> None:
        until = time.monotonic() + _PASSING_SECONDS
        while os.getppid() == self._parent:
            if time.monotonic() > until:
                # Only a thread of it has ended, or somebody plays with signals.
                return
            time.sleep(_TURN_SECONDS)
        if self.received is None and not self._is_over:
            self.is_orphaned = True
            self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        if self._is_over:
            return
        self.received, self.received_at = number, time.monotonic()
        if self._process is None:
            raise TerminationError(number)
        self._process.pass_on_order()
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _kill(self, _: int, __: FrameType | None) -> None:
        if self._process is not None:
            self._process.kill_group()
