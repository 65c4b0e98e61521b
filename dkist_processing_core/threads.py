"""
Whether this process can have further threads.

Not here: the threads, each of which is optional, and what is done without it.
"""

# ruff: noqa: PTH120, PTH123 - pathlib costs its import
import math
import os
import threading
from collections.abc import Callable, Iterable

from dkist_processing_core.mounts import Mount, mounts


def can_be_started(count: int = 1, *, room: Callable[[], float] | None = None) -> bool:
    """
    Return False where so many cannot run at once: under a limit on processes, or in an interpreter that exits.

    They are started to see. Where the control groups of this process have no `room` for them that is not done: for a
    moment it would take the rest from other processes, which may be about to fork.
    """
    if count > 1 and count > (room or room_in_groups)():
        return False
    is_over = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=is_over.wait, name="dkist-core-probe", daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        is_over.set()
        for thread in started:
            thread.join()
    return True


def room_in_groups(groups: str | None = None, shown: Iterable[Mount] | None = None) -> float:
    """
    Return how many more processes and threads the control groups of this process allow, as far as it is known.

    By the kernel's documents cgroup-v2 and cgroup-v1/pids: each group from the process's own up has a limit.
    """
    room = math.inf
    for line in (_read("/proc/self/cgroup") if groups is None else groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        for mount in mounts() if shown is None else shown:
            if mount.file_system != ("cgroup" if controllers else "cgroup2"):
                continue
            if controllers and "pids" not in mount.options.split(","):
                continue
            # The mount may show a part of the tree, which this process need not be in by its name.
            inside = os.path.relpath(path, mount.root)
            folder = os.path.normpath(mount.point if inside.startswith("..") else f"{mount.point}/{inside}")
            room = min(room, _room_in(folder))
            while len(folder) > len(mount.point):
                folder = os.path.dirname(folder)
                room = min(room, _room_in(folder))
    return room


def _room_in(folder: str) -> float:
    limit, current = _read(f"{folder}/pids.max").strip(), _read(f"{folder}/pids.current").strip()
    return int(limit) - int(current) if limit.isdigit() and current.isdigit() else math.inf


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
