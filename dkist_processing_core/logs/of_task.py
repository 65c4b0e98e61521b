"""
The log of a launched task whose author has not configured logging: as JSON, if the settings request that.

The program that starts the task has set up readable lines, and calls this in a release that has it. Not here: that
program (launcher.bootstrap), and a task that is called by hand (by_hand).
"""

from __future__ import annotations

import logging
import os
import sys

from dkist_processing_core.logs.fields import fields_in, trace_fields
from dkist_processing_core.logs.lines import JsonLines, is_json, json_line
from dkist_processing_core.text.terminal import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def begin(handler: logging.Handler) -> None:
    """Let the handler of last resort, and the hook for an exception that ends the process, write JSON."""
    if not is_json():
        return
    from dkist_processing_core.identity.trace_context import TRACEPARENT, parse_traceparent  # noqa: PLC0415

    # The variables of the attempt are taken away when it begins.
    span = parse_traceparent(os.environ.get(TRACEPARENT, ""))
    known = fields_in(os.environ) | ({} if span is None else trace_fields(*span))
    handler.setFormatter(JsonLines(known))
    shown_before = sys.excepthook

    def show_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        try:
            text = "".join(logging.Formatter().formatException((kind, error, traceback)))
            what = f"{known.get('task', 'the task')} has ended by {kind.__name__}"
            write_line(json_line(logging.ERROR, __name__, what, known, text), err=True)
        except Exception:  # noqa: BLE001 - the exception must be shown in any case
            shown_before(kind, error, traceback)

    sys.excepthook = show_exception
