"""
The handover: messages that a publisher has just appended to the outbox, kept in memory for the drainer of its process.

The drainer does not read them from the outbox, where a read waits for the publisher's next transaction. Not here:
the outbox itself, which holds these messages as well, and from which all others are read (backlog).
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
# An append that takes longer waits for other processes; their messages are delivered during the wait.
_EXPECTED_SECONDS = 0.25


class Handover:
    """A limited number of messages in the order of their rows, only while a drainer takes them. It is thread-safe."""

    def __init__(self, max_messages: int = _MAX_MESSAGES, max_bytes: int = _MAX_BYTES) -> None:
        """Accept no message before `open`; then up to `max_messages` messages and `max_bytes` of bodies at a time."""
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._file: tuple[int, int] | None = None
        self._expected_at = -math.inf

    @property
    def first(self) -> int | None:
        """The row of the first held message; None if no message is held."""
        with self._lock:
            return self._entries[0].seq if self._entries else None

    @property
    def is_expecting(self) -> bool:
        """Whether no message is held, but some are being appended and are about to be given."""
        return not self._entries and time.monotonic() < self._expected_at + _EXPECTED_SECONDS

    def expect(self) -> None:
        """Record that messages are about to be appended; `give` follows, unless the append fails."""
        self._expected_at = time.monotonic()

    def open(self, file: tuple[int, int] | None) -> None:
        """Start without a message, and accept the messages of one file (device, inode) from now on."""
        with self._lock:
            self._file = file
            self._entries.clear()
            self._bytes = 0

    def close(self) -> None:
        """Remove all messages, and accept no more: the next reader finds them in the file."""
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
                # Earlier messages were already read from the file.
                if entry.seq == after + 1:
                    taken.append(entry)
                    after = entry.seq
        return taken
