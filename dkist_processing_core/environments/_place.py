"""
The folder of the environments, and the names of its entries.

    {key}                           a link to the environment of that key that is used
    {key}.{number}                  an environment; it stays where it was built, since its scripts contain its path
    {key}.{number}/environment.json  its marker: written last, so that an environment without it is incomplete
    {key}.lock                      held while an environment of that key is built or removed
    {key}.{number}.gone-{hex}       an entry that is being deleted

Not here: the use of these entries.
"""

from __future__ import annotations

import os
import stat

from dkist_processing_core.environments._key import DIGITS
from dkist_processing_core.errors import EnvironmentBuildError
from dkist_processing_core.settings.origin import Origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkist_processing_core.environments._key import Key

VARIABLE = "DKIST_CORE_ENVIRONMENTS_DIR"
MARKER = "environment.json"
LOCK = ".lock"
GONE = ".gone-"
_HEX = frozenset("0123456789abcdef")


def folder_of(environ: Mapping[str, str] | None = None) -> str:
    """
    Return the folder that the variables, or the file `.env`, name for the environments; by default in the user's cache.

    Raises:
        EnvironmentBuildError: The folder is below the home of a user who has none, or the file must not name it.
    """
    origin = Origin.of_process() if environ is None else Origin.now(environ)
    named = origin.named(VARIABLE)
    if named and not origin.environ.get(VARIABLE):
        # The files in the folder are executed with the variables of this process.
        from dkist_processing_core.settings.credentials import objection  # noqa: PLC0415 - only where there is a file

        variables, of_file = (
            {name.lower(): value for name, value in each.items()} for each in (origin.environ, origin.dotenv)
        )
        if complaint := objection(variables, {VARIABLE.lower(): of_file.get(VARIABLE.lower())}, (), origin.file):
            raise EnvironmentBuildError(complaint)
    try:
        if named:
            return os.path.normpath(origin.absolute(named))
        cache = origin.environ.get("XDG_CACHE_HOME", "")
        if not cache.startswith("/"):
            cache = origin.absolute("~/.cache")
    except LookupError as error:
        msg = f"there is no folder for environments: {error}; set {VARIABLE}"
        raise EnvironmentBuildError(msg) from error
    return f"{cache}/dkist-processing-core/environments"


def distrust(found: os.stat_result, uid: int) -> str | None:
    """Return why a user's process must not execute a folder's files (another user may have added them), or None."""
    owner, mode = found.st_uid, stat.S_IMODE(found.st_mode)
    has = f"it belongs to uid {owner} and has mode {mode:04o}"
    if owner not in {0, uid}:
        return f"{has}, and only a folder of uid {uid} or of root is used"
    if mode & stat.S_IWOTH:
        return f"{has}, which lets every user write to it: chmod o-w it"
    if mode & stat.S_IWGRP and owner != uid:
        return f"{has}, which lets its group write to it: chmod g-w it"
    return None


def key_and_number(name: str) -> tuple[str, int | None] | None:
    """
    Return the key and, if it has one, the number in the name of an entry of the folder; None for any other name.

    >>> key_and_number("six-1.16.0-cp311-0123456789abcdef.12")
    ('six-1.16.0-cp311-0123456789abcdef', 12)
    """
    key, dot, number = name.rpartition(".")
    if not (dot and number.isascii() and number.isdigit() and _is_key(key)):
        return (name, None) if _is_key(name) else None
    return key, int(number)


def marker_start(key: Key) -> str:
    """Return the beginning of a marker's content, which identifies the marker without reading JSON."""
    return f'{{"key": "{key.digest}", '


def _is_key(text: str) -> bool:
    digest = text.rpartition("-")[2]
    return len(digest) == DIGITS and _HEX.issuperset(digest)
