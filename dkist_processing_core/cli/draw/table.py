"""
A table of texts that fits the width of a terminal.

Not here: the content of the tables (draw.run_table, draw.attempt_table, draw.failure_table).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import Glyphs
from dkist_processing_core.cli.draw.words import fitted
from dkist_processing_core.text.console import folded
from dkist_processing_core.text.terminal import one_line

WIDE = 140
"""From this width on, and without a terminal, a row has all its facts; in a narrower terminal some are below it."""
_GAP = "  "
_INDENT = 2

Cell = tuple[str, str]
"""A text and its style."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    head: str
    is_number: bool = False
    """Whether its texts are aligned on the right."""
    least: int | None = None
    """The width to which it may shrink; by default it keeps the width of its texts."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table."""

    mark: Cell
    cells: Sequence[Cell]
    below: Sequence[Cell] = ()
    """Texts below the row, each on as many lines as it needs."""


def is_wide(width: int | None) -> bool:
    """Return True if a terminal of this width, or a file, has room for all facts of a row."""
    return width is None or width >= WIDE


def draw_table(
    columns: Sequence[Column], lines: Sequence[Line], *, width: int | None, glyphs: Glyphs
) -> Iterator[Text]:
    """
    Yield the lines of a table.

    Args:
        columns: The columns after that of the marks; one without a text in any row is left out.
        lines: The rows.
        width: The width of the terminal in cells. Columns shrink to it; without a terminal nothing is cut or folded.
        glyphs: The characters.
    """
    texts = [[_indented(text) for text, _ in line.cells] for line in lines]
    natural = [max((cell_len(row[at]) for row in texts), default=0) for at in range(len(columns))]
    used = [at for at in range(len(columns)) if natural[at]]
    widths = {at: max(natural[at], cell_len(columns[at].head)) for at in used}
    if width is not None:
        _shrink(widths, {at: least for at in used if (least := columns[at].least) is not None}, width)
    heads = [_cell(columns[at].head, columns[at], widths[at], glyphs) for at in used]
    yield from _folded(Text.assemble(" " * _INDENT, (_GAP.join(heads).rstrip(), "dim")), width)
    for line, row in zip(lines, texts, strict=True):
        drawn = Text.assemble((f"{line.mark[0]} ", line.mark[1]))
        for at in used:
            drawn.append("" if at == used[0] else _GAP)
            drawn.append(_cell(row[at], columns[at], widths[at], glyphs), line.cells[at][1])
        drawn.rstrip()
        yield from _folded(drawn, width)
        for text, style in line.below:
            yield from _folded(Text.assemble(" " * 2 * _INDENT, (_indented(text), style)), width)


def _shrink(widths: dict[int, int], least: dict[int, int], width: int) -> None:
    """Take the cells that are too many from the columns that may shrink, always from the widest."""
    excess = _INDENT + sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width
    while excess > 0:
        wider = [at for at in least if widths[at] > least[at]]
        if not wider:
            return
        widths[max(wider, key=lambda at: widths[at])] -= 1
        excess -= 1


def _indented(text: str) -> str:
    """Return a text as a part of one line, with the blanks at its beginning."""
    return " " * (len(text) - len(text.lstrip(" "))) + one_line(text)


def _cell(text: str, column: Column, width: int, glyphs: Glyphs) -> str:
    padded = fitted(text, width, glyphs.ellipsis)
    return padded if not column.is_number or cell_len(text) > width else " " * (width - cell_len(text)) + text


def _folded(line: Text, width: int | None) -> Iterator[Text]:
    if width is None:
        yield line
    else:
        yield from folded(line, width, 2 * _INDENT)
