"""
Spans that a signal handler ends, and records that it logs, while the main thread hands an item over to the SDK.

The SDK wakes its exporting thread by a lock that is not reentrant: the handler would wait without end for the call that
it has interrupted. Not here: the items (_providers).
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
# The SDK keeps as many; beyond that, the oldest are dropped.
_MOST_WAITING = 2048
# A handler may log faster than this hands items over, but the call that it interrupts must still return.
_MOST_AT_ONCE = 100


class Handover(Generic[_Item]):
    """Hands items over one after another within a thread; a handler that interrupts it leaves its items to it."""

    def __init__(self, take: Callable[[_Item], object]) -> None:
        """Set the function that takes an item."""
        self._take = take
        self._waiting: deque[_Item] = deque(maxlen=_MOST_WAITING)
        self._of_thread = threading.local()

    def give(self, item: _Item) -> None:
        """Hand an item over, or leave it to the interrupted call."""
        self._waiting.append(item)
        self.hand_over(_MOST_AT_ONCE)

    def hand_over(self, most: int = _MOST_WAITING) -> None:
        """Hand over pending items, including those left by an exception; do nothing in an interrupting handler."""
        if getattr(self._of_thread, "is_busy", False):
            return
        for _ in range(most):
            if not self._waiting:
                return
            self._of_thread.is_busy = True
            try:
                with contextlib.suppress(IndexError):
                    item = self._waiting.popleft()
                    self._take(item)
            finally:
                self._of_thread.is_busy = False
