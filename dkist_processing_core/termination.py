"""
Being told to end: SIGTERM and SIGHUP as an exception, so that what was begun is ended.

Not here: what is ended then (local).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


class TerminationError(BaseException):
    """This process was told to end by a signal; no error that `except Exception` should see."""


def _raise(*_: object) -> None:
    raise TerminationError


@contextlib.contextmanager
def raised_as_exception() -> Iterator[None]:
    """
    Have SIGTERM and SIGHUP raise, as Ctrl-C does, and end this process as they would have once that has passed.

    Only in the main thread, and only where the host application has not said what it wants of them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _raise)
    try:
        yield
    except TerminationError:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
