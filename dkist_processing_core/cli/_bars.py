"""
What a timeline is drawn with: marks, and bars to half a cell of what an attempt waited, was prepared and ran.

Not here: when that was (_timeline), and the axis (_scale).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

from rich.text import Text

from dkist_processing_core.runs import State


class Ink(IntEnum):
    """What half a cell shows; the later member covers the earlier."""

    NOTHING = 0
    WAITING = 1
    PREPARING = 2
    RUNNING = 3


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a timeline, for terminals that know many or few."""

    marks: Mapping[State, str]
    retried: str
    strokes: Mapping[tuple[Ink, Ink], str]
    grid: str
    axis: str
    tick: str
    corner: str
    ellipsis: str
    separator: str

    def stroke(self, left: Ink, right: Ink) -> str:
        """Return the character whose halves show these."""
        return self.strokes.get((left, right)) or self.strokes.get((max(left, right),) * 2, " ")


_N, _W, _P, _R = Ink.NOTHING, Ink.WAITING, Ink.PREPARING, Ink.RUNNING
_ASCII_STROKES = {(_N, _N): " ", (_W, _W): ".", (_P, _P): "-", (_R, _R): "="}
UNICODE = Glyphs(
    marks={
        State.WAITING: "·",
        State.DISPATCHED: "○",
        State.RUNNING: "●",
        State.FINISHED: "✓",
        State.FAILED: "✗",
        State.SKIPPED: "»",
        State.NOT_RUN: "–",  # noqa: RUF001 - an en dash is meant
    },
    retried="↻",
    strokes={
        (_N, _N): " ", (_W, _W): "┈",
        (_P, _P): "─", (_P, _N): "╴", (_P, _W): "─", (_N, _P): "╶", (_W, _P): "─",
        (_R, _R): "━", (_R, _N): "╸", (_R, _W): "╸", (_N, _R): "╺", (_W, _R): "╺", (_P, _R): "╼", (_R, _P): "╾",
    },
    grid="·",
    axis="─",
    tick="┴",
    corner="╰",
    ellipsis="…",
    separator=" · ",
)  # fmt: skip
ASCII = Glyphs(
    marks={
        State.WAITING: ".",
        State.DISPATCHED: "o",
        State.RUNNING: ">",
        State.FINISHED: "+",
        State.FAILED: "x",
        State.SKIPPED: "/",
        State.NOT_RUN: "-",
    },
    retried="~",
    strokes=_ASCII_STROKES,
    grid=" ",
    axis="-",
    tick="+",
    corner="+",
    ellipsis="...",
    separator=", ",
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a bar, from half cell to half cell."""

    ink: Ink
    first: int
    end: int


def bar(stretches: Iterable[Stretch], cells: int, glyphs: Glyphs, style: str, grid: Iterable[int]) -> Text:
    """Return one row of the chart: its stretches, and in empty cells the grid. What runs has the style, the rest is dim."""
    halves = [Ink.NOTHING] * (2 * cells)
    for stretch in sorted(stretches, key=lambda each: each.ink):
        for half in range(max(0, stretch.first), min(stretch.end, len(halves))):
            halves[half] = stretch.ink
    pairs = list(zip(halves[::2], halves[1::2], strict=True))
    marked = set(grid)
    row = [
        (glyphs.grid if max(pair) is Ink.NOTHING and cell in marked else glyphs.stroke(*pair), max(pair))
        for cell, pair in enumerate(pairs)
    ]
    text = Text()
    for ink, group in groupby(row, key=lambda item: item[1]):
        text.append("".join(glyph for glyph, _ in group), style=style if ink is Ink.RUNNING else "dim")
    return text
