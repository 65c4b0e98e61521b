"""
Functions for a task that runs in a notebook: wait until the notebook is saved, and convert it to a document.

Not here: how a workflow is rendered as a notebook (export.rendering).
"""

import base64
import json
import mimetypes
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from dkist_processing_core.errors import ExtraMissingError, WorkflowError

__all__ = ["export_notebook_by_path", "wait_for_notebook_save"]


def wait_for_notebook_save(
    notebook_path: Path, sentinel: str | None = None, attempts: int = 120, delay_s: float = 1
) -> None:
    """
    Print a sentinel and wait until the notebook file has it among its outputs: then all earlier output is also saved.

    JupyterLab saves a notebook while a cell runs, by default every 120 s. This is slightly longer than the default
    wait.

    Args:
        notebook_path: the file of the notebook that calls this function.
        sentinel: the text to print and to look for, which the notebook must not have shown before; a random text if
            none is given.
        attempts: the number of times to read the file.
        delay_s: the time between two reads, in seconds.

    Raises:
        FileNotFoundError: The file does not exist when the function is called.
        TimeoutError: The sentinel did not appear.
    """
    path = Path(notebook_path)
    if not path.exists():
        msg = f"there is no notebook {path}; check its name and its folder"
        raise FileNotFoundError(msg)
    expected = sentinel or uuid.uuid4().hex
    print(f"Waiting until {path.name} is saved with this line: {expected}", flush=True)  # noqa: T201 - the cell's output
    for attempt in range(attempts):
        if attempt:
            time.sleep(delay_s)
        if expected in "\n".join(_outputs(path)):
            return
    msg = (
        f"{path} was not saved with the outputs of this cell: read {attempts} times, every {delay_s:g} s; "
        "save it by hand (Ctrl+S) while the cell waits, and run the cell again"
    )
    raise TimeoutError(msg)


def export_notebook_by_path(notebook_path: Path) -> bytes:
    """
    Return a notebook as one Markdown document in UTF-8, with its pictures embedded.

    Raises:
        ExtraMissingError: nbconvert is not installed.
        WorkflowError: The file is not a notebook.
        OSError: The file cannot be read.
    """
    try:
        import nbformat  # noqa: PLC0415 - of an extra
        from nbconvert import MarkdownExporter  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise ExtraMissingError("notebook", "a notebook is exported", str(error.name)) from error

    # nbconvert returns pictures as separate files, and this function returns only the document. The names of the
    # pictures must be unique, so that they differ from all other text in the document.
    names = {"unique_key": uuid.uuid4().hex, "output_files_dir": ""}
    content = Path(notebook_path).read_bytes()
    try:
        if "nbformat" not in json.loads(content):
            _refuse(notebook_path, "it does not name its format")
        notebook = nbformat.reads(content.decode(), as_version=4)
        body, resources = MarkdownExporter().from_notebook_node(notebook, names)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, WorkflowError):
            raise
        _refuse(notebook_path, str(error), error)
    for name, content in resources.get("outputs", {}).items():
        body = body.replace(f"]({name})", f"]({_data_url(name, content)})")
    return str(body).encode()


def _refuse(path: Path, reason: str, error: Exception | None = None) -> NoReturn:
    msg = f"{path} is not a notebook: {' '.join(reason.split())[:200]}"
    raise WorkflowError(msg) from error


def _data_url(name: str, content: bytes) -> str:
    kind, _ = mimetypes.guess_type(name)
    return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"


def _outputs(path: Path) -> Iterator[str]:
    """Yield the texts in the outputs of a notebook; none if its file is just being written."""
    try:
        notebook = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    for cell in cells if isinstance(cells, list) else ():
        yield from _texts(cell.get("outputs") if isinstance(cell, dict) else None)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value; a list of lines, the form that notebooks use, is one text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        yield "".join(value)
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
