"""
What a task's processes use of memory, and whether the kernel has killed for want of it.

Sources: proc(5), and the kernel's documents cgroup-v2 (`memory.events`) and cgroup-v1/memory
(`memory.oom_control`). Not here: what follows from it (_verdict).
"""

import contextlib
import os
import threading
import time
from typing import Self

from dkist_processing_core.memory import peak_memory_bytes
from dkist_processing_core.mounts import mounts

_PERIOD_SECONDS, _SHORTEST_SECONDS, _SHARE_OF_AGE = 0.1, 0.01, 0.1
# Of a processor, so that a task of a thousand processes is not slowed down by being looked at.
_LARGEST_SHARE = 0.02
# A look at a process takes milliseconds; one that hangs in the kernel must not hold the end up.
_LAST_LOOK_SECONDS = 0.5


class MemoryWatch:
    """
    A thread that looks at the memory of a process and its descendants, ten times a second or more.

    A thread, since its launcher is busy with loading what reports need while the first tasks are over already.
    """

    def __init__(self, pid: int) -> None:
        """Look for the first time."""
        self._pid = pid
        self._kills = _OomKills(pid)
        self.peak_bytes: int | None = None
        """The most that the largest of the processes had resident, as far as it was seen."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="dkist-core-memory", daemon=True)

    @property
    def has_killed(self) -> bool:
        """Whether the kernel has killed for want of memory, since the beginning, where the process was."""
        return self._kills.has_risen

    @classmethod
    def begin(cls, pid: int) -> Self:
        """Return one that looks from now on."""
        watch = cls(pid)
        with contextlib.suppress(RuntimeError):
            # Where no thread can be had, what is known at the end must do.
            watch._thread.start()
        return watch

    def close(self) -> None:
        """Look no more: when this returns the thread has ended, unless the kernel holds it."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_LOOK_SECONDS)

    def _look_on(self) -> None:
        born, rest = time.monotonic(), 0.0
        while not self._is_over.wait(rest):
            began, used = time.monotonic(), time.thread_time()
            for pid in _family(self._pid):
                found = peak_memory_bytes(pid)
                if found is not None:
                    self.peak_bytes = max(found, self.peak_bytes or 0)
            self._kills.follow()
            # The younger it is, the faster it grows.
            period = min(_PERIOD_SECONDS, (began - born) * _SHARE_OF_AGE)
            rest = max(_SHORTEST_SECONDS, period, (time.thread_time() - used) / _LARGEST_SHARE)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants, as far as they are there; those that were left alone are nobody's."""
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
    """How often the kernel has killed for want of memory in the control groups that a process was in."""

    def __init__(self, pid: int) -> None:
        """Read the count as it is now."""
        self._pid = pid
        # Replaced and never changed: one thread adds to it while another iterates over what it was.
        self._before: dict[str, int] = {}
        self.follow()

    def follow(self) -> None:
        """See whether the process is in another group by now, whose count begins here; one that dies is in none."""
        file = _counter_file(self._pid)
        if file is not None and file not in self._before and (count := _count(file)) is not None:
            self._before = {**self._before, file: count}

    @property
    def has_risen(self) -> bool:
        """Whether there was such a kill since; False where nobody can tell."""
        return any((_count(file) or 0) > before for file, before in self._before.items())


def _count(file: str) -> int | None:
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None


def _counter_file(pid: int) -> str | None:
    """Return the file that counts the kills in a process's control group, of whichever version governs memory."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return _in_mount("cgroup", path, "memory.oom_control", controller="memory")
    unified = [line for line in _read(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::")]
    return _in_mount("cgroup2", unified[0].removeprefix("0::"), "memory.events") if unified else None


def _in_mount(kind: str, path: str, file: str, controller: str | None = None) -> str | None:
    """Return where a group's file stands, by proc_pid_mountinfo(5): the mount may show only a part of the tree."""
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
