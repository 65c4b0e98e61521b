"""
The choice of the progress reports of one attempt that are published, and their sequence numbers.

Not here: their publishing (lifecycle).
"""

import itertools
import math
import os
import time
from typing import Any

from dkist_processing_core.process import forks
from dkist_processing_core.text import amount
from dkist_processing_core.text.exception_text import class_name

# Linux gives no process a higher number (PID_MAX_LIMIT, proc_sys_kernel(5)).
_PID_BITS = 22
_TICKS_PER_SECOND = 100


def problem_of(facts: dict[str, Any]) -> str | None:
    """Return the mistake in the arguments of a report, without a text, which may hold a secret; None without one."""

    def is_number(value: object) -> bool:
        # An integer is finite, and may be too large to become a float.
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and math.isfinite(value)
        )

    for name, value in facts.items():
        if name == "done" and not is_number(value):
            expected = "a finite number"
        elif name == "total" and not (value is None or is_number(value)):
            expected = "a finite number or None"
        elif name in ("unit", "note") and not (value is None or isinstance(value, str)):
            expected = "a text or None"
        else:
            continue
        found = str(value) if type(value) is float else f"a value of type {class_name(type(value))}"
        return f'{name}: found {found}, expected {expected}, as in self.progress(3, 12, "frame")'
    return None


def text_of(facts: dict[str, Any]) -> str:
    """Return the arguments of a report as a text, such as `3/12 frame: note`."""
    text, note = amount(facts["done"], facts.get("total"), facts.get("unit")), facts.get("note")
    return text if note is None else f"{text}: {note}"


class Progress:
    """
    The reports of one attempt, from any thread of its process and from the forks of that process.

    The sequence number is part of an event's id, and the highest one is the latest report. A single process counts from
    0. As soon as it forks, each of the processes continues with the hundredths of a second since the attempt began,
    followed by its own process id. Such numbers are unique without any shared state, which a killed process could leave
    locked. They are in the order of time, by the host's one monotonic clock. A number stays below 2**53 for 248 days.
    """

    def __init__(self) -> None:
        """Store that there is no report."""
        self._lock = forks.Lock()
        self._began = time.monotonic()
        self._generation = forks.generation()
        # Each step of it is one call to C: a signal handler that reports may run between any two lines.
        self._numbers = itertools.count()
        self._last = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._due = 0.0
        self._held_back: dict[str, Any] | None = None

    def admit(self, facts: dict[str, Any], seconds: float) -> int | None:
        """Return the number of a report to publish now; None if it is deferred, for `seconds` after the last one."""
        with self._lock:
            if self._pid != os.getpid():
                # In a fork: the parent publishes its own deferred report.
                self._begin()
            now = time.monotonic()
            if now < self._due:
                self._held_back = facts
                return None
            self._due, self._held_back = now + seconds, None
            return self._next_number()

    def take_held_back(self) -> tuple[int, dict[str, Any]] | None:
        """Return the deferred report with its number; None if there is none."""
        with self._lock:
            facts, self._held_back = self._held_back, None
            return None if facts is None else (self._next_number(), facts)

    def _next_number(self) -> int:
        if forks.generation() == self._generation:
            return next(self._numbers)
        tick = 1 + int((time.monotonic() - self._began) * _TICKS_PER_SECOND)
        self._last = max(tick, 1 + (self._last >> _PID_BITS)) << _PID_BITS | os.getpid()
        return self._last
