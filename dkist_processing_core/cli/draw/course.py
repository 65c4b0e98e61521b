"""
The course of what an attempt used, as a line for each kind of use above one axis of time.

Not here: the characters of a line (draw.sparkline), and the totals (runs.wording.usage).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from dkist_processing_core.cli.draw.bars import axis
from dkist_processing_core.cli.draw.glyphs import Glyphs
from dkist_processing_core.cli.draw.scale import Scale
from dkist_processing_core.cli.draw.sparkline import sparkline
from dkist_processing_core.events import Profile
from dkist_processing_core.runs import AttemptView
from dkist_processing_core.runs.wording.usage import KINDS_OF_USE
from dkist_processing_core.text import size

MOST_CELLS = 60
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def course(profile: Profile, cells: int, glyphs: Glyphs) -> Iterator[tuple[str, str]]:
    """Yield the lines, each with its name; what was never used has no line, and the axis has the name ""."""
    for place, (name, text_of) in enumerate(KINDS_OF_USE, 1):
        values = [(point[0], float(point[place])) for point in profile]
        most = max((value for _, value in values), default=0.0)
        if most > 0:
            yield name, f"{sparkline(values, cells, glyphs.levels)} {text_of(most)}"
    end = max((point[0] for point in profile), default=0.0)
    if end > 0:
        for line in axis(Scale(_ANY_TIME, end, cells).ticks, cells, glyphs, cells):
            yield "", line


def memory_of(attempt: AttemptView, cells: int, glyphs: Glyphs) -> str:
    """
    Return the memory of an attempt over its life in at most `cells` cells, with the peak; without cells the peak alone.

    Of a running attempt it is the memory of now, of one without a profile nothing.
    """
    if attempt.end is None:
        resources = None if attempt.sample is None else attempt.sample.resources
        return "" if resources is None or resources.rss is None else size(resources.rss)
    values = [(point[0], float(point[1])) for point in attempt.end.profile or ()]
    if not values:
        return ""
    # The process may have held it between two samples.
    most = max(attempt.end.peak_memory or 0, *(value for _, value in values))
    return f"{sparkline(values, min(cells, len(values)), glyphs.levels)} {size(round(most))}".lstrip()
