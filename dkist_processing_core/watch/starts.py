"""
Which expected starts were missed, from one judgement to the next.

Not here: the file of expected starts (expect), and the runs that began (collect.questions).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from dkist_processing_core.watch.expect import Expected

EARLY = timedelta(minutes=5)
"""How long before the expected time a run may begin: a person or an engine may be early, and clocks differ."""
LOOK_BACK = timedelta(days=1)
"""How far back the first judgement looks after a pause. Older starts were missed too long ago to be an alarm."""

KEPT = timedelta(days=7)
"""How long the last start of an entry counts as missing, if no run begins: for as long as the bus has its events."""

HasBegun = Callable[[Expected, datetime, datetime], bool]
"""Whether a run of an entry began between two times."""


class Missed(NamedTuple):
    """An expected time at which no run began."""

    entry: Expected
    expected_at: datetime


class Starts:
    """The expected starts of a file, each of which is checked once: when its grace is over."""

    def __init__(self, entries: Sequence[Expected], checked_until: datetime) -> None:
        """Store the entries, and the time up to which they are checked."""
        self.entries = entries
        self._checked_until = checked_until

    def missed(self, until: datetime, has_begun: HasBegun) -> Iterator[Missed]:
        """
        Yield the starts that were missed, of those whose grace was over by `until`, and that were not checked before.

        If reading the store fails meanwhile, all are checked again by the next call.

        Args:
            until: The time up to which all reports are known.
            has_begun: Returns whether a run of an entry began between two times.
        """
        since = max(self._checked_until, until - LOOK_BACK)
        for entry in self.entries:
            for expected_at in entry.times(since - entry.grace, until - entry.grace):
                if not has_begun(entry, expected_at - EARLY, expected_at + entry.grace):
                    yield Missed(entry, expected_at)
        self._checked_until = max(self._checked_until, until)

    def missing(self, until: datetime, has_begun: HasBegun) -> Iterator[tuple[Expected, bool]]:
        """
        Yield each entry, and whether its last start is late and no run of it has begun since.

        Args:
            until: The time up to which all reports are known.
            has_begun: Returns whether a run of an entry began between two times.
        """
        for entry in self.entries:
            expected_at = entry.last(until - entry.grace)
            is_recent = expected_at + entry.grace > until - KEPT
            yield entry, is_recent and not has_begun(entry, expected_at - EARLY, until + EARLY)
