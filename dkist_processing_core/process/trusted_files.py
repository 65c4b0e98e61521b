"""
Open this user's files and folders so that a link or a file that another user put there is never used.

The check applies to the opened descriptor, before the file is changed in any way. This is the only mechanism for
journals, their locks and spares, and environments. Not here: the choice of these folders (bus, environments).
"""

# ruff: noqa: PTH100, PTH101, PTH102, PTH112, PTH116, PTH119, PTH120 - paths are texts: a launcher needs it
from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_FOLDER_MODE, _FILE_MODE, _SHARED_FILE_MODE = 0o700, 0o600, 0o660
Identity = tuple[int, int]
"""The identity of an open file: its device and its inode number there."""


def file_mode(folder: os.stat_result) -> int:
    """Return the mode of files in a folder: shared with the group if the folder has the setgid bit."""
    return _SHARED_FILE_MODE if folder.st_mode & stat.S_ISGID else _FILE_MODE


def make_folder(path: str) -> None:
    """Create a folder and its missing parents, each accessible for its owner only, independent of the umask."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.lexists(parent):
        make_folder(parent)
    try:
        os.mkdir(path, _FOLDER_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    with ClosedAfterwards(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as descriptor:
        _set_mode(descriptor, os.fstat(descriptor), _FOLDER_MODE)
        _give_to_owner(descriptor, os.stat(parent))


def distrust(folder: os.stat_result) -> str | None:
    """Return why other users may own files in a folder; None if it belongs to this user, root or one of our groups."""
    user = os.geteuid()
    if user == 0 or folder.st_uid in {0, user}:
        return None
    if folder.st_mode & stat.S_ISGID and folder.st_gid in {os.getegid(), *os.getgroups()}:
        return None
    return f"belongs to uid {folder.st_uid}, and is not shared with a group of uid {user} (mode 2770)"


def exchangeable_above(path: str) -> str | None:
    """Return the folder above a path in which other users could replace it, and the reason; None if there is none."""
    user = os.geteuid()
    # The owner of / is included: in a user namespace without root, root's files show this other uid.
    owners = {0, user, os.stat("/").st_uid}
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        folder = start
        while folder != "/":
            folder = os.path.dirname(folder)
            found = os.stat(folder)
            if found.st_uid not in owners:
                return f"{folder} belongs to uid {found.st_uid}, who may put another folder in its place"
            if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
                mode = stat.S_IMODE(found.st_mode)
                return f"{folder} has mode {mode:04o}, which lets every user put another in its place: chmod o-w it"
    return None


def open_file(
    path: str | os.PathLike[str], flags: int = os.O_RDWR, *, sets_mode: bool = True, shares: bool = True
) -> int:
    """
    Open a regular file of this user, or, unless `shares` is false, of the folder's group; return the descriptor.

    With `sets_mode`, a file of this user gets the mode of files in its folder, independent of the umask.

    Raises:
        PermissionError: The path is something else, such as a link, or belongs to another user; nothing is changed.
    """
    path = os.fspath(path)
    with ClosedAfterwards(_open_folder(path)) as in_folder:
        folder, name = os.fstat(in_folder), os.path.basename(path)
        mode = file_mode(folder) if shares else _FILE_MODE
        if flags & os.O_CREAT:
            _make_file(name, in_folder, folder, mode)
        _check_by_name(path, name, in_folder, folder, shares=shares)
        # Nonblocking: opening a pipe of this name would block.
        flags = (flags & ~os.O_CREAT) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=in_folder)
        found = os.fstat(descriptor)
        try:
            _check(path, found, folder, shares=shares)
            if sets_mode:
                _set_mode(descriptor, found, mode)
        except BaseException:
            close_if(descriptor, (found.st_dev, found.st_ino))
            raise
    return descriptor


def check_beside(path: str, suffixes: Iterable[str]) -> None:
    """
    Check the existing files with the name of a file plus these suffixes in the same way as `open_file`.

    Raises:
        PermissionError: As for `open_file`.
    """
    with ClosedAfterwards(_open_folder(path)) as in_folder:
        folder = os.fstat(in_folder)
        for suffix in suffixes:
            _check_by_name(path + suffix, os.path.basename(path) + suffix, in_folder, folder)


def identity_of(descriptor: int) -> Identity | None:
    """Return the identity of a descriptor's file; None if the number is free."""
    try:
        found = os.fstat(descriptor)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino


def close_if(descriptor: int, identity: Identity | None) -> None:
    """Close a descriptor if it has this identity: another thread may have closed it and reused its number."""
    if identity_of(descriptor) == identity:
        try:
            os.close(descriptor)
        except OSError:
            return


class ClosedAfterwards:
    """A context that holds a descriptor, and closes it if it still refers to the same file."""

    def __init__(self, descriptor: int) -> None:
        """Store a descriptor that was just opened."""
        self._descriptor = descriptor
        self._identity = identity_of(descriptor)

    def __enter__(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        """Close the descriptor if it still refers to the same file."""
        close_if(self._descriptor, self._identity)


def _open_folder(path: str) -> int:
    """Return a descriptor of the folder of a file; the folder must be trusted."""
    folder = os.path.dirname(path) or "."
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    reason = distrust(found)
    if reason is not None:
        close_if(descriptor, (found.st_dev, found.st_ino))
        msg = f"{folder}: found a folder that {reason}; use another"
        raise PermissionError(msg)
    return descriptor


def _make_file(name: str, in_folder: int, folder: os.stat_result, mode: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, _FILE_MODE, dir_fd=in_folder)
    except FileExistsError:
        return
    with ClosedAfterwards(descriptor):
        _set_mode(descriptor, os.fstat(descriptor), mode)
        _give_to_owner(descriptor, folder)


def _give_to_owner(descriptor: int, folder: os.stat_result) -> None:
    """
    If this process runs as root, change the owner of a file that it has just created to the owner of the folder.

    Otherwise a command under sudo would lock users out of their own journals. SQLite does the same with its files.
    """
    if os.geteuid() == 0 and folder.st_uid != 0:
        # The path in /proc is used, since fchown(2) refuses a descriptor of O_PATH.
        os.chown(f"/proc/self/fd/{descriptor}", folder.st_uid, folder.st_gid)


def _check_by_name(path: str, name: str, in_folder: int, folder: os.stat_result, *, shares: bool = True) -> None:
    """Check the file before it is opened: a message that names a link is clearer than the error from opening it."""
    try:
        found = os.lstat(name, dir_fd=in_folder)
    except FileNotFoundError:
        return
    _check(path, found, folder, shares=shares)


def _check(path: str, found: os.stat_result, folder: os.stat_result, *, shares: bool) -> None:
    user = os.geteuid()
    is_shared = shares and folder.st_mode & stat.S_ISGID and found.st_gid == folder.st_gid
    if stat.S_ISLNK(found.st_mode):
        reason = "a link"
    elif not stat.S_ISREG(found.st_mode):
        reason = "something else"
    elif found.st_nlink > 1:
        reason = "a file that has several names"
    elif found.st_uid not in {0, user, folder.st_uid} and not is_shared:
        reason = f"a file of uid {found.st_uid}"
    else:
        return
    msg = f"{path}: found {reason}, expected a regular file of uid {user}; remove it"
    raise PermissionError(msg)


def _set_mode(descriptor: int, found: os.stat_result, mode: int) -> None:
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != mode:
        try:
            os.fchmod(descriptor, mode)
        except OSError:
            # A descriptor of O_PATH, which fchmod(2) refuses.
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
