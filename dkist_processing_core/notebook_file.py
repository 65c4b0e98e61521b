"""
The files of exported notebooks, which are people's from then on.

Not here: what a notebook holds (rendering).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.files import put_files

EXPORTED = "dkist_processing_core"
"""The name in a notebook's metadata under which stands what its cells were when it was exported."""


def digest_of(sources: Iterable[str]) -> dict[str, str]:
    """Return what tells whether the cells of a notebook still hold what they held."""
    return {"sha256": hashlib.sha256(json.dumps(list(sources)).encode()).hexdigest()}


def put_notebooks(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """
    Write notebooks into a folder, made where it is missing, and return their paths.

    One that is not as it was exported is somebody's work: it is not written over, and then none is written.

    Raises
    ------
    WorkflowError
        which names every such file, or says why they cannot be written.

    """
    kept = [folder / name for name, content in contents.items() if _is_somebodys(folder / name, content)]
    if kept:
        msg = (
            f"not written over, since it is not as it was exported: {', '.join(map(str, kept))}; "
            "move it away, or export to another folder"
        )
        raise WorkflowError(msg)
    return put_files(folder, {name: content.encode() for name, content in contents.items()})


def _is_somebodys(path: Path, content: str) -> bool:
    try:
        found = path.read_bytes()
    except OSError:
        return os.path.lexists(path)
    if found == content.encode():
        return False
    try:
        notebook = json.loads(found)
        cells = notebook["cells"]
        was_run = any(cell["outputs"] or cell["execution_count"] for cell in cells)
        return was_run or notebook["metadata"][EXPORTED] != digest_of("".join(cell["source"]) for cell in cells)
    except (ValueError, LookupError, TypeError):
        return True
