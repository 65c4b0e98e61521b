"""
Dead letters as an operator works with them on the pages: looked at, retried, discarded.

Each call opens the places anew, and may wait for a broker: it is made only when an operator asks for it. Not here: the
places (dead_letters), and the page (pages.bus).
"""

from collections.abc import Sequence

from dkist_processing_core.dead_letters import Action, Changed, DeadLetter, open_places
from dkist_processing_core.settings.interface import Settings

MOST_SHOWN = 50
MOST_OF_QUEUE = 10_000
"""How many dead letters of a queue of the broker are looked at, the oldest ones: it sends them all as a whole."""
ACTIONS = (Action.RETRY, Action.DISCARD)
"""What the pages offer."""


class Letters:
    """The dead letters of the bus and the inbox of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Store the settings. Nothing is opened."""
        self._settings = settings

    def of_group(self, group: str) -> list[DeadLetter]:
        """
        Return the newest letters of a group, at most `MOST_SHOWN`, of a queue those of the `MOST_OF_QUEUE` oldest ones.

        Raises:
            DKISTProcessingCoreError: A place exists and cannot be used.
        """
        with open_places(self._settings, (), None, most=MOST_OF_QUEUE) as opened:
            for place in opened.places:
                if found := place.letters(group, archived=False, limit=MOST_SHOWN):
                    return found
        return []

    def change(self, action: Action, names: Sequence[str]) -> Changed:
        """
        Retry or discard the letters and groups of these ids; those that exist no longer are passed over.

        Raises:
            DKISTProcessingCoreError: A place exists and cannot be used.
        """
        count = 0
        obstacles: dict[str, str] = {}
        with open_places(self._settings, (), None) as opened:
            for place in opened.places:
                known = sorted(place.known(names))
                if known:
                    changed = place.change(action, known)
                    count += changed.count
                    obstacles |= changed.obstacles
        return Changed(count, obstacles)
