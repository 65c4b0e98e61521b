"""
The chart of a timeline: bars with a resolution of half a cell, and the axis below them.

Not here: the times of the events (draw.moments), and the text next to the chart (draw.timeline).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import Glyphs, Ink
from dkist_processing_core.cli.draw.scale import Tick

_LABEL = " (the duration)"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a bar, from a first half cell to an end half cell."""

    ink: Ink
    first: int
    end: int


def bar(stretches: Iterable[Stretch], cells: int, glyphs: Glyphs, style: str, ticks: Iterable[Tick]) -> Text:
    """Return one row of the chart: running parts have the style, the rest is dim, and the ticks have a faint grid."""
    halves = [Ink.NOTHING] * (2 * cells)
    for stretch in sorted(stretches, key=lambda each: each.ink):
        for half in range(max(0, stretch.first), min(stretch.end, len(halves))):
            halves[half] = stretch.ink
    marked = {tick.cell for tick in ticks}
    row = []
    for cell, pair in enumerate(zip(halves[::2], halves[1::2], strict=True)):
        is_grid = cell in marked and pair == (Ink.NOTHING, Ink.NOTHING)
        row.append((glyphs.grid if is_grid else glyphs.stroke(*pair), max(pair)))
    text = Text()
    for ink, group in groupby(row, key=lambda item: item[1]):
        text.append("".join(glyph for glyph, _ in group), style=style if ink is Ink.RUNNING else "dim")
    return text


def axis(ticks: Sequence[Tick], cells: int, glyphs: Glyphs, room: int) -> Iterator[str]:
    """Yield the lines of the axis: the line itself, and its labels, which have `room` cells."""
    marked = {tick.cell for tick in ticks[1:]}
    yield glyphs.corner + "".join(glyphs.tick if cell in marked else glyphs.axis for cell in range(1, cells))
    labels: list[str] = []
    for tick in ticks:
        number = tick.label.partition(" ")[0]
        # The number is centred below its tick, unless the previous number or the end of the line leaves no room.
        start = min(tick.cell - (len(number) - 1) // 2, max(0, room - len(tick.label)))
        if tick is ticks[-1]:
            # It has the unit, without which the others mean nothing.
            while labels and len("".join(labels)) >= start:
                labels.pop()
        so_far = "".join(labels)
        labels.append(tick.label.rjust(len(tick.label) + max(start - len(so_far), bool(so_far))))
    yield "".join(labels)


def strokes_legend(glyphs: Glyphs, room: int) -> str:
    """Return the meaning of the strokes of a bar; it is longer if `room` cells allow it."""
    names = {Ink.WAITING: "waiting", Ink.PREPARING: "preparing", Ink.RUNNING: "running"}
    legend = "   ".join(f"{glyphs.stroke(ink, ink) * 2} {name}" for ink, name in names.items())
    return legend + _LABEL if len(legend + _LABEL) <= room else legend
