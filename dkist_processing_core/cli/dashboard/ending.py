"""
The end of the dashboard's process in limited time, also while a database or a broker does not answer.

Not here: the end in good order (dashboard.service), which needs these answers.
"""

import os
import sys
import threading
import traceback

from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.text.console import print_text

SECONDS = 15.0
"""How long an end in good order may take."""
_PRINT_SECONDS = 1.0
_FAILED = 1


def end_in_time(requested: SignalSafeFlag) -> None:
    """
    End this process some seconds after the end was requested, if it has not ended by then.

    The thread that waits does not keep the process from ending. Events that are not yet handled are delivered again at
    the next start, as after any sudden end.

    Args:
        requested: It is raised when the end is requested, and belongs to this function from now on.
    """

    def watch() -> None:
        requested.wait()
        threading.Event().wait(SECONDS)
        # Threads that wait for an answer would keep the interpreter from its end, as would a full pipe.
        at_last = threading.Timer(_PRINT_SECONDS, os._exit, (_FAILED,))
        at_last.daemon = True
        at_last.start()
        try:
            reason = f"{_awaited()} has not answered for {SECONDS:g} s since the end was requested"
            print_text(f"the dashboard ends at once, since {reason}; no event is lost", err=True)
        finally:
            os._exit(_FAILED)

    threading.Thread(target=watch, name="dkist-core-end-in-time", daemon=True).start()


def _awaited() -> str:
    """Return what a thread of this process waits for, by the modules that it is in."""
    stacks = sys._current_frames().values()  # noqa: SLF001 - the documented way to the stacks of all threads
    modules = {str(frame.f_globals.get("__name__")) for stack in stacks for frame, _ in traceback.walk_stack(stack)}
    if any(name.startswith("sqlalchemy.") for name in modules):
        return "the store of runs"
    return "the bus" if any(name.startswith("dkist_processing_core.bus.") for name in modules) else "a part of it"
