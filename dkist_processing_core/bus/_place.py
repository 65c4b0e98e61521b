"""
Where the journals lie on this host.

Not here: what is in them (_journal).
"""

import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import JournalError

FOLDER = "dkist-processing-core"
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.cephfs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
}  # fmt: skip
_MEMORY = {"ramfs", "tmpfs"}
logger = logging.getLogger(__name__)
_warned: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for journals; `moved_from` is the one that was asked for, where that cannot hold one."""

    folder: Path
    moved_from: Path | None = None
    reason: str | None = None


def wanted_folder(settings: DKISTProcessingCoreConfiguration) -> Path:
    """
    Return the folder that the settings, or the XDG base directory specification, name.

    Raises
    ------
    JournalError
        where it lies below the home of a user who has none.

    """
    try:
        if settings.dkist_core_state_dir is not None:
            return settings.dkist_core_state_dir.expanduser().absolute()
        # The specification has relative values ignored.
        state_home = Path(os.environ.get("XDG_STATE_HOME", ""))
        return (state_home if state_home.is_absolute() else Path.home() / ".local" / "state") / FOLDER
    except RuntimeError as error:
        found = settings.dkist_core_state_dir or "the default, ~/.local/state"
        msg = f"there is no folder for journals: found {found}, and no such home; set DKIST_CORE_STATE_DIR"
        raise JournalError(msg) from error


def place(settings: DKISTProcessingCoreConfiguration) -> Place:
    """
    Return where this process keeps its journals.

    SQLite's write-ahead log needs shared memory that a network does not give, and a promise to keep events needs a
    disk that outlives a restart; from either kind of file system the journals move to /var/tmp.
    """
    folder = wanted_folder(settings)
    kind = file_system(folder)
    if kind not in _NETWORK | _MEMORY:
        return Place(folder)
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    what = "a network" if kind in _NETWORK else "a memory"
    return Place(
        Path("/var/tmp") / f"{FOLDER}-{os.getuid()}-{digest}",  # noqa: S108 - a folder of this user's own, mode 0700
        moved_from=folder,
        reason=f"{folder} is on {what} file system ({kind})",
    )


def open_folder(settings: DKISTProcessingCoreConfiguration) -> Path:
    """
    Return the folder of the journals, made if it is missing: for its owner only, unless it was made for a group.

    Raises
    ------
    JournalError
        where it cannot be made or belongs to somebody who did not share it.

    """
    where = place(settings)
    if where.moved_from is not None and where.moved_from not in _warned:
        _warned.add(where.moved_from)
        logger.warning("journals are kept in %s: %s", where.folder, where.reason)
    try:
        where.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = where.folder.stat()
    except OSError as error:
        msg = f"the journals' folder {where.folder} cannot be made: {error.strerror}; set DKIST_CORE_STATE_DIR"
        raise JournalError(msg) from error
    if where.moved_from is not None and found.st_uid != os.getuid():
        msg = f"the journals' folder {where.folder} belongs to user {found.st_uid}; set DKIST_CORE_STATE_DIR"
        raise JournalError(msg)
    return where.folder


def file_mode(folder: Path) -> int:
    """Return the mode of files in `folder`: shared with the group where the folder's setgid bit says so."""
    return 0o660 if folder.stat().st_mode & stat.S_ISGID else 0o600


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is, or would be, on; "" where the kernel does not say."""
    resolved = os.path.realpath(path)
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
    for line in mounts.splitlines():
        # See proc_pid_mountinfo(5): field 5 is the mount point, the type follows a field that is a lone hyphen.
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode(errors="surrogateescape").decode("unicode_escape", "surrogateescape")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        # Of equal mount points the later mount covers the earlier.
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
