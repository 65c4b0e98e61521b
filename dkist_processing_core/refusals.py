"""
What the broker has refused, and when it may be tried again: single messages, and whole exchanges.

An event that the broker refuses for itself must not hold up the others, and a right that an operator took away must not
have events set aside. Not here: sending (drain), and what a refusal says (bus).
"""

import time
from collections.abc import Collection

from dkist_processing_core.bus import Entry

RETRY_SECONDS = (0.25, 2.5)
"""When a message that the broker refused is tried again; refused once more after that, it is set aside."""
MAX_TRIES = len(RETRY_SECONDS) + 1
_LONGEST_HOLD_SECONDS = 10.0


class Refusals:
    """The memory of one drainer for what was refused; times are those of `time.monotonic`."""

    def __init__(self) -> None:
        """Begin with nothing refused."""
        self._due: dict[int, float] = {}
        self._held: dict[str, tuple[float, int]] = {}
        self._suspects: set[int] = set()
        self.reasons: dict[str, str] = {}
        """Why an exchange is held, in an operator's words."""

    @property
    def held_exchanges(self) -> Collection[str]:
        """The exchanges that nothing is to be sent to just now."""
        now = time.monotonic()
        return [exchange for exchange, (due, _) in self._held.items() if due > now]

    @property
    def has_paused(self) -> bool:
        """Whether single messages wait for their next try."""
        return bool(self._due)

    def is_due(self, entry: Entry) -> bool:
        """Say whether a message may be sent now."""
        return self._due.get(entry.seq, 0.0) <= time.monotonic()

    def goes_alone(self, entry: Entry) -> bool:
        """Say whether a message was among those of which one had the channel closed, none knows which."""
        return entry.seq in self._suspects

    def suspect(self, seqs: Collection[int]) -> None:
        """Have messages sent one at a time, as one of them had the broker close the channel on them all."""
        self._suspects.update(seqs)

    def hold(self, exchange: str, reason: str) -> None:
        """Leave an exchange alone for a while, twice as long each time: what it lacks is no message's fault."""
        _, times = self._held.get(exchange, (0.0, 0))
        pause = min(_LONGEST_HOLD_SECONDS, 2.0**times)
        self._held[exchange] = time.monotonic() + pause, times + 1
        self.reasons[exchange] = reason

    def pause(self, seq: int) -> None:
        """Leave one message alone for a while: a short one after its first refusal here, then a longer one."""
        self._due[seq] = time.monotonic() + RETRY_SECONDS[1 if seq in self._due else 0]

    def forget(self, seqs: Collection[int], exchanges: Collection[str]) -> None:
        """Note that messages are dealt with, and that exchanges take them."""
        for seq in seqs if self._due or self._suspects else ():
            self._due.pop(seq, None)
            self._suspects.discard(seq)
        if self._held:
            for exchange in exchanges:
                self._held.pop(exchange, None)
                self.reasons.pop(exchange, None)

    def next_within(self, seconds: float) -> float:
        """Return in how many seconds the next of what was refused is due, at most `seconds`."""
        now = time.monotonic()
        # What is due and was not sent just now is no longer there: another process was faster.
        self._due = {seq: due for seq, due in self._due.items() if due > now}
        waits = [due - now for due in self._due.values()]
        waits += [due - now for due, _ in self._held.values() if due > now]
        return min([seconds, *waits])
