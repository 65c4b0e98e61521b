"""
Messages and exchanges that the broker has refused, and when they may be tried again.

An event that the broker refuses for its own content must not delay the others. A permission that an operator has
withdrawn must not cause events to be set aside. Not here: sending (drain), and reading a refusal (bus).
"""

import time
from collections.abc import Collection

from dkist_processing_core.journal import Entry

RETRY_SECONDS = (0.25, 2.5)
"""The pauses, in s, before a refused message is tried again; if it is refused after the last, it is set aside."""
MAX_TRIES = len(RETRY_SECONDS) + 1
_LONGEST_HOLD_SECONDS = 10.0


class Refusals:
    """The messages and exchanges refused to one drainer; times are those of `time.monotonic`."""

    def __init__(self) -> None:
        """Begin with nothing refused."""
        self._due: dict[int, float] = {}
        self._held: dict[str, tuple[float, int]] = {}
        self._suspects: set[int] = set()
        self.reasons: dict[str, str] = {}
        """Why an exchange is held, in words for an operator."""

    @property
    def held_exchanges(self) -> Collection[str]:
        """The exchanges to which no message may be sent at present."""
        now = time.monotonic()
        return [exchange for exchange, (due, _) in self._held.items() if due > now]

    @property
    def has_paused(self) -> bool:
        """Whether single messages wait for their next try."""
        return bool(self._due)

    def is_due(self, entry: Entry) -> bool:
        """Return True if a message may be sent now."""
        return self._due.get(entry.seq, 0.0) <= time.monotonic()

    def goes_alone(self, entry: Entry) -> bool:
        """Return True if a message is a suspect: one of several, of which one caused the channel to close."""
        return entry.seq in self._suspects

    def suspect(self, seqs: Collection[int]) -> None:
        """Mark messages to be sent one at a time, since one of them caused the broker to close the channel."""
        self._suspects.update(seqs)

    def hold(self, exchange: str, reason: str) -> None:
        """Send nothing to an exchange for a while, twice as long each time: its problem is not a message's fault."""
        _, times = self._held.get(exchange, (0.0, 0))
        pause = min(_LONGEST_HOLD_SECONDS, 2.0**times)
        self._held[exchange] = time.monotonic() + pause, times + 1
        self.reasons[exchange] = reason

    def pause(self, seq: int) -> None:
        """Do not send one message for a while: a short time after its first refusal here, then a longer one."""
        self._due[seq] = time.monotonic() + RETRY_SECONDS[1 if seq in self._due else 0]

    def forget(self, seqs: Collection[int], exchanges: Collection[str]) -> None:
        """Remove messages that are settled, and exchanges that accept messages again."""
        for seq in seqs if self._due or self._suspects else ():
            self._due.pop(seq, None)
            self._suspects.discard(seq)
        if self._held:
            for exchange in exchanges:
                self._held.pop(exchange, None)
                self.reasons.pop(exchange, None)

    def next_within(self, seconds: float) -> float:
        """Return in how many seconds the next refused message or exchange is due, at most `seconds`."""
        now = time.monotonic()
        # A message that is due but was not sent just now does not exist any more: another process was faster.
        self._due = {seq: due for seq, due in self._due.items() if due > now}
        waits = [due - now for due in self._due.values()]
        waits += [due - now for due, _ in self._held.values() if due > now]
        return min([seconds, *waits])
