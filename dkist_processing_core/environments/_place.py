"""
The folder of the environments, and the names of what is in it.

    {key}                           a link to the environment of that key that is used
    {key}.{number}                  an environment; it stays where it was built, since its scripts name their place
    {key}.{number}/environment.json  its marker: written last, so that without it nothing is whole
    {key}.lock                      held while an environment of that key is built or removed
    {key}.{number}.gone-{hex}       what is being deleted

Not here: what is done with them.
"""

# ruff: noqa: PTH100, PTH111, PTH123 - paths are texts: pathlib is dearer than finding
from __future__ import annotations

import os
import stat

from dkist_processing_core.environments._key import DIGITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "DKIST_CORE_ENVIRONMENTS_DIR"
MARKER = "environment.json"
LOCK = ".lock"
GONE = ".gone-"
_HEX = frozenset("0123456789abcdef")


def folder_of(environ: Mapping[str, str]) -> str:
    """
    Return the folder that a process's environment names for the environments, by default one in the user's cache.

    Only where a file `.env` in the current folder seems to name it are the settings read, which takes long.
    """
    named = environ.get(VARIABLE) or _named_in_file()
    if named:
        return os.path.abspath(os.path.expanduser(named))
    cache = environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        cache = f"{environ.get('HOME') or os.path.expanduser('~')}/.cache"
    return f"{cache}/dkist-processing-core/environments"


def _named_in_file() -> str | None:
    try:
        with open(".env", "rb", buffering=0) as file:
            if VARIABLE.encode() not in file.read().upper():
                return None
    except OSError:
        return None
    from dkist_processing_core.config import DKISTProcessingCoreConfiguration  # noqa: PLC0415 - rare, and dear

    found = DKISTProcessingCoreConfiguration.read_leniently()[0].dkist_core_environments_dir
    return None if found is None else str(found)


def distrust(found: os.stat_result, uid: int) -> str | None:
    """Return why a process of a user does not run what is in a folder: somebody else may have put it there."""
    owner, mode = found.st_uid, stat.S_IMODE(found.st_mode)
    has = f"it belongs to uid {owner} and has mode {mode:04o}"
    if owner not in {0, uid}:
        return f"{has}, and only a folder of uid {uid} or of root is used"
    if mode & stat.S_IWOTH:
        return f"{has}, by which anybody may write to it: chmod o-w it"
    if mode & stat.S_IWGRP and owner != uid:
        return f"{has}, by which its group may write to it: chmod g-w it"
    return None


def key_and_number(name: str) -> tuple[str, int | None] | None:
    """
    Return the key, and the number if it has one, that a name in the folder consists of; None for any other name.

    >>> key_and_number("six-1.16.0-cp311-0123456789abcdef.12")
    ('six-1.16.0-cp311-0123456789abcdef', 12)
    """
    key, dot, number = name.rpartition(".")
    if not (dot and number.isascii() and number.isdigit() and _is_key(key)):
        return (name, None) if _is_key(name) else None
    return key, int(number)


def _is_key(text: str) -> bool:
    digest = text.rpartition("-")[2]
    return len(digest) == DIGITS and _HEX.issuperset(digest)
