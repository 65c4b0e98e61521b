"""
The log of a subscription about messages that are no events: one line for a replay, however many there are.

Not here: recognising them (_subscription), and storing the dead letters of a named subscription (bus).
"""

import logging

from dkist_processing_core.journal.message import Message

logger = logging.getLogger("dkist_processing_core.consumer")


class PassedOver:
    """Counts the messages that are no events, and logs them in as few lines as possible."""

    def __init__(self, *, is_named: bool) -> None:
        """Start without a message. Under a name such a message becomes a dead letter."""
        self._is_named = is_named
        self._first = ""
        self._count = self._logged = 0

    def add(self, message: Message, reason: str, *, at_once: bool) -> None:
        """
        Count a message. With `at_once` the first one is logged now.

        A subscription to new events may last for days, and an operator must see the first such message early.
        """
        if not self._count:
            self._first = f"{message.properties.message_id or message.routing_key!r}: {reason}"
        self._count += 1
        if at_once and self._count == 1:
            self.report()

    def report(self) -> None:
        """Log how many messages there were and the first of them, unless a line has reported them all."""
        if self._count == self._logged:
            return
        self._logged = self._count
        many = self._count > 1
        found = f"{self._count} messages are no events and were" if many else "1 message is no event and was"
        where = "put among the dead letters" if self._is_named else "passed over"
        logger.warning("%s %s: %s%s", found, where, "first " if many else "", self._first)
