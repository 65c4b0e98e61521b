"""
The control groups of a process: its limits, what it waited for, and whether the kernel killed for want of memory.

Sources: the kernel's documents cgroup-v2 (`memory.max`, `memory.events`, `cpu.max`, `*.pressure`) and cgroup-v1
(`memory.limit_in_bytes`, `memory.oom_control`, `cpu.cfs_quota_us`), and psi. Not here: when the files are read
(_sampling), and the verdict that uses the values (_verdict).
"""

import os
from collections.abc import Iterator

from dkist_processing_core.process.kernel_files import text_in
from dkist_processing_core.process.mounts import mounts

MOUNTS = "/proc/self/mountinfo"
OOM_KILLS = "oom_kills"
PRESSURES = ("cpu", "memory", "io")
_MICROSECONDS = 1e6
# Version 1 writes the largest multiple of a page that fits where there is no limit.
_UNLIMITED_BYTES = 1 << 62


class ControlGroups:
    """The control groups of one process; it may be moved to others while it runs."""

    def __init__(self, pid: int, proc: str = "/proc", mountinfo: str = MOUNTS) -> None:
        """Find the groups, and read their counters for the first time."""
        self._file = f"{proc}/{pid}/cgroup"
        self._mountinfo = mountinfo
        self._text = ""
        self._memory: list[str] = []
        self._cpu: list[str] = []
        self._unified: list[str] = []
        # Replaced and never changed in place: one thread adds to it while another iterates over the old version.
        self._before: dict[tuple[str, str], int] = {}
        self.follow()

    def follow(self) -> None:
        """Start to count in the process's present groups if they are new; a dying process is in none."""
        text = text_in(self._file)
        if text in ("", self._text):
            return
        self._text = text
        self._find(text)
        self._before = {key: _count(*key) or 0 for key in self._counters()} | self._before

    @property
    def memory_limit_bytes(self) -> int | None:
        """The memory that the process and the other processes of its group may use; None without a limit."""
        found = (_memory_limit(folder) for folder in self._memory)
        return min((limit for limit in found if limit is not None), default=None)

    @property
    def cpu_limit(self) -> float | None:
        """The number of processors that they may use; None without a limit."""
        found = (_cpu_limit(folder) for folder in self._cpu)
        return min((limit for limit in found if limit is not None), default=None)

    def pressure_seconds(self, resource: str) -> float | None:
        """Return how long at least one process of the groups has waited for a resource; None if that is not known."""
        risen = self._risen(resource)
        return None if risen is None else risen / _MICROSECONDS

    @property
    def has_killed(self) -> bool:
        """Whether the kernel killed a process of the groups because memory ran out; False if that is not known."""
        return bool(self._risen(OOM_KILLS))

    def _risen(self, kind: str) -> int | None:
        """Return by how much the counters of a kind have risen since they were first read; None without one."""
        risen = [
            max(0, now - before)
            for key, before in self._before.items()
            if key[0] == kind and (now := _count(*key)) is not None
        ]
        return sum(risen) if risen else None

    def _counters(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the file of each counter of the present groups that can be read."""
        files = [(OOM_KILLS, f"{folder}/{name}") for folder in self._memory[:1] for name in _OOM_FILES]
        # That of the root group, which alone has no such events, is the pressure of the whole host.
        own = [folder for folder in self._unified[:1] if os.path.exists(f"{folder}/cgroup.events")]  # noqa: PTH110 - pathlib costs its import
        files += [(kind, f"{folder}/{kind}.pressure") for folder in own for kind in PRESSURES]
        for kind, file in files:
            if _count(kind, file) is not None:
                yield kind, file

    def _find(self, text: str) -> None:
        """Find the folders of the groups that govern memory and processors, each followed by those above it."""
        named: dict[str, str] = {}
        for line in text.splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            named.update(dict.fromkeys(controllers.split(","), path))
        self._unified = self._folders("cgroup2", named.get(""))
        # A controller is governed by one of the two versions.
        self._memory, self._cpu = (
            self._folders("cgroup", named[name], name) if name in named else self._unified for name in ("memory", "cpu")
        )

    def _folders(self, kind: str, path: str | None, controller: str | None = None) -> list[str]:
        """Return a group's folder and those above it, by proc_pid_mountinfo(5): a mount may show a part of the tree."""
        if path is None:
            return []
        for mount in mounts(self._mountinfo):
            if mount.file_system == kind and (controller is None or controller in mount.options.split(",")):
                root = mount.root.rstrip("/")
                if f"{path}/".startswith(f"{root}/"):
                    # A process of another namespace of groups has a path with `..`, whose folder is not to be seen.
                    parts = [part for part in path.removeprefix(root).split("/") if part]
                    folders = ["/".join([mount.point, *parts[:count]]) for count in range(len(parts), -1, -1)]
                    if ".." not in parts and os.access(folders[0], os.R_OK):
                        return folders
        return []


_OOM_FILES = ("memory.events", "memory.oom_control")


def _count(kind: str, file: str) -> int | None:
    """Return the present value of a counter; None if it cannot be read."""
    if kind != OOM_KILLS:
        # some avg10=0.00 avg60=0.00 avg300=0.00 total=0
        return _number(text_in(file).partition("\n")[0].partition("total=")[2])
    for line in text_in(file).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return _number(value)
    return None


def _memory_limit(folder: str) -> int | None:
    limit = _first_number(folder, "memory.max", "memory.limit_in_bytes")
    return None if limit is None or limit >= _UNLIMITED_BYTES else limit


def _first_number(folder: str, *names: str) -> int | None:
    return next((found for name in names if (found := _number(text_in(f"{folder}/{name}"))) is not None), None)


def _cpu_limit(folder: str) -> float | None:
    quota, _, period = text_in(f"{folder}/cpu.max").partition(" ")
    if not period:
        quota, period = (text_in(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    allowed, of = _number(quota), _number(period)
    return allowed / of if allowed and of else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
