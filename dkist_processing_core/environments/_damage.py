"""
The problems of an environment that does not work: files that are missing or have changed.

Not here: the repair (_build).
"""

# ruff: noqa: PTH116, PTH123 - paths are texts: importing pathlib takes longer than finding
import csv
import hashlib
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._environment import Environment

_HASHES = frozenset({"sha256", "sha384", "sha512"})
_PATIENCE = timedelta(days=1)


def problem_of(environment: Environment) -> str | None:
    """Return a description of the first problem, or None if every file is as it was after the build."""
    return next(_problems(environment), None)


def is_worth_rebuilding(environment: Environment, problem: str) -> bool:
    """Return False if it was built within the last day because of the same problem: a new one would have it again."""
    record = environment.record
    if record.get("rebuilt_for") != without_folder(problem, environment.folder):
        return True
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(record.get("made_at")))
    except (ValueError, TypeError):
        return True
    return abs(age) > _PATIENCE


def without_folder(problem: str, folder: str) -> str:
    """Return the text of a problem without the folder, so that it is the same for the key's next environment."""
    return problem.replace(f"{folder}/", "").replace(folder, "it")


def altered(folder: str, *, is_final: bool) -> dict[str, tuple[str, str] | None]:
    """
    Return the state of every file that differs from a RECORD, by its path in the environment; None means no file.

    Called right after the build, for files that two distributions have, where one has overwritten the other. Other
    files may have come damaged from the installer's cache, so that a build without the cache helps. After that build,
    which `is_final`, their state is included too, because no further build can change it. The result always includes
    the file that no RECORD names and every interpreter needs.
    """
    found = {"pyvenv.cfg": _state(f"{folder}/pyvenv.cfg")}
    files: dict[str, list[bool]] = {}
    for metadata in _record.metadata_folders(folder):
        try:
            rows = _rows(metadata)
        except (OSError, ValueError, csv.Error):
            files[f"{metadata}/RECORD"] = [False]
            continue
        for path, state in rows:
            files.setdefault(path, []).append(_change(path, state) is None)
    for path, is_as_recorded in files.items():
        if not all(is_as_recorded) and (is_final or any(is_as_recorded)):
            found[os.path.relpath(path, folder)] = _state(path)
    return found


def _problems(environment: Environment) -> Iterator[str]:
    if not os.access(environment.python, os.X_OK):
        yield f"its interpreter {environment.python} is missing or cannot be run"
    record = environment.record
    expected: dict[str, str] = record.get("distributions", {})
    found = _record.distributions(environment.folder)
    if environment.requirement.name not in expected:
        yield f"its record does not name {environment.requirement.name}"
    for name, version in expected.items():
        if name not in found:
            yield f"{name} {version} is missing"
        elif found[name] != version:
            yield f"{name} is of version {found[name]}, and was {version}"
    yield from _problems_of_files(environment.folder, record.get("altered", {}))


def _problems_of_files(folder: str, altered_then: dict[str, tuple[str, str] | None]) -> Iterator[str]:
    """Compare every file with its state after the build: that in `altered_then`, or else that in its RECORD."""
    states = {f"{folder}/{path}": state for path, state in altered_then.items()}
    for path, state in states.items():
        if state is not None and (change := _change(path, state)) is not None:
            yield f"{path} {change}"
    for metadata in _record.metadata_folders(folder):
        try:
            rows = _rows(metadata)
        except (OSError, ValueError, csv.Error) as error:
            if f"{metadata}/RECORD" not in states:
                yield f"the list of files of {metadata.name} cannot be read: {error}"
            continue
        for path, state in rows:
            if path not in states and (change := _change(path, state)) is not None:
                yield f"{path} {change}"


def _rows(metadata: Path) -> list[tuple[str, tuple[str, str]]]:
    """Return size and hash of one distribution's files from its RECORD, without bytecode, which changes by itself."""
    site = str(metadata.parent)
    with (metadata / "RECORD").open(encoding="utf-8", newline="") as file:
        rows = [(*row, "", "") for row in csv.reader(file) if row]
    return [(os.path.normpath(f"{site}/{row[0]}"), (row[2], row[1])) for row in rows if not row[0].endswith(".pyc")]


def _state(path: str) -> tuple[str, str] | None:
    try:
        return str(os.stat(path).st_size), f"sha256={_digest(path, 'sha256')}"
    except OSError:
        return None


def _change(path: str, state: tuple[str, str]) -> str | None:
    """Return how a file has changed, or None; without numbers, so that the same problem always has the same text."""
    size, (algorithm, _, digest) = state[0], state[1].partition("=")
    try:
        found = os.stat(path)
        if any(state) and not stat.S_ISREG(found.st_mode):
            return "is no longer a file"
        if size.isdigit() and found.st_size != int(size):
            return "has changed"
        # Equal size is not sufficient: a file whose content was lost in a crash often keeps its length.
        if algorithm in _HASHES and _digest(path, algorithm) != digest.rstrip("="):
            return "has changed"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _digest(path: str, algorithm: str) -> str:
    with open(path, "rb", buffering=0) as file:
        found = hashlib.file_digest(file, algorithm).digest()
    return urlsafe_b64encode(found).rstrip(b"=").decode()
