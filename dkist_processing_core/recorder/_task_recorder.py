"""
The recording of one process of a task: its state, its log records, the stacks of its threads, and its fatal errors.

Not here: the memory (region), the thread that takes the stacks (_sampler), and the functions for other modules
(writing).
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import time

from dkist_processing_core.logs.capture import capture
from dkist_processing_core.process import forks
from dkist_processing_core.process.signals import around_forks
from dkist_processing_core.recorder import layout
from dkist_processing_core.recorder._sampler import Sampler
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.text.redaction import redactor, secrets_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from typing import Any

    from dkist_processing_core.recorder.region import Region

_MOST_OF_TEXT = 500
_STANDARD_ERROR = 2


class TaskRecorder:
    """Records what this process does; it is a sink of log records."""

    formats = False
    """As for each sink: the author's code runs as it would without a recorder."""

    def __init__(self, region: Region) -> None:
        """Store the region, and the secrets of the settings. Nothing is recorded yet."""
        self.pid = os.getpid()
        origin = Origin.of_process()
        self.secrets = [*secrets_of(origin.environ), *secrets_of(origin.file_values())]
        self._region = region
        # One thread writes at a time, as the region requires.
        self._lock = forks.Lock()
        self._state: dict[str, Any] = {}
        self._sampler = Sampler(self._keep_stacks, lambda: redactor(also=self.secrets))
        self._forks_now = 0
        self._is_over = False
        self._second, self._moment = -1, ""

    def begin(self) -> None:
        """Record from now on."""
        # The interpreter keeps these methods, and with them the memory, until it has ended all else: on Python 3.12 the
        # end of the mapping closes a number that may be another file's by then (region.attach).
        around_forks(self._before_fork, self._after_fork)
        atexit.register(self.end)
        capture.begin(self)
        self._sampler.start()
        if not faulthandler.is_enabled():
            # The number, and not the stream, which the author's code may replace.
            faulthandler.enable(_STANDARD_ERROR)

    def end(self) -> None:
        """Record no more."""
        if os.getpid() == self.pid and not self._is_over:
            self._is_over = True
            capture.end(self)
            self._sampler.stop()

    def _before_fork(self) -> None:
        if os.getpid() == self.pid:
            self._forks_now += 1
            self._sampler.stop()

    def _after_fork(self) -> None:
        if os.getpid() == self.pid:
            self._forks_now -= 1
            # Another thread may be about to fork.
            if not self._forks_now and not self._is_over:
                self._sampler.start()

    def _keep_stacks(self, text: str) -> None:
        with self._lock:
            self._region.write(layout.STACKS, text.encode(errors="replace")[: layout.STACKS.capacity])

    def change_state(self, name: str, value: str | None) -> None:
        """Replace the phase or the progress."""
        with self._lock:
            self._state |= {name: value and value[:_MOST_OF_TEXT], f"{name}_time": time.monotonic()}
            content = json.dumps(self._state, ensure_ascii=False).encode(errors="replace")
            self._region.write(layout.STATE, content)

    def wants(self, _: logging.LogRecord) -> bool:
        """Return True unless this is a fork."""
        return os.getpid() == self.pid

    def keep(self, record: logging.LogRecord, text: str, redacted: Callable[[str], str]) -> None:
        """Record a log record, in the form of a task's log."""
        second = int(record.created)
        if second != self._second:
            self._second, self._moment = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        origin = redacted(f"{record.levelname} {record.name}")
        self.append(f"{self._moment},{int(record.msecs):03d} {origin}: {text}")

    def append(self, text: str) -> None:
        """Append one or more lines to the log."""
        line = text[: layout.LONGEST_LINE].encode(errors="replace")[: layout.LONGEST_LINE - 1] + b"\n"
        with self._lock:
            self._region.append(line)

    def samples(self) -> dict[str, Any]:
        """Return what the launcher has measured so far."""
        value = self._region.read(layout.SAMPLES)
        return {} if value is None else json.loads(value.content)
