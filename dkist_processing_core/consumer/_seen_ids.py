"""
The ids of the events that a subscription has yielded, so that it yields each occurrence once.

Not here: the ids themselves, which are derived from the occurrences (events).
"""

from collections import OrderedDict

_SIZE = 100_000


class SeenIds:
    """The most recent ids, to recognise a repeated occurrence."""

    def __init__(self, size: int = _SIZE) -> None:
        """Start without ids; beyond `size` ids, the oldest one is forgotten."""
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def is_new(self, identifier: str) -> bool:
        """Return True if an id was not seen before, and remember it."""
        if identifier in self._ids:
            self._ids.move_to_end(identifier)
            return False
        self._ids[identifier] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return True
