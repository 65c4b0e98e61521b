"""
The guard against re-entrance: a signal handler that interrupts a shelf call defers its messages to that call.

Python runs a signal handler in the main thread, between any two instructions. If that thread is using a journal, the
handler cannot wait for it: the wait would never end. The messages are deferred, and the interrupted call appends them.
Not here: the lock between threads, and appending messages (shelf).
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dkist_processing_core.journal.message import Message

# A handler may publish faster than the disk writes; the interrupted call must still return.
DEFERRED_SECONDS = 0.5
_BATCH = 100


class _Store(Protocol):
    def append_inside_guard(
        self, messages: Sequence[Message], *, once: bool = False, note: str | None = None
    ) -> None: ...


class _Deferred(NamedTuple):
    """Messages that a shelf has to append in one transaction."""

    shelf: _Store
    messages: Sequence[Message]
    once: bool
    note: str | None

    @property
    def is_plain(self) -> bool:
        """Whether these messages may be appended in one transaction with others."""
        return not self.once and self.note is None


class _Guard(threading.local):
    """
    Whether the current thread is inside a call of any shelf: two shelves of a thread may wait for the same lock.

    A caller sets `is_busy` itself, as the last step before a `try` whose `finally` resets it. If a method set it, a
    signal handler could raise an exception before the `try`.
    """

    def __init__(self) -> None:
        self.is_busy = False
        self._deferred: deque[_Deferred] = deque()

    def defer(self, shelf: _Store, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        """Defer messages to the interrupted call."""
        self._deferred.append(_Deferred(shelf, messages, once, note))

    def append_deferred(self, seconds: float = DEFERRED_SECONDS) -> None:
        """Append deferred messages, for at most `seconds` seconds."""
        if not self._deferred:
            return
        until = time.monotonic() + seconds
        while self._deferred and time.monotonic() < until:
            self.is_busy = True
            try:
                self._append_first()
            finally:
                # Reset after an exception as well: otherwise all later messages would be deferred, and never appended.
                self.is_busy = False

    def _append_first(self) -> None:
        """Append the first deferred messages, and the next ones for the same shelf, in one transaction."""
        try:
            batch = [self._deferred.popleft()]
        except IndexError:
            # Another handler has appended them a moment ago.
            return
        first = batch[0]
        while self._deferred and len(batch) < _BATCH and first.is_plain:
            following = self._deferred[0]
            if following.shelf is not first.shelf or not following.is_plain:
                break
            batch.append(self._deferred.popleft())
        try:
            first.shelf.append_inside_guard(
                [message for each in batch for message in each.messages], once=first.once, note=first.note
            )
        except BaseException:
            self._deferred.extendleft(reversed(batch[1:]))
            raise

    def begin_in_fork(self) -> None:
        """Drop the deferred messages: the parent process appends them."""
        self.is_busy = False
        self._deferred.clear()


guard = _Guard()
