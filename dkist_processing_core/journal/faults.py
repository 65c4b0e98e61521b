"""
The conversion of errors about a journal's file to exceptions that name the file, the cause and the remedy.

Not here: the recovery of a damaged file (damage).
"""

import contextlib
import os
import pwd
import shlex
import sqlite3
import stat
from pathlib import Path
from types import TracebackType

from dkist_processing_core.errors import JournalAccessError, JournalDamagedError, JournalError

# SQLite reports a writable file as read-only if the format version in its header is newer than SQLite knows.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}
# Every statement is a constant that fits the format. So a table or column that is missing was lost by damage.
_DAMAGE_MESSAGES = ("no such ", "unsupported file format")
_ACCESS = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}
SIDE_FILES = ("-wal", "-shm")
"""The suffixes of SQLite's side files in WAL mode (https://sqlite.org/wal.html)."""
suspects: set[Path] = set()
"""The journals in which SQLite has found damage in this process; the next opening checks each as a whole."""


class explained:  # noqa: N801 - read as a function
    """Convert an OS or SQLite error to a `JournalError` that names the file; a class, because each call uses one."""

    __slots__ = ("_kind", "_path")

    def __init__(self, path: Path, kind: str = "journal") -> None:
        """Store the file's path and kind."""
        self._path = path
        self._kind = kind

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the `JournalError` for an OS or SQLite error."""
        if isinstance(error, sqlite3.Error | OSError):
            raise _fault(self._path, self._kind, error) from error


def _fault(path: Path, kind: str, error: sqlite3.Error | OSError) -> JournalError:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK:
        return JournalError(f"the journal {path} cannot be used: found {path}-journal, expected none; remove it")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    is_of_access = code in _ACCESS or isinstance(error, PermissionError)
    refused = _refused_access(path) if is_of_access else None
    if refused is not None:
        return JournalAccessError(f"the {kind} {path} cannot be used: {refused}")
    msg = f"the {kind} {path} cannot be used: {error}"
    if is_of_damage(error):
        suspects.add(path)
        return JournalDamagedError(msg)
    if is_of_access and not_a_file(path):
        return JournalDamagedError(msg)
    return JournalError(msg)


def is_of_damage(error: sqlite3.Error | OSError) -> bool:
    """Return True if an error of a file that this user may write to is caused by its content."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in _DAMAGE or (code == sqlite3.SQLITE_ERROR and str(error).startswith(_DAMAGE_MESSAGES))


def is_busy(error: BaseException | None) -> bool:
    """Return True if SQLite failed because another process or thread is using the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def check_access(path: Path) -> None:
    """Raise a `JournalAccessError` if this user may not read and write a journal's files."""
    refused = _refused_access(path)
    if refused is not None:
        msg = f"the journal {path} cannot be used: {refused}"
        raise JournalAccessError(msg)


def not_a_file(path: Path) -> bool:
    """Return True if a folder has the name of a journal or of one of its side files."""
    for name in (path.name, *[path.name + side for side in SIDE_FILES]):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(path.with_name(name).lstat().st_mode):
                return True
    return False


def _refused_access(path: Path) -> str | None:
    """Return a text on a journal's file that this user may not read and write: its owner and the remedy; or None."""
    for each in (path, *[path.with_name(path.name + side) for side in SIDE_FILES], path.parent):
        try:
            # With O_PATH: closing any other descriptor would drop the locks that SQLite holds on the file (fcntl(2)).
            # The folder may be a link. The files in it may not.
            descriptor = os.open(each, os.O_PATH | os.O_CLOEXEC | (0 if each == path.parent else os.O_NOFOLLOW))
        except OSError:
            continue
        try:
            found = os.fstat(descriptor)
            if stat.S_ISLNK(found.st_mode):
                # The link itself is refused: the owner of its target does not matter.
                continue
            is_read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
            # The name in /proc refers to this file, even if it was removed since. Without /proc its own path is used.
            opened = Path(f"/proc/self/fd/{descriptor}")
            name = opened if opened.exists() else each
            is_ours = os.access(name, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)
        finally:
            os.close(descriptor)
        if is_read_only:
            return f"{each} is on a file system that is mounted read only; set DKIST_CORE_STATE_DIR to another folder"
        if not is_ours:
            me, target = _user(os.geteuid()), str(path if each != path.parent else each)
            # `-h` changes the owner of a link itself: a link that another user puts beside the journal must not change
            # the owner of its target.
            remedy = f"chown -h {me} {shlex.quote(target)}{'*' if each != path.parent else ''}"
            return (
                f"{each} belongs to user {_user(found.st_uid)}, and user {me} may not read and write it; "
                f"have an administrator run `{remedy}`, or set DKIST_CORE_STATE_DIR to another folder"
            )
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
