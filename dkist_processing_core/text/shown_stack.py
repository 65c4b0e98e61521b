"""
A traceback as an author reads it in the log: with the frames of the author alone.

It needs only the standard library: the process of a task gets this source, whatever release is installed there. Not
here: the whole stack, which the event has (exception_text).
"""

import importlib
import os
import sys


def shown_stack_of(error: BaseException) -> str:
    """
    Return the traceback without the frames of this package, of the program that starts a task and of the importer.

    If an exception of the author cannot be formatted, the text is that of `exception_text.stack_of`.
    """
    import traceback  # noqa: PLC0415 - most tasks do not fail, and are to start fast

    try:
        own = os.path.dirname(getattr(sys.modules.get("dkist_processing_core"), "__file__", None) or "-")  # noqa: PTH120
        hidden = ("<frozen importlib", importlib.__file__, own + os.sep)
        described = [traceback.TracebackException.from_exception(error)]
        for each in described:
            frames = [frame for frame in each.stack if not frame.filename.startswith(hidden)]
            # The program of a task's process is the outermost frame, and a string.
            is_program = bool(frames) and (frames[0].filename, frames[0].name) == ("<string>", "<module>")
            each.stack[:] = frames[1:] if is_program else frames
            described += filter(None, [each.__cause__, each.__context__, *(each.exceptions or ())])
        text = "".join(described[0].format())
        head = "Traceback (most recent call last):\n"
        return text.removeprefix(head) if not described[0].stack else text
    except BaseException:  # noqa: BLE001 - it calls the author's exceptions
        from dkist_processing_core.text.exception_text import stack_of  # noqa: PLC0415 - other releases have none

        return stack_of(error)
