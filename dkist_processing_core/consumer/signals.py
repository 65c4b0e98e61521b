"""
The signals that end a consumer in good order.

Not here: the signals of a task (process.termination).
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
# Programs such as timeout(1) send a signal to the process and to its group: this process gets it twice.
_TOGETHER_SECONDS = 1.0


@contextmanager
def signals_raise(end: SignalSafeFlag) -> Iterator[None]:
    """
    Make SIGTERM and SIGINT raise a flag; a further signal that comes later has its former effect.

    Only the main thread can do this; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    first: list[float] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def stop(number: int, _: object) -> None:
        first.append(time.monotonic())
        if first[-1] - first[0] > _TOGETHER_SECONDS:
            restore()
            signal.raise_signal(number)
        end.raise_()

    for number in _NUMBERS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
