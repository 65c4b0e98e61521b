"""
The memory that a task's processes use, and whether the kernel has killed a process because memory ran out.

Sources: proc(5), and the kernel's documents cgroup-v2 (`memory.events`) and cgroup-v1/memory
(`memory.oom_control`). Not here: the verdict that uses these values (_verdict).
"""

import contextlib
import os
import threading
import time
from typing import Self

from dkist_processing_core.process.mounts import mounts
from dkist_processing_core.process.peak_memory import peak_memory_bytes

_PERIOD_SECONDS, _SHORTEST_SECONDS, _SHARE_OF_AGE = 0.1, 0.01, 0.1
# Share of one processor, so that sampling does not slow down a task of a thousand processes.
_LARGEST_SHARE = 0.02
# Sampling a process takes milliseconds; a sample that hangs in the kernel must not delay the end.
_LAST_SAMPLE_SECONDS = 0.5


class MemorySampler:
    """
    A thread that samples the memory of a process and its descendants, ten times a second or more.

    It is a thread because short tasks end while the launcher is still importing the modules for reports.
    """

    def __init__(self, pid: int) -> None:
        """Read the counters for the first time."""
        self._pid = pid
        self._kills = _OomKills(pid)
        self.peak_bytes: int | None = None
        """The largest sampled resident size of any one of the processes, in bytes; None before the first sample."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample_repeatedly, name="dkist-core-memory", daemon=True)

    @property
    def has_killed(self) -> bool:
        """Whether, since the beginning, the kernel killed a process of the control groups because memory ran out."""
        return self._kills.has_risen

    @classmethod
    def begin(cls, pid: int) -> Self:
        """Return a sampler that samples from now on."""
        sampler = cls(pid)
        with contextlib.suppress(RuntimeError):
            # If no thread can be started, only the values that are known at the end are reported.
            sampler._thread.start()
        return sampler

    def close(self) -> None:
        """Stop sampling; when this returns the thread has ended, unless the kernel blocks it."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SAMPLE_SECONDS)

    def _sample_repeatedly(self) -> None:
        born, rest = time.monotonic(), 0.0
        while not self._is_over.wait(rest):
            began, used = time.monotonic(), time.thread_time()
            for pid in _family(self._pid):
                found = peak_memory_bytes(pid)
                if found is not None:
                    self.peak_bytes = max(found, self.peak_bytes or 0)
            self._kills.follow()
            # A young process grows fast, so it is sampled more often.
            period = min(_PERIOD_SECONDS, (began - born) * _SHARE_OF_AGE)
            rest = max(_SHORTEST_SECONDS, period, (time.thread_time() - used) / _LARGEST_SHARE)


def _family(pid: int) -> list[int]:
    """Return a process and its living descendants; orphans, which now have another parent, are not included."""
    family, seen = [pid], {pid}
    for member in family:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{member}/task"):  # noqa: PTH208 - pathlib costs its import
                for child in _read(f"/proc/{member}/task/{thread}/children").split():
                    if child.isdigit() and int(child) not in seen:
                        seen.add(int(child))
                        family.append(int(child))
    return family


class _OomKills:
    """The number of processes that the kernel killed because memory ran out, in the control groups of one process."""

    def __init__(self, pid: int) -> None:
        """Read the present count."""
        self._pid = pid
        # Replaced and never changed in place: one thread adds to it while another iterates over the old version.
        self._before: dict[str, int] = {}
        self.follow()

    def follow(self) -> None:
        """Start a count for the process's present group if that is a new one; a dying process is in no group."""
        file = _counter_file(self._pid)
        if file is not None and file not in self._before and (count := _count(file)) is not None:
            self._before = {**self._before, file: count}

    @property
    def has_risen(self) -> bool:
        """Whether there was such a kill since; False if that is not known."""
        return any((_count(file) or 0) > before for file, before in self._before.items())


def _count(file: str) -> int | None:
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None


def _counter_file(pid: int) -> str | None:
    """Return the file that counts the kills in a process's control group, of the version that governs memory."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return _in_mount("cgroup", path, "memory.oom_control", controller="memory")
    unified = [line for line in _read(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::")]
    return _in_mount("cgroup2", unified[0].removeprefix("0::"), "memory.events") if unified else None


def _in_mount(kind: str, path: str, file: str, controller: str | None = None) -> str | None:
    """Return the path of a group's file, by proc_pid_mountinfo(5): the mount may show only a part of the tree."""
    for mount in mounts():
        if mount.file_system == kind and (controller is None or controller in mount.options.split(",")):
            root = mount.root
            inside = path if root == "/" else path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else None
            if inside is not None:
                found = f"{mount.point}/{inside.strip('/')}/{file}".replace("//", "/")
                if os.access(found, os.R_OK):
                    return found
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - pathlib costs its import
            return file.read()
    except OSError:
        return ""
