"""
Files and folders of this user, opened so that another user's link, or a file that they put there, is never taken.

What is checked is the opened descriptor, before anything about the file is changed. The one mechanism for journals,
their locks and spares, and environments. Not here: which folders those are (bus, environments).
"""

# ruff: noqa: PTH100, PTH101, PTH102, PTH112, PTH115, PTH116, PTH118, PTH119, PTH120, PTH208 - paths are texts: a launcher needs it
from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection
    from types import TracebackType
    from typing import Self

_FOLDER_MODE, _FILE_MODE, _SHARED_FILE_MODE = 0o700, 0o600, 0o660
_SIDE_FILES = ("-wal", "-shm", "-journal")
taken: dict[int, tuple[int, int]] = {}
"""The numbers that `descriptors.low_numbers_taken` holds just now, with device and inode; none is a file of ours."""


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
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _set_mode(descriptor, os.fstat(descriptor), _FOLDER_MODE)
        _give_to_owner(descriptor, os.stat(parent))
    finally:
        os.close(descriptor)


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
    in_folder = _open_folder(path)
    try:
        folder, name = os.fstat(in_folder), os.path.basename(path)
        mode = file_mode(folder) if shares else _FILE_MODE
        if flags & os.O_CREAT:
            _make_file(name, in_folder, folder, mode)
        _check_by_name(path, name, in_folder, folder, shares=shares)
        # Nonblocking: a pipe of this name would keep an opener waiting.
        flags = (flags & ~os.O_CREAT) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=in_folder)
        try:
            found = os.fstat(descriptor)
            _check(path, found, folder, shares=shares)
            if sets_mode:
                _set_mode(descriptor, found, mode)
        except BaseException:
            os.close(descriptor)
            raise
    finally:
        os.close(in_folder)
    return descriptor


class Guarded:
    """
    A context in which SQLite opens a file by its path: the file is held, and what was opened compared with it.

    Held by O_PATH: closing any other descriptor of a file would give up the locks that SQLite holds on it (fcntl(2)).
    """

    def __init__(self, path: str | os.PathLike[str], *, make: bool = False) -> None:
        """Name the file; with `make` it is made where it is missing, and has the mode of files in its folder."""
        self._path = os.fspath(path)
        self._make = make

    def __enter__(self) -> Self:
        """Check the file, and those that SQLite keeps beside it."""
        flags = os.O_PATH | (os.O_CREAT if self._make else 0)
        self._descriptor = open_file(self._path, flags, sets_mode=self._make)
        try:
            self._check_side_files()
            # Those are many, and known.
            self._taken = dict(taken)
            self._before = _opened(without=self._taken) | self._taken
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def check(self, connection: sqlite3.Connection) -> None:
        """
        Check that what a connection has opened is the file that is held. It reads nothing of what was opened.

        Raises
        ------
        PermissionError
            where it was another: somebody exchanged the file in between.

        """
        own = os.fstat(self._descriptor)
        if not (own.st_nlink and self._is_at_path(connection) and self._is_opened((own.st_dev, own.st_ino))):
            msg = f"{self._path}: found another file than a moment ago, expected the same one"
            raise PermissionError(msg)

    def _is_at_path(self, connection: sqlite3.Connection) -> bool:
        """Return whether SQLite met no link at the path: it resolves the path first, and then opens no link."""
        connection.text_factory = os.fsdecode
        opened = connection.execute("PRAGMA database_list").fetchone()[2]
        return _in_real_folder(opened) == _in_real_folder(self._path)

    def _is_opened(self, own: tuple[int, int]) -> bool:
        """Return whether the file is among what is open now; other threads open and close files of theirs meanwhile."""
        if own in dict(_opened(without=self._taken).items() - self._before.items()).values() or not self._before:
            return True
        new = dict(_opened().items() - self._before.items())
        if own in new.values():
            return True
        # SQLite uses one again that it had to keep, of this very file; then it opens nothing at the path.
        is_kept = any(file == own and number != self._descriptor for number, file in self._before.items())
        path = _in_real_folder(self._path)
        return is_kept and not any(_name_of(number) in {path, f"{path} (deleted)"} for number in new)

    def _check_side_files(self) -> None:
        in_folder = _open_folder(self._path)
        try:
            folder = os.fstat(in_folder)
            for suffix in _SIDE_FILES:
                _check_by_name(self._path + suffix, os.path.basename(self._path) + suffix, in_folder, folder)
        finally:
            os.close(in_folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _in_real_folder(path: str) -> str:
    """Return a path without links in it, but for its last part."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _name_of(descriptor: int) -> str:
    """Return by which path a file was opened; "" for one that another thread has closed."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _open_folder(path: str) -> int:
    """Return a descriptor of the folder that a file is in, which is one of ours."""
    folder = os.path.dirname(path) or "."
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    reason = distrust(os.fstat(descriptor))
    if reason is not None:
        os.close(descriptor)
        msg = f"{folder}: found a folder that {reason}; use another"
        raise PermissionError(msg)
    return descriptor


def _make_file(name: str, in_folder: int, folder: os.stat_result, mode: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, _FILE_MODE, dir_fd=in_folder)
    except FileExistsError:
        return
    try:
        _set_mode(descriptor, os.fstat(descriptor), mode)
        _give_to_owner(descriptor, folder)
    finally:
        os.close(descriptor)


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


def _opened(*, without: Collection[int] = ()) -> dict[int, tuple[int, int]]:
    """Return which file each descriptor of this process is; the one that reads the folder is closed by then."""
    found = {}
    try:
        for number in map(int, os.listdir("/proc/self/fd")):
            if number not in without:
                try:
                    file = os.fstat(number)
                except OSError:
                    continue
                found[number] = file.st_dev, file.st_ino
    except OSError:
        # No /proc: nothing can be compared.
        pass
    return found
