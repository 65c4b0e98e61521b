"""
The launcher's lines in the task's log, and the logging of errors in the launcher's own work.

It uses only modules that the launcher has imported before it starts the task. Not here: errors of reports
(delivery.reporter).
"""

import contextlib
from typing import TYPE_CHECKING

from dkist_processing_core.text.redaction import redact
from dkist_processing_core.text.terminal import write_line

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def errors_logged() -> "Iterator[None]":
    """Log an exception of the launcher's own work and suppress it, since the task lives as long as its launcher."""
    try:
        yield
    except Exception:  # noqa: BLE001 - as above
        show_error()


def show_error() -> None:
    """Write the exception that is being handled to the task's log."""
    import traceback  # noqa: PLC0415 - not before it is needed

    show(f"the launcher has failed in part: an error of this package\n{traceback.format_exc()}")


def show(line: str) -> None:
    """Write a line to the task's log, redacted."""
    with contextlib.suppress(OSError, ValueError):
        # The task's log consists of everything that its process writes.
        write_line(redact(line), err=True)
