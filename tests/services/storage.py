"""
A folder for test data that must survive a power cut.

Not here: the library's own rule for its journal, which this does not share.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_A_DISK = frozenset({"tmpfs", "ramfs", "nfs", "nfs4", "cifs", "smb3"})


def file_system(path: Path) -> str:
    """
    Return the type of the file system that holds the path, as the kernel names it.
    """
    path = path.resolve()
    found, where = "", Path()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4].replace("\\040", " "))
        # Of two on one mount point the later one covers the earlier.
        if path.is_relative_to(point) and len(point.parts) >= len(where.parts):
            found, where = source.split()[0], point
    return found


@contextmanager
def disk_folder(preferred: Path) -> Iterator[Path]:
    """
    Yield the preferred folder, or one in ``/var/tmp`` where that is in memory or on the network.

    The journal refuses such places and moves, with a warning; other tests must not meet that by chance.
    """
    if file_system(preferred) not in _NOT_A_DISK:
        yield preferred
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dkist-core-tests-") as folder:
        yield Path(folder)
