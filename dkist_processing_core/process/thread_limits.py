"""
The limits on threads: whether this process can start further ones.

Not here: the threads themselves, each of which is optional, and the work without them.
"""

# ruff: noqa: PTH120 - pathlib costs its import
import math
import os
import threading
from collections.abc import Callable, Iterable

from dkist_processing_core.process.kernel_files import text_in
from dkist_processing_core.process.mounts import Mount, mounts


def can_start_threads(count: int = 1, *, room: Callable[[], float] | None = None) -> bool:
    """
    Return True if `count` more threads can run at once; limits on processes or an exiting interpreter prevent it.

    The threads are started as a trial. If the control groups of this process have no `room` for them, there is no
    trial: for a moment it would use up the limit for other processes, which may be about to fork.
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
    Return how many more processes and threads the control groups of this process allow; infinite if this is unknown.

    Sources: the kernel's documents cgroup-v2 and cgroup-v1/pids. Each group, from the process's own upwards, has a
    limit.
    """
    room = math.inf
    for line in (text_in("/proc/self/cgroup") if groups is None else groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        for mount in mounts() if shown is None else shown:
            if mount.file_system != ("cgroup" if controllers else "cgroup2"):
                continue
            if controllers and "pids" not in mount.options.split(","):
                continue
            # The mount may show only a part of the tree, and the path of this process's group may lie outside of it.
            inside = os.path.relpath(path, mount.root)
            folder = os.path.normpath(mount.point if inside.startswith("..") else f"{mount.point}/{inside}")
            room = min(room, _room_in(folder))
            while len(folder) > len(mount.point):
                folder = os.path.dirname(folder)
                room = min(room, _room_in(folder))
    return room


def _room_in(folder: str) -> float:
    limit, current = text_in(f"{folder}/pids.max").strip(), text_in(f"{folder}/pids.current").strip()
    return int(limit) - int(current) if limit.isdigit() and current.isdigit() else math.inf
