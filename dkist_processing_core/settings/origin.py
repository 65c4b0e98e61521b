"""
The sources of the settings at one moment: variables, current folder, the file `.env` in it, home and user.

A launcher, its task and the callbacks around them are separate processes that each read the settings. An author's code
may change the sources in the meantime. So the first process records the sources and passes them on in one variable. The
task's process takes the variable before it loads any of the author's code. Not here: reading the
settings (reading).
"""

# ruff: noqa: PTH100, PTH109, PTH111, PTH116, PTH118 - a launcher imports it before the task is started: importing pathlib is slow
from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

VARIABLE = "DKIST_CORE_ORIGIN"
"""The variable that passes an origin to another process; a release that does not know it reads the settings again."""
# From a file `.env`, only entries that may be settings are passed on, and secrets, to redact them; a test checks the
# names.
_OF_SETTINGS = ("BUILD_", "MESH_", "ISB_", "EVENT_", "DKIST_", "RETRY_", "PIP_", "IS_NOTEBOOK_", "OTEL_")
# A variable has at most 128 KiB (MAX_ARG_STRLEN, execve(2)): the kernel does not start a process with a longer one.
_MOST_HANDED_OVER = 100_000
_FILE = ".env"


class Origin:
    """The sources of one reading of the settings: `dotenv` holds the file's values, `problem` why it is unreadable."""

    __slots__ = ("dotenv", "environ", "folder", "home", "problem", "uid")

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        folder: str,
        home: str | None,
        uid: int,
        dotenv: Mapping[str, str | None],
        problem: str | None = None,
    ) -> None:
        """Store all sources; `Origin.now` collects those of this process."""
        self.environ = dict(environ)
        self.folder = folder
        self.home = home
        self.uid = uid
        self.dotenv = dict(dotenv)
        self.problem = problem

    @classmethod
    def now(cls, environ: Mapping[str, str] | None = None) -> Origin:
        """Return the current origin of this process; a removed current folder is "", and a missing home is None."""
        environ = os.environ if environ is None else environ
        try:
            folder = os.getcwd()
        except OSError:
            folder = ""
        dotenv, problem = _read(_FILE) if folder else ({}, None)
        return cls(environ, folder=folder, home=_home(environ), uid=os.getuid(), dotenv=dotenv, problem=problem)

    @classmethod
    def of_process(cls) -> Origin:
        """Return the origin that was passed to this process, or else the current one."""
        return cls.now() if _Handed.origin is None else _Handed.origin

    def absolute(self, path: str) -> str:
        """
        Return the absolute path for the home and the current folder of that moment, even if these have changed since.

        Raises:
            LookupError: The path is below a home or a current folder that does not exist.
        """
        if path == "~" or path.startswith("~/"):
            if self.home is None:
                msg = f"found {path}, and user {self.uid} has no home"
                raise LookupError(msg)
            path = self.home + path[1:]
        elif path.startswith("~"):
            named, path = path, os.path.expanduser(path)
            if path.startswith("~"):
                msg = f"found {named}, and no such home"
                raise LookupError(msg)
        if not path.startswith("/") and not self.folder:
            msg = f"found {path}, and the current folder was removed"
            raise LookupError(msg)
        return os.path.join(self.folder, path)

    @property
    def file(self) -> str:
        """The path of the file `.env`, whether it exists or not."""
        return f"{self.folder}/{_FILE}"

    def named(self, variable: str) -> str | None:
        """Return the value of a variable, or its value in the file, or None if neither sets it."""
        return self.environ.get(variable) or self.file_values().get(variable) or None

    def file_values(self) -> dict[str, str]:
        """Return the values in the file, by their names in capitals."""
        return {name.upper(): value or "" for name, value in self.dotenv.items()}

    def to_environ(self) -> dict[str, str]:
        """Return the variable that passes on this origin; a process inherits all other variables unchanged."""
        import json  # noqa: PLC0415 - not for finding an environment

        from dkist_processing_core.text.redaction import is_secret_name  # noqa: PLC0415 - as above

        own = {
            name: value
            for name, value in self.dotenv.items()
            if name.upper().startswith(_OF_SETTINGS) or is_secret_name(name.upper())
        }
        text = json.dumps([self.folder, self.home, self.uid, own, self.problem])
        return {VARIABLE: text} if len(text) <= _MOST_HANDED_OVER else {}

    def __eq__(self, other: object) -> bool:
        """Return True if all sources, and therefore the settings, are equal."""
        return isinstance(other, Origin) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


class _Handed:
    origin: Origin | None = None


def take(environ: MutableMapping[str, str]) -> None:
    """Make this process use the origin that its variables pass on, from now on, and remove the variable."""
    text = environ.pop(VARIABLE, None)
    _Handed.origin = Origin.now(environ) if text is None else _parsed(text, environ) or Origin.now(environ)


class read_from:  # noqa: N801 - a context manager, without contextlib's import
    """Read settings in the block from one origin, for example those of a task that a local run calls in its process."""

    def __init__(self, origin: Origin) -> None:
        """Store the origin."""
        self._origin = origin

    def __enter__(self) -> None:
        """Use the origin from now on."""
        self._before, _Handed.origin = _Handed.origin, self._origin

    def __exit__(self, *_: object) -> None:
        """Restore the previous origin."""
        _Handed.origin = self._before


def handed_variables() -> MutableMapping[str, str]:
    """Return the variables with which a task's process was started, since the author's code may have changed them."""
    return {} if _Handed.origin is None else _Handed.origin.environ


def _parsed(text: str, environ: Mapping[str, str]) -> Origin | None:
    import json  # noqa: PLC0415 - as above

    try:
        folder, home, uid, dotenv, problem = json.loads(text)
        return Origin(environ, folder=folder, home=home, uid=uid, dotenv=dotenv, problem=problem)
    except (ValueError, TypeError, RecursionError):
        return None


def _home(environ: Mapping[str, str]) -> str | None:
    if home := environ.get("HOME"):
        return home
    import pwd  # noqa: PLC0415 - rare: a service without a home

    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None


def _read(path: str) -> tuple[dict[str, str | None], str | None]:
    """Return the values in a file of settings, and the reason if it cannot be read; no values for a missing file."""
    try:
        text, foreign = _text_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}, None
    except (OSError, UnicodeError) as error:
        return {}, f".env: found a file that cannot be read ({type(error).__name__}), expected UTF-8 text"
    if foreign is not None:
        expected = "expected a file of this user or of root that others cannot write to"
        remedy = "make it one (chown, chmod go-w), or remove it"
        return {}, f".env: found {os.path.abspath(path)}, which {foreign}, {expected}; {remedy}"
    if not text.strip():
        return {}, None
    from io import StringIO  # noqa: PLC0415 - as the next

    from dotenv import dotenv_values  # noqa: PLC0415 - slow to import, and needed only for a file

    return dict(dotenv_values(stream=StringIO(text))), None


def _text_of(path: str) -> tuple[str, str | None]:
    """Return the text of a regular file, and the reason if other users may control it; "" for any other file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        link = os.lstat(path)
    except PermissionError:
        # This user may not look into the current folder, so no file there is meant for this process.
        return "", None
    if not stat.S_ISLNK(link.st_mode):
        flags |= os.O_NOFOLLOW
    elif (owner := _other_owner(link)) is not None:
        # In a folder where any user can create files, such a link would choose which of this user's files is read.
        return "", f"is a link that {owner}"
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return "", None
        foreign = _others_of(status)
        return ("" if foreign else file.read().decode()), foreign


def _other_owner(status: os.stat_result) -> str | None:
    """Return the owner if it is another user, or None; for a link only this counts, since its mode has no meaning."""
    # The owner of / is included: in a user namespace without root, root's files show this other uid.
    known = {0, os.geteuid(), os.stat("/").st_uid}
    return None if status.st_uid in known else f"belongs to uid {status.st_uid}"


def _others_of(status: os.stat_result) -> str | None:
    """Return the reason why other users may control the content of a file; None if they cannot."""
    if owner := _other_owner(status):
        return owner
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to (mode {stat.S_IMODE(status.st_mode):04o})"
    return None
