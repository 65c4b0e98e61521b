"""
The events of stored reports, kept in memory while they are likely to be needed again.

A report is decoded when it arrives, and each fold of its run needs its event. Not here: the stored reports (stored).
"""

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, TaskEvent, decode

_MOST_BYTES = 4 * 1024 * 1024
_LONGEST = 16 * 1024


def event_in(body: bytes) -> Event | None:
    """Return the event of a stored report; None if a newer release has stored it and this one cannot read it."""
    try:
        return decode(body)
    except DecodeError:
        return None


class DecodedReports:
    """
    The events of tasks that were noted or requested last, by the bodies of their reports.

    An event takes three to five times as much memory as its body; one with a graph, which takes over ten times as much,
    is not kept. Threads may use this at the same time: at worst an event is decoded again.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """Begin without events; of their bodies at most twice `most_bytes` are kept."""
        self._most = most_bytes
        self._size = 0
        self._recent: dict[bytes, Event] = {}
        self._former: dict[bytes, Event] = {}

    def note(self, body: bytes, event: Event) -> None:
        """Keep an event, unless it is large."""
        if len(body) > _LONGEST or not isinstance(event, TaskEvent):
            return
        self._size += len(body)
        if self._size > self._most:
            self._former, self._recent, self._size = self._recent, {}, len(body)
        self._recent[body] = event

    def event_in(self, body: bytes) -> Event | None:
        """Return the event of a stored report; None if this release cannot read it."""
        event = self._recent.get(body)
        if event is None:
            event = self._former.get(body) or event_in(body)
            if event is not None:
                self.note(body, event)
        return event
