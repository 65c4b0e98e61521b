"""
Files and folders of this user, opened so that another user's link, or a file that they put there, is never taken.

What is checked is the opened descriptor, before anything about the file is changed. The one mechanism for journals,
their locks and spares, and environments. Not here: which folders those are (bus, environments).
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
"""What distinguishes an open file from others: its device and its number there."""


def file_mode(folder: os.stat_result) -> int:
    """Return the mode of files in a folder: shared with the group where the folder has the setgid bit."""
    return _SHARED_FILE_MODE if folder.st_mode & stat.S_ISGID else _FILE_MODE


def make_folder(path: str) -> None:
    """Make a folder, and its parents where they are missing: each for its owner only, whatever the umask."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.lexists(parent):
        make_folder(parent)
    try:
        os.mkdir(path, _FOLDER_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    with Briefly(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as descriptor:
        _set_mode(descriptor, os.fstat(descriptor), _FOLDER_MODE)
        _give_to_owner(descriptor, os.stat(parent))


def distrust(folder: os.stat_result) -> str | None:
    """Return why files in a folder may be another user's; None for one of this user, of root, or of a group of ours."""
    user = os.geteuid()
    if user == 0 or folder.st_uid in {0, user}:
        return None
    if folder.st_mode & stat.S_ISGID and folder.st_gid in {os.getegid(), *os.getgroups()}:
        return None
    return f"belongs to uid {folder.st_uid}, and is not shared with a group of uid {user} (mode 2770)"


def exchangeable_above(path: str) -> str | None:
    """Return by which folder above it other users may put another in a path's place, and why; None where by none."""
    user = os.geteuid()
    # As root's shows in a user namespace that has no root.
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
                return f"{folder} has mode {mode:04o}, by which anybody may put another in its place: chmod o-w it"
    return None


def open_file(
    path: str | os.PathLike[str], flags: int = os.O_RDWR, *, sets_mode: bool = True, shares: bool = True
) -> int:
    """
    Open a regular file of this user, or, unless `shares` is false, of the group that its folder is shared with.

    With `sets_mode` one of this user has the mode of files in its folder when this returns, whatever the umask.

    Raises
    ------
    PermissionError
        where it is something else, as a link, or another user's; nothing about it is changed.

    """
    path = os.fspath(path)
    with Briefly(_open_folder(path)) as in_folder:
        folder, name = os.fstat(in_folder), os.path.basename(path)
        mode = file_mode(folder) if shares else _FILE_MODE
        if flags & os.O_CREAT:
            _make_file(name, in_folder, folder, mode)
        _check_by_name(path, name, in_folder, folder, shares=shares)
        # Nonblocking: a pipe of this name would keep an opener waiting.
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
    Check the files beside one, of its name and these suffixes, as `open_file` does, where they are there.

    Raises
    ------
    PermissionError
        as `open_file` does.

    """
    with Briefly(_open_folder(path)) as in_folder:
        folder = os.fstat(in_folder)
        for suffix in suffixes:
            _check_by_name(path + suffix, os.path.basename(path) + suffix, in_folder, folder)


def identity_of(descriptor: int) -> Identity | None:
    """Return what a descriptor is; None for a number that is free."""
    try:
        found = os.fstat(descriptor)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino


def close_if(descriptor: int, identity: Identity | None) -> None:
    """Close a descriptor if it is what it was: another thread may have closed it, and opened a file of its number."""
    if identity_of(descriptor) == identity:
        try:
            os.close(descriptor)
        except OSError:
            return


class Briefly:
    """A context that has a descriptor open, and closes it if it is what it was then."""

    def __init__(self, descriptor: int) -> None:
        """Take a descriptor that was opened a moment ago."""
        self._descriptor = descriptor
        self._identity = identity_of(descriptor)

    def __enter__(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        """Close it."""
        close_if(self._descriptor, self._identity)


def _open_folder(path: str) -> int:
    """Return a descriptor of the folder that a file is in, which is one of ours."""
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
    with Briefly(descriptor):
        _set_mode(descriptor, os.fstat(descriptor), mode)
        _give_to_owner(descriptor, folder)


def _give_to_owner(descriptor: int, folder: os.stat_result) -> None:
    """
    Give what this process has just made in a folder to the folder's owner, where the process is root's.

    A command that is run with sudo would shut users out of their own journals. SQLite does the same with its files.
    """
    if os.geteuid() == 0 and folder.st_uid != 0:
        # By that name, since fchown(2) refuses one of O_PATH.
        os.chown(f"/proc/self/fd/{descriptor}", folder.st_uid, folder.st_gid)


def _check_by_name(path: str, name: str, in_folder: int, folder: os.stat_result, *, shares: bool = True) -> None:
    """Check what is there, before it is opened: a link is better named than the error that opening it would give."""
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
        reason = "a file that has another name, too"
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
            # One of O_PATH, which fchmod(2) refuses.
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
