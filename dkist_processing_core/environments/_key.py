"""
The name of an environment in its folder: alike for all that may share it, and for nothing else.

Not here: which settings count (_variables), what of the interpreter (_interpreter).
"""

from __future__ import annotations

import hashlib
import sys

from dkist_processing_core.environments import _interpreter
from dkist_processing_core.environments._variables import what_counts
from dkist_processing_core.errors import EnvironmentBuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkist_processing_core.environments._requirement import Requirement

_MOST_OF_NAME = 60
_MOST_OF_VERSION = 40
DIGITS = 16


class Key:
    """A readable name that is safe as that of a file, and the whole digest, of which the name holds a part."""

    __slots__ = ("digest", "name")

    def __init__(self, requirement: Requirement, interpreter: tuple[str, str], environ: Mapping[str, str]) -> None:
        """Take what decides: the interpreter's label and identity, and the variables of the installation."""
        label, identity = interpreter
        # The repr of nested tuples and texts: two different ones never read alike.
        parts = repr((str(requirement), identity, what_counts(environ)))
        self.digest = hashlib.sha256(parts.encode("utf-8", "backslashreplace")).hexdigest()
        readable = (requirement.name[:_MOST_OF_NAME], requirement.version[:_MOST_OF_VERSION], label)
        self.name = "-".join((*readable, self.digest[:DIGITS]))


def interpreter_of(executable: str) -> tuple[str, str]:
    """
    Return an interpreter's label and identity: this process's own at once, another's by running it.

    Raises
    ------
    EnvironmentBuildError
        where it cannot be run.

    """
    if executable == sys.executable:
        return _interpreter.label(), _interpreter.identity()
    import subprocess  # noqa: PLC0415 - not for an environment of one's own interpreter

    try:
        asked = [executable, "-I", _interpreter.__file__]
        answer = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        msg = f"the interpreter {executable} cannot be run: {error}"
        raise EnvironmentBuildError(msg) from error
    label, _, identity = answer.stdout.rstrip("\n").partition(" ")
    return label, identity
