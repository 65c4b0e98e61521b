"""
The rules by which one consumer's rows are kept, tried again and given up.

Not here: their application (claims, outcomes).
"""

from contextlib import suppress
from dataclasses import dataclass
from random import Random

from dkist_processing_core.errors import GiveUpError, RetryLaterError
from dkist_processing_core.events import TaskFailed, TaskFinished
from dkist_processing_core.text import counted

_GROWTH = 4.0


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one consumer's inbox; times are in seconds."""

    name: str
    """The consumer's name: each name has rows of its own."""
    ordered: bool = False
    """Whether the rows of a run are handled in their order of arrival."""
    every_report: bool = False
    """Whether each reporter's report of an occurrence is a row of its own."""
    handles_on_arrival: bool = False
    """Whether events are handled in the transaction in which they arrive, by a consumer of every report."""
    doubted: frozenset[str] = frozenset({TaskFailed.name, TaskFinished.name})
    """The names of the events whose provisional reports wait for firm ones; those of others are handled at once."""
    provisional_after: float = 60.0
    """How long such a report waits."""
    max_tries: int = 10
    """After how many failures a row is dead."""
    max_starts: int = 5
    """After how many deaths of its consumer a row is dead."""
    first_pause: float = 1.0
    """The pause after the first failure; each further one is four times as long."""
    longest_pause: float = 900.0
    """The limit of these pauses."""
    kept_seconds: float = 7 * 24 * 3600.0
    """How long the key of a handled row is kept, to recognise its repetitions: the age of the bus's archive."""

    @property
    def doubts(self) -> bool:
        """Whether any provisional report waits for a firm one."""
        return bool(self.doubted) and not self.every_report

    def after_failure(self, error: BaseException, tries: int, random: Random) -> tuple[float | None, str | None]:
        """Return the pause until the next try; or None, and the reason why the row is dead."""
        # `isinstance` would read `__class__` of the author's class.
        if issubclass(type(error), GiveUpError):
            return None, "its handler gave it up"
        if tries >= self.max_tries:
            return None, f"its handler failed {counted(tries, 'time')}"
        return max(min(_least_pause(error), self.longest_pause), self.pause(tries, random)), None

    def pause(self, tries: int, random: Random) -> float:
        """Return the pause after a number of failures, less up to half of it, so that rows do not return together."""
        longest = min(self.longest_pause, self.first_pause * _GROWTH ** min(tries - 1, 100))
        return longest * (1 - random.random() / 2)


def _least_pause(error: BaseException) -> float:
    """Return the pause that an error requests; 0 if an author's subclass has none that can be used."""
    if issubclass(type(error), RetryLaterError):
        with suppress(Exception):
            return RetryLaterError("", error.seconds).seconds  # type: ignore[attr-defined]
    return 0.0
