"""
Show the log of a task that is called where logging is not set up, such as at a prompt or in a notebook.

Not here: the log of a launched task (launcher.bootstrap), which runs alone in its process.
"""

import contextlib
import logging
from collections.abc import Iterator

from dkist_processing_core.logs.lines import READABLE, formatter
from dkist_processing_core.process import forks

_lock = forks.Lock()
_form: logging.Formatter | None = None
_open = 0


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """
    Show log records from INFO on within this context, by the logging module's own handler of last resort.

    It is no handler of the root logger, so that a logging setup within the context takes effect. If logging is set up
    already, nothing is changed. At the end the former state is restored.
    """
    global _open  # noqa: PLW0603 - the root logger is one per process, too
    with _lock:
        _open += 1
        if _open == 1:
            _show()
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                _show_no_longer()


def _show() -> None:
    global _form  # noqa: PLW0603 - as above
    handler, root = logging.lastResort, logging.root
    if handler is None or root.handlers or (handler.level, root.level) != (logging.WARNING, logging.WARNING):
        return
    handler.setLevel(logging.INFO)
    _form = formatter(logging.Formatter(READABLE))
    handler.setFormatter(_form)
    root.setLevel(logging.INFO)


def _show_no_longer() -> None:
    handler, root = logging.lastResort, logging.root
    if handler is None or _form is None or handler.formatter is not _form:
        return
    handler.setLevel(logging.WARNING)
    handler.setFormatter(None)
    if not root.handlers and root.level == logging.INFO:
        root.setLevel(logging.WARNING)
