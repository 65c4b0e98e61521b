"""
The name of an environment in its folder: equal for all requests that may share it, and for no others.

Not here: the settings that count (_variables), the properties of the interpreter that count (_interpreter).
"""

from __future__ import annotations

import hashlib
import sys

from dkist_processing_core.environments import _interpreter
from dkist_processing_core.environments._variables import relevant_settings
from dkist_processing_core.errors import EnvironmentBuildError
from dkist_processing_core.process.exit_status import output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkist_processing_core.environments._requirement import Requirement

_MOST_OF_NAME = 60
_MOST_OF_VERSION = 40
DIGITS = 16
_OF_RELEASE = frozenset("0123456789.")


class Key:
    """A readable name that is a safe file name, and the whole digest, of which the name holds a part."""

    __slots__ = ("digest", "name")

    def __init__(self, requirement: Requirement, interpreter: tuple[str, str], environ: Mapping[str, str]) -> None:
        """Derive the key from requirement, label and identity of the interpreter, and the installation's variables."""
        label, identity = interpreter
        # The repr of nested tuples and texts is unambiguous: two different values never have the same text.
        release = release_of(requirement.version)
        parts = repr((requirement.name, requirement.extras, release, identity, relevant_settings(environ)))
        self.digest = hashlib.sha256(parts.encode("utf-8", "backslashreplace")).hexdigest()
        readable = (requirement.name[:_MOST_OF_NAME], release[:_MOST_OF_VERSION], label)
        self.name = "-".join((*readable, self.digest[:DIGITS]))


def release_of(version: str) -> str:
    """
    Return one spelling for all versions of a simple form that mean the same release (PEP 440).

    >>> [release_of(each) for each in ("1", "v1.0", "1.0.0", "1.0.0RC1", "2024.01.10", "1!1.0", "main")]
    ['1.0', '1.0', '1.0', '1.0rc1', '2024.1.10', '1!1.0', 'main']
    """
    text = version.lower()
    if text[0] == "v" and text[1:2].isdigit():
        text = text[1:]
    end = next((at for at, letter in enumerate(text) if letter not in _OF_RELEASE), len(text))
    release, rest = text[:end].rstrip("."), text[end:]
    numbers = release.split(".")
    # Versions with an epoch, or of another form, are not normalised: two spellings of one stay different.
    if rest.startswith("!") or not all(numbers):
        return text
    numbers = [number.lstrip("0") or "0" for number in numbers]
    while len(numbers) > 1 and numbers[-1] == "0":
        numbers.pop()
    numbers = numbers if len(numbers) > 1 else [*numbers, "0"]
    return ".".join(numbers) + text[len(release) : end] + rest


def interpreter_of(executable: str) -> tuple[str, str]:
    """
    Return an interpreter's label and identity: this process's own at once, another's by running it.

    Raises:
        EnvironmentBuildError: The interpreter cannot be run.
    """
    if executable == sys.executable:
        return _interpreter.label(), _interpreter.identity()
    try:
        status, answer = output_of([executable, "-I", _interpreter.__file__])
    except OSError as error:
        msg = f"the interpreter {executable} cannot be run: {error}"
        raise EnvironmentBuildError(msg) from error
    label, _, identity = answer.rstrip("\n").partition(" ")
    # The interpreter's last action is to print a whole answer, so it counts even if the status is lost.
    if status or not identity:
        how = f"ended with status {status}" if status else "has not reported its properties"
        msg = f"the interpreter {executable} cannot be run: it {how}"
        raise EnvironmentBuildError(msg)
    return label, identity
