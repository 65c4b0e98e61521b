"""
The files of exported notebooks, which are people's from then on.

Not here: what a notebook holds (rendering).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.files import put_files


def put_notebooks(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """
    Write notebooks into a folder, made where it is missing, and return their paths.

    One that somebody has worked with is not written over, and then none is written: its recipe run id is filled in, a
    cell of it was run, or it is no notebook at all.

    Raises
    ------
    WorkflowError
        which names every such file, or says why they cannot be written.

    """
    kept = [folder / name for name, content in contents.items() if _is_somebodys(folder / name, json.loads(content))]
    if kept:
        msg = (
            f"not written over, since somebody has worked with it: {', '.join(map(str, kept))}; "
            "move it away, or export to another folder"
        )
        raise WorkflowError(msg)
    return put_files(folder, {name: content.encode() for name, content in contents.items()})


def _is_somebodys(path: Path, exported: dict[str, Any]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return os.path.lexists(path)
    try:
        cells = json.loads(content)["cells"]
        first = "".join(cells[0]["source"])
        was_run = any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    except (ValueError, LookupError, TypeError, AttributeError):
        return True
    return was_run or first != "".join(exported["cells"][0]["source"])
