"""
The ids of the events that a subscription has yielded, so that it yields no report of an occurrence again.

Not here: the ids themselves, which are derived from the occurrences (events).
"""

from collections import OrderedDict

from dkist_processing_core.events import Event, TaskEnd

_SIZE = 100_000


class SeenIds:
    """The most recent ids, to recognise a repeated occurrence."""

    def __init__(self, size: int = _SIZE) -> None:
        """Start without ids; beyond `size` ids, the oldest one is forgotten."""
        self._size = size
        # Each id, and whether all its reports so far were provisional.
        self._ids: OrderedDict[str, bool] = OrderedDict()

    def is_new(self, event: Event) -> bool:
        """
        Return True if an event was not seen before, and remember it.

        The first firm report after a provisional one of the same occurrence is new: it has what the other one lacks.
        """
        is_provisional = isinstance(event, TaskEnd) and event.provisional
        was_provisional = self._ids.get(event.id)
        is_new = was_provisional is None or (was_provisional and not is_provisional)
        self._ids[event.id] = is_provisional if is_new else bool(was_provisional)
        self._ids.move_to_end(event.id)
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return is_new
