"""
What is wrong with an environment that does not work: files that are missing or have changed.

Not here: what is done about it (_cache).
"""

# ruff: noqa: PTH116 - paths are texts: pathlib is dearer than finding
import csv
import os
from collections.abc import Iterator
from pathlib import Path

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._environment import Environment

_SIZE = 2


def problem_of(environment: Environment) -> str | None:
    """Return the first problem that is found, in a sentence; None where every file is as it was installed."""
    return next(_problems(environment), None)


def _problems(environment: Environment) -> Iterator[str]:
    if not os.access(environment.python, os.X_OK):
        yield f"its interpreter {environment.python} is missing or cannot be run"
    expected: dict[str, str] = environment.record.get("distributions", {})
    found = _record.distributions(environment.folder)
    if environment.requirement.name not in expected:
        yield f"its record does not name {environment.requirement.name}"
    for name, version in expected.items():
        if name not in found:
            yield f"{name} {version} is not there any more"
        elif found[name] != version:
            yield f"{name} is of version {found[name]}, and was {version}"
    for folder in _record.metadata_folders(environment.folder):
        yield from _problems_of_files(folder)


def _problems_of_files(folder: Path) -> Iterator[str]:
    """Compare the files of one distribution with its RECORD; bytecode changes by itself."""
    try:
        with (folder / "RECORD").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        yield f"what {folder.name} installed cannot be read: {error}"
        return
    for row in rows:
        path = os.path.normpath(folder.parent / row[0])
        if path.endswith(".pyc"):
            continue
        size = row[_SIZE] if len(row) > _SIZE else ""
        try:
            there = os.stat(path).st_size
        except OSError:
            yield f"{path} is missing"
            continue
        if size.isdigit() and there != int(size):
            yield f"{path} has {there} bytes, and had {size}"
