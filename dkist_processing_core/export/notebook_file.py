"""
The files of exported notebooks, which people may change after the export.

Not here: the content of a notebook (rendering).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.export.files import put_files

EXPORTED = "dkist_processing_core"
"""The key in a notebook's metadata that holds the digest of its cells at the time of the export."""


def digest_of(sources: Iterable[str]) -> dict[str, str]:
    """Return a digest of a notebook's cells, which shows whether they were changed."""
    return {"sha256": hashlib.sha256(json.dumps(list(sources)).encode()).hexdigest()}


def put_notebooks(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """
    Write notebooks into a folder, create the folder if it is missing, and return the paths of the notebooks.

    A notebook that was changed or run after its export holds a person's work and is not overwritten. In this case, no
    notebook is written.

    Raises:
        WorkflowError: A notebook was changed or run, or the files cannot be written; the message names every such
            notebook, or the reason.
    """
    kept = [folder / name for name, content in contents.items() if _was_changed(folder / name, content)]
    if kept:
        msg = (
            f"not overwritten, since it was changed or run after its export: {', '.join(map(str, kept))}; "
            "move it, or export to another folder"
        )
        raise WorkflowError(msg)
    return put_files(folder, {name: content.encode() for name, content in contents.items()})


def _was_changed(path: Path, content: str) -> bool:
    """Return True if a notebook was changed or run after its export, or cannot be read."""
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
