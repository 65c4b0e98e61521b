"""
The thread that follows the processes of a task: what they use, and a profile of it over the attempt.

Not here: the files that are read (_processes, _control_groups), and the end that states the facts (_verdict).
"""

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from dkist_processing_core.launcher._control_groups import PRESSURES, ControlGroups
from dkist_processing_core.launcher._processes import Family, usage_of
from dkist_processing_core.launcher._profile import Point, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

_KEEP_SECONDS = 1.0
_PERIOD_SECONDS, _SHORTEST_SECONDS, _SHARE_OF_AGE = 0.1, 0.01, 0.1
# Shares of one processor: for a task of a few processes, and for each process of a larger one, whose samples cost more.
SMALL_SHARE, _SHARE_OF_PROCESS, _LARGEST_SHARE = 0.0025, 0.00025, 0.02
# Processor time for the first, more frequent samples: a small part of what the start of a task takes.
CREDIT_SECONDS = 0.03
_SHARE_OF_LAST = 0.1
# Sampling a process takes milliseconds; a sample that hangs in the kernel must not delay the end.
_LAST_SAMPLE_SECONDS = 0.5


class Sampler:
    """
    A thread that samples a process and its descendants, about ten times a second.

    It is a thread because short tasks end while the launcher is still importing the modules for reports.
    """

    def __init__(self, pid: int, began: float, keep: "Callable[[dict[str, Any]], None]") -> None:
        """
        Read the counters of the control groups for the first time.

        Args:
            pid: The first process of the task, a child of this one.
            began: When it was started, in the time of `time.monotonic`.
            keep: Receives the measurements so far, about once a second: `resources`, fields of `Resources`, and
                `profile`, its points.
        """
        self._keep = keep
        self._kept_at = 0.0
        self._began = began
        self._groups = ControlGroups(pid)
        self._profile = Profile()
        self.family = Family(pid)
        """The processes, as they were sampled last."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample_repeatedly, name="dkist-core-sampler", daemon=True)

    @property
    def has_killed(self) -> bool:
        """Whether, since the beginning, the kernel killed a process of the control groups because memory ran out."""
        return self._groups.has_killed

    @property
    def largest_process(self) -> int | None:
        """The largest sampled resident size of any one of the processes, in bytes; None before the first sample."""
        return self.family.largest_process

    @classmethod
    def begin(cls, pid: int, began: float, keep: "Callable[[dict[str, Any]], None]" = lambda _: None) -> Self:
        """Return a sampler that samples from now on; see the constructor for the arguments."""
        sampler = cls(pid, began, keep)
        with contextlib.suppress(RuntimeError):
            # If no thread can be started, only the values that are known at the end are reported.
            sampler._thread.start()
        return sampler

    def count_orphan(self, pid: int) -> None:
        """Count what a process has used that has ended as a child of this one; call it before its status is taken."""
        self.family.reaped(pid, usage_of(pid))

    def close(self) -> None:
        """
        Stop sampling, and sample for the last time. Call it before the status of an ended process is taken.

        When this returns the thread has ended, unless the kernel blocks it.
        """
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SAMPLE_SECONDS)
        if not self._thread.is_alive():
            # The accounts of a process that has ended can be read until its status is taken.
            self._sample()

    def totals(self) -> dict[str, Any]:
        """Return what the attempt has used so far and its limits, as fields of `Resources`; unknown ones are absent."""
        peak = self.family.peak
        pressures = {f"{kind}_pressure_seconds": self._groups.pressure_seconds(kind) for kind in PRESSURES}
        return self._used() | _known(
            **pressures,
            peak_rss=peak.rss or None,
            processes=peak.processes or None,
            threads=peak.threads or None,
            open_files=peak.open_files or None,
            memory_limit_bytes=self._groups.memory_limit_bytes,
            cpu_limit=self._groups.cpu_limit,
        )

    def moment(self) -> dict[str, Any]:
        """Return what the processes hold now and have used so far, as fields of `Resources`."""
        now = self.family.moment
        return self._used() | _known(
            rss=now.rss,
            peak_rss=self.family.peak.rss or None,
            processes=now.processes,
            threads=now.threads,
            open_files=now.open_files,
        )

    def profile(self) -> list[Point]:
        """Return the profile so far; see `Profile.points`."""
        return self._profile.points()

    def _used(self) -> dict[str, Any]:
        used = self.family.used
        known = used._asdict() if self.family.has_io else dict(zip(used._fields[:2], used[:2], strict=True))
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in known.items()}

    def _sample_repeatedly(self) -> None:
        rest, usual_cost = 0.0, 0.0
        while not self._is_over.wait(rest):
            began, spent = time.monotonic(), self._spent()
            self._sample()
            self._keep_if_due()
            # A single slow sample on a busy machine must not be followed by a pause of seconds.
            usual_cost += (self._spent() - spent - usual_cost) * _SHARE_OF_LAST
            # A young process grows fast, so it is sampled more often.
            rest = max(_SHORTEST_SECONDS, min(_PERIOD_SECONDS, (began - self._began) * _SHARE_OF_AGE))
            if self._spent() > CREDIT_SECONDS:
                share = max(SMALL_SHARE, _SHARE_OF_PROCESS * self.family.moment.processes)
                rest = max(rest, usual_cost / min(_LARGEST_SHARE, share))

    def _spent(self) -> float:
        """Return the processor time of this thread, without the readings that have a share of their own."""
        return time.thread_time() - self.family.shared_memory.spent_seconds

    def _keep_if_due(self) -> None:
        age = time.monotonic() - self._began
        if age - self._kept_at >= min(_KEEP_SECONDS, age * _SHARE_OF_AGE):
            self._kept_at = age
            # The memory is closed if this thread was blocked until after the end of the task.
            with contextlib.suppress(ValueError):
                self._keep({"resources": self.totals(), "profile": self.profile()})

    def _sample(self) -> None:
        self.family.look()
        self._groups.follow()
        used = self.family.used
        self._profile.add(
            time.monotonic() - self._began,
            self.family.moment.rss,
            # Bytes of files that are mapped into memory are read from storage without a system call.
            (used.processor_seconds, max(used.rchar, used.read_bytes), max(used.wchar, used.write_bytes)),
        )


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
