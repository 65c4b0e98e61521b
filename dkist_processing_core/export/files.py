"""
Write files so that each exists whole or not at all.

Not here: the contents of the files.
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
    Return the path of a folder, which need not exist yet.

    Raises:
        WorkflowError: The value is not a path.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in os.fsdecode(path):
        msg = f"found {show(path)}, expected the path of a folder for the export"
        raise WorkflowError(msg)
    return Path(os.fsdecode(path))


def put_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """
    Write files into a folder, create the folder if it is missing, and return the paths of the files.

    All files are first written under temporary names and then moved to their places: if the disk is full, the older
    files remain. A scheduler that reads the folder then sees no partial file: it looks for the suffix `.py`, or
    for an archive, and a file is an archive only with its last bytes.

    Raises:
        WorkflowError: The files cannot be written.
    """
    mark = uuid.uuid4().hex
    # A suffix that no scheduler looks for, and a name short enough for any file system.
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
            # Most are already moved. If the folder is missing or is not a folder, there is no file to remove.
            with suppress(OSError):
                part.unlink()
    return [folder / name for name in contents]


def put_new_file(path: Path, content: bytes) -> Path:
    """
    Write a new file and return its path.

    Raises:
        WorkflowError: The file exists already, or it cannot be written.
    """
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise WorkflowError(msg) from error
    return path
