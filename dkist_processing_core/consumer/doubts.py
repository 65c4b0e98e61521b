"""
Provisional reports that are due: they are believed when no firm report can be on its way to the consumer.

A time alone proves nothing: the process may have been stopped, or cut off from the bus, for longer than a provisional
report waits. Not here: the proof that the inbox has everything (caught_up), and the rows (inbox.provisional).
"""

from dkist_processing_core.consumer.caught_up import Moment, OnCaughtUp
from dkist_processing_core.inbox import Inbox


class Doubts:
    """What an intake does with each proof: it believes what was due, and tells who else wants proofs."""

    def __init__(self, inbox: Inbox, *, settling: float, also: OnCaughtUp | None) -> None:
        """
        Store the parts.

        Args:
            inbox: The rows of the consumer.
            settling: How long after a disturbance of the bus nothing is believed, in seconds.
            also: It is called with each proof too.
        """
        self._inbox = inbox
        self._settling = settling
        self._also = also
        self.is_any = False
        """Whether a provisional report was due at the last look, and no proof has followed."""

    def want_proof(self) -> bool:
        """Return True if a provisional report is due, or if all proofs are wanted."""
        self.is_any = self._inbox.is_any_doubted()
        return self.is_any or self._also is not None

    def note_proof(self, at: Moment, disturbed_at: float) -> None:
        """Note that the inbox had everything at a moment; see `OnCaughtUp`."""
        if self.is_any and at.monotonic >= disturbed_at + self._settling:
            self._inbox.believe(at.time)
        self.is_any = False
        if self._also is not None:
            self._also(at, disturbed_at)
