"""
The memory that processes hold together: what they share, as forks do, is counted once.

The kernel states the share of each process, its proportional set size (`Pss`, proc_pid_smaps(5)). It looks at each page
for that, so the file is read seldom, and between two readings a process holds as much more as its resident memory has
grown. Not here: the other files of a process (_processes).
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

_PERIOD_SECONDS = 1.0
LARGEST_SHARE = 0.001
"""The share of one processor that readings may take, beside those of the sampler."""
CREDIT_SECONDS = 0.03
"""The processor time for the first readings; the last of them may take longer."""


class Resident(NamedTuple):
    """The resident size of one living process in bytes, and by what it is known."""

    pid: int
    started: int
    parent: int
    stack: int
    """The address at which its stack starts; 0 if it is not known."""
    rss: int


class SharedMemory:
    """The proportional set sizes of a family of processes, as they were read last."""

    def __init__(self, proc: str = "/proc") -> None:
        """Begin without a reading."""
        self._proc = proc
        self._began = self._read_at = time.monotonic()
        # By pid and start: the proportional and the resident size at the last reading.
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._is_stated = False
        self.spent_seconds = 0.0
        """The processor time of all readings."""

    def held(self, living: Sequence[Resident]) -> int:
        """Return how many bytes the living processes hold together."""
        if len(living) < 2:  # noqa: PLR2004 - one shares with none
            self._sizes = {}
            return sum(each.rss for each in living)
        now = time.monotonic()
        is_due = now - self._read_at >= _PERIOD_SECONDS or any(each[:2] not in self._sizes for each in living)
        if is_due and self.spent_seconds <= CREDIT_SECONDS + LARGEST_SHARE * (now - self._began):
            self._read_all(living)
        by_pid = {each.pid: each for each in living}
        return sum(self._size(each, by_pid.get(each.parent)) for each in living)

    def _read_all(self, living: Sequence[Resident]) -> None:
        before = time.thread_time()
        read = {each[:2]: (self._proportional(each.pid), each.rss) for each in living}
        self._sizes = {key: (size, resident) for key, (size, resident) in read.items() if size is not None}
        self._is_stated = self._is_stated or bool(self._sizes)
        self.spent_seconds += time.thread_time() - before
        self._read_at = time.monotonic()

    def _size(self, process: Resident, parent: Resident | None) -> int:
        if process[:2] in self._sizes:
            size, resident = self._sizes[process[:2]]
            return max(0, size + process.rss - resident)
        # A fork without another program has its stack at the address of its parent's, and shares at first all it has.
        if self._is_stated and parent is not None and process.stack == parent.stack != 0:
            return max(0, process.rss - parent.rss)
        return process.rss

    def _proportional(self, pid: int) -> int | None:
        """Return the proportional set size in bytes; None if the kernel does not state it, or not to this user."""
        try:
            with open(f"{self._proc}/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 - as in _processes
                _, found, rest = file.read().partition(b"\nPss:")
            return int(rest[: rest.index(b"kB")]) * 1024 if found else None
        except (OSError, ValueError):
            return None
