"""
Files that are there whole, or not at all.

Not here: what they hold.
"""

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.text import show


def folder_of(path: object) -> Path:
    """
    Return the path of a folder, which need not be there yet.

    Raises
    ------
    WorkflowError
        where it is no path.

    """
    if not isinstance(path, str | os.PathLike) or "\0" in os.fsdecode(path):
        msg = f"an export is written into a folder, and {show(path)} is no path of one"
        raise WorkflowError(msg)
    return Path(os.fsdecode(path))


def put_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """
    Write files into a folder, made where it is missing, and return their paths.

    All of them are written beside their places first and then moved there: a full disk leaves the older ones. A
    scheduler that reads the folder meanwhile sees no half of any: it asks for the suffix `.py`, or for an archive, and
    that is one only with its last bytes.

    Raises
    ------
    WorkflowError
        where they cannot be written.

    """
    mark = uuid.uuid4().hex
    # No suffix that a scheduler looks for, and no longer than any name may be.
    parts = {name: folder / f".{mark}-{number}.part" for number, name in enumerate(contents)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with parts[name].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, part in parts.items():
            part.replace(folder / name)
    except OSError as error:
        place = os.fspath(error.filename2 or error.filename or folder)
        what = ", expected a folder" if isinstance(error, FileExistsError | NotADirectoryError) else ""
        msg = f"the export cannot be written to {folder}{what}: {error.strerror or error} ({place!r})"
        raise WorkflowError(msg) from error
    finally:
        for part in parts.values():
            # Most are moved by now; where the folder itself is missing or no folder, there is nothing either.
            with suppress(OSError):
                part.unlink()
    return [folder / name for name in contents]


def put_new_file(path: Path, content: bytes) -> Path:
    """
    Write a file where there is none, and return its path.

    Raises
    ------
    WorkflowError
        where there is one, or it cannot be written.

    """
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise WorkflowError(msg) from error
    return path
