"""
The times of an attempt as parts of a bar.

Not here: the times themselves (runs.moments), and the characters (draw.bars).
"""

from dkist_processing_core.cli.draw.bars import Stretch
from dkist_processing_core.cli.draw.glyphs import Ink
from dkist_processing_core.cli.draw.scale import Scale
from dkist_processing_core.runs import AttemptView, TaskView
from dkist_processing_core.runs.moments import Moments, Part

# A pause before a retry is waiting as well.
_INKS = {Part.PAUSING: Ink.WAITING, Part.WAITING: Ink.WAITING, Part.PREPARING: Ink.PREPARING, Part.RUNNING: Ink.RUNNING}


def stretches(moments: Moments, task: TaskView, attempt: AttemptView, scale: Scale) -> list[Stretch]:
    """Return the bar of an attempt: its times of waiting, of preparation and of running."""
    found = []
    for each in moments.stretches(task, attempt):
        first, end = scale.half(each.begin), scale.half(each.end)
        if each.part is Part.RUNNING:
            # An attempt that has run is visible, even if it was short.
            first = min(first, 2 * scale.cells - 1)
            end = max(first + 1, end)
        found.append(Stretch(_INKS[each.part], first, end))
    return found
