"""
The launcher's lines in the task's log, and the logging of errors in the launcher's own work.

It uses only modules that the launcher has imported before it starts the task. Not here: errors of reports
(delivery.reporter).
"""

import contextlib
import functools
import os
from typing import TYPE_CHECKING

from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.text.terminal import write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dkist_processing_core.identity import Attempt

_as_json: "Callable[[str], str] | None" = None


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
        write_line(_as_json(line) if _as_json else redact(line), err=True)


def begin_log(attempt: "Attempt") -> None:
    """Write JSON from now on, here and in the log of this process's modules, if the settings request it."""
    global _as_json  # noqa: PLW0603 - a process has one log
    if Origin.of_process().named("DKIST_CORE_LOG_FORMAT") != "json":
        return
    import logging  # noqa: PLC0415 - not for readable lines, as all below

    from dkist_processing_core.identity.trace_context import attempt_traceparent, parse_traceparent  # noqa: PLC0415
    from dkist_processing_core.logs.fields import fields_of, trace_fields  # noqa: PLC0415
    from dkist_processing_core.logs.lines import JsonLines, json_line  # noqa: PLC0415

    span = parse_traceparent(attempt_traceparent(attempt, os.environ))
    known = fields_of(attempt) | ({} if span is None else trace_fields(*span))
    _as_json = functools.partial(json_line, logging.ERROR, "dkist_processing_core.launcher", known=known)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(JsonLines(known))
