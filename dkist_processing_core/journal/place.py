"""
The location of the journals on this host.

Not here: the content of the journals (_journal).
"""

import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dkist_processing_core.errors import JournalFolderError
from dkist_processing_core.process.mounts import mounts
from dkist_processing_core.process.trusted_files import distrust, make_folder
from dkist_processing_core.settings.interface import Settings

FOLDER = "dkist-processing-core"
INBOX_FILE = "inbox.db"
"""The inbox of consumers that name none, in the folder of the journals."""
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.cephfs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
}  # fmt: skip
_MEMORY = {"ramfs", "tmpfs"}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
logger = logging.getLogger(__name__)
_warned: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Place:
    """
    A folder for journals; `moved_from` is the configured folder, if that cannot hold a journal.

    With a `problem` there is no folder for journals, and `folder` is only a name.
    """

    folder: Path
    moved_from: Path | None = None
    reason: str | None = None
    problem: str | None = None


def wanted_folder(settings: Settings) -> Path:
    """
    Return the folder that the settings or the XDG base directory specification name.

    Raises:
        LookupError: The folder is below the home directory of a user who has none.
    """
    if settings.dkist_core_state_dir is not None:
        return settings.absolute(settings.dkist_core_state_dir)
    # The specification requires that relative values are ignored.
    state_home = Path(settings.core_origin.environ.get("XDG_STATE_HOME", ""))
    return (state_home if state_home.is_absolute() else settings.absolute(Path("~/.local/state"))) / FOLDER


def place(settings: Settings) -> Place:
    """
    Return the place where this process keeps its journals.

    SQLite's write-ahead log needs shared memory, which a network file system does not provide. The promise to keep
    events needs a disk whose content survives a restart, unlike a memory file system. From both kinds of file system
    the journals move to /var/tmp. If there is no folder at all, a publisher keeps events in memory.
    """
    try:
        folder = wanted_folder(settings)
    except LookupError as error:
        msg = f"there is no folder for journals: {error.args[0]}; set DKIST_CORE_STATE_DIR"
        return Place(Path("/nonexistent") / FOLDER, problem=msg)
    kind = file_system(folder)
    if kind not in _NETWORK | _MEMORY:
        return Place(folder)
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    what = "a network" if kind in _NETWORK else "a memory"
    return Place(
        Path("/var/tmp") / f"{FOLDER}-{settings.core_origin.uid}-{digest}",  # noqa: S108 - a folder of this user's own, mode 0700
        moved_from=folder,
        reason=f"{folder} is on {what} file system ({kind})",
    )


def check_place(settings: Settings) -> None:
    """
    Check that there is a folder for journals: the commands work on journals only.

    Raises:
        JournalFolderError: There is no folder, so a publisher keeps events in memory.
    """
    problem = place(settings).problem
    if problem is not None:
        raise JournalFolderError(problem)


def open_folder(where: Place) -> Path:
    """
    Return the folder of the journals, created if missing: for its owner only, unless it was created for a group.

    Raises:
        JournalFolderError: The folder cannot be created, or belongs to another user who did not share it.
    """
    if where.problem is not None:
        raise JournalFolderError(where.problem)
    if where.moved_from is not None and where.moved_from not in _warned:
        _warned.add(where.moved_from)
        logger.warning("journals are kept in %s: %s", where.folder, where.reason)
    try:
        make_folder(str(where.folder))
    except OSError as error:
        msg = f"the journals' folder {where.folder} cannot be created: {error.strerror}; set DKIST_CORE_STATE_DIR"
        raise JournalFolderError(msg) from error
    check_folder(where)
    return where.folder


def check_folder(where: Place) -> None:
    """
    Check that an existing folder can be trusted with journals.

    Raises:
        JournalFolderError: The folder belongs to another user who did not share it, or cannot be used.
    """
    try:
        # In /var/tmp any user may have created the name before, for example as a link.
        found = where.folder.stat() if where.moved_from is None else where.folder.lstat()
    except OSError as error:
        msg = f"the journals' folder {where.folder} cannot be used: {error.strerror}; set DKIST_CORE_STATE_DIR"
        raise JournalFolderError(msg) from error
    reason = distrust(found) if where.moved_from is None else _distrust_in_public(found)
    if reason is not None:
        msg = f"the journals' folder {where.folder} {reason}; set DKIST_CORE_STATE_DIR"
        raise JournalFolderError(msg)


def _distrust_in_public(found: os.stat_result) -> str | None:
    """Return the reason not to use a folder whose name every user knows; None if it can be used."""
    if not stat.S_ISDIR(found.st_mode):
        return "is a link"
    if found.st_uid != os.geteuid():
        return f"belongs to uid {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    return f"has mode {mode:04o}, by which others may write to it: chmod it to 0700" if mode & _OTHERS_WRITE else None


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is, or would be, on; "" if the kernel does not report it."""
    resolved = os.path.realpath(path)
    best, kind = "", ""
    for mount in mounts():
        inside = resolved == mount.point or resolved.startswith(mount.point.rstrip("/") + "/")
        # Of two mounts at the same point the later one covers the earlier one.
        if inside and len(mount.point) >= len(best):
            best, kind = mount.point, mount.file_system
    return kind
