"""
The characters and colours of the terminal's output, for terminals with many characters or with few.

Not here: the drawing with these characters (draw.bars, draw.timeline, doctor.examination).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from dkist_processing_core.runs import State
from dkist_processing_core.text.console import ATTENTION


class Ink(IntEnum):
    """The content of half a cell of a bar; a later member covers an earlier one."""

    NOTHING = 0
    WAITING = 1
    PREPARING = 2
    RUNNING = 3


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of characters."""

    marks: Mapping[State, str]
    retried: str
    strokes: Mapping[tuple[Ink, Ink], str]
    """The character of a cell by the contents of its halves; for a missing pair, the stronger half fills the cell."""
    grid: str
    axis: str
    tick: str
    corner: str
    ellipsis: str
    separator: str
    levels: str
    """The characters of a curve in one line, from the lowest level to the highest."""

    def stroke(self, left: Ink, right: Ink) -> str:
        """Return the character of a cell with these halves."""
        strongest = max(left, right)
        return self.strokes.get((left, right)) or self.strokes[strongest, strongest]


STYLES = {
    State.WAITING: "dim",
    State.DISPATCHED: "cyan",
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.SKIPPED: ATTENTION,
    State.NOT_RUN: "dim",
}
RETRIED_STYLE = DISPUTED_STYLE = ATTENTION

_N, _W, _P, _R = Ink.NOTHING, Ink.WAITING, Ink.PREPARING, Ink.RUNNING
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
        (_N, _N): " ", (_W, _W): "░",
        (_P, _P): "─", (_P, _N): "╴", (_N, _P): "╶",
        (_R, _R): "━", (_R, _N): "╸", (_R, _W): "╸", (_N, _R): "╺", (_W, _R): "╺", (_P, _R): "╼", (_R, _P): "╾",
    },
    grid="·",
    axis="─",
    tick="┴",
    corner="╰",
    ellipsis="…",
    separator=" · ",
    levels="▁▂▃▄▅▆▇█",
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
    strokes={(_N, _N): " ", (_W, _W): ".", (_P, _P): "-", (_R, _R): "="},
    grid=" ",
    axis="-",
    tick="+",
    corner="+",
    ellipsis="...",
    separator=", ",
    levels=".:-=+*#@",
)
