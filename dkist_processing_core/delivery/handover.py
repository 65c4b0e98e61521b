"""
The handover: messages that a publisher has just appended to the outbox, on their way to the drainer of its process.

So the drainer need not read them from the outbox, where a read waits for the publisher's next transaction. Not here:
the outbox itself, which holds these messages too, and from which all others are read (backlog).
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from dkist_processing_core.journal import Entry
from dkist_processing_core.journal.message import Message

_MAX_MESSAGES = 1000
_MAX_BYTES = 8 * 1024 * 1024
# An append that takes longer waits for other processes, whose messages are delivered meanwhile.
_EXPECTED_SECONDS = 0.25


class Handover:
    """A limited number of messages in the order of their rows, only while a drainer takes them. Safe for threads."""

    def __init__(self, max_messages: int = _MAX_MESSAGES, max_bytes: int = _MAX_BYTES) -> None:
        """Accept nothing yet; later up to `max_messages` messages and `max_bytes` of bodies at a time."""
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._file: tuple[int, int] | None = None
        self._expected_at = -math.inf

    @property
    def first(self) -> int | None:
        """The row of the first message that is held; None without one."""
        with self._lock:
            return self._entries[0].seq if self._entries else None

    @property
    def is_expecting(self) -> bool:
        """Whether messages are about to be given, and none is held: they are appended at this moment."""
        return not self._entries and time.monotonic() < self._expected_at + _EXPECTED_SECONDS

    def expect(self) -> None:
        """Note that messages are about to be appended; `give` follows, unless the append fails."""
        self._expected_at = time.monotonic()

    def open(self, file: tuple[int, int] | None) -> None:
        """Begin without a message, and accept from now on those of one file (device, inode)."""
        with self._lock:
            self._file = file
            self._entries.clear()
            self._bytes = 0

    def close(self) -> None:
        """Forget all messages, and accept no more: the next reader finds them in the file."""
        self.open(None)

    def give(self, file: tuple[int, int] | None, seqs: Sequence[int], messages: Sequence[Message]) -> None:
        """Hand over messages after their commit; those without room, or without a drainer, are read from the file."""
        with self._lock:
            # If messages were left out, since the file has received them before, it is not known which.
            is_wanted = file is not None and file == self._file and len(seqs) == len(messages)
            for seq, message in zip(seqs, messages, strict=True) if is_wanted else ():
                if len(self._entries) == self._max_messages or self._bytes + len(message.body) > self._max_bytes:
                    break
                self._entries.append(Entry(seq, message))
                self._bytes += len(message.body)
        self._expected_at = -math.inf

    def take(self, after: int) -> list[Entry]:
        """Return the messages whose rows follow directly on row `after`: no other row can be between them."""
        taken: list[Entry] = []
        with self._lock:
            while self._entries and self._entries[0].seq <= after + 1:
                entry = self._entries.popleft()
                self._bytes -= len(entry.message.body)
                # The others were read from the file meanwhile.
                if entry.seq == after + 1:
                    taken.append(entry)
                    after = entry.seq
        return taken
