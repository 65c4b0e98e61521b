"""
Families of failures as a table: how often each occurred, where, when first and last, and why.

Not here: one family with its occurrences (draw.family_sheet), the grouping (collect.folding.rows) and the choice
(collect.questions), and the widths of the columns (draw.table).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.family_sheet import affected, family_mark, first_bad_version
from dkist_processing_core.cli.draw.glyphs import ASCII, UNICODE
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.collect.questions.answers import Family

_MOST_NAMES = 3
_SHORT_FAMILY = 8


def draw_failures(
    families: Sequence[Family],
    *,
    short_id: Callable[[str], str],
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of a table of families, each with its reason and its last run below it.

    Args:
        families: The families.
        short_id: Returns the short id of a run's id.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    glyphs, wide = ASCII if ascii_only else UNICODE, is_wide(width)
    columns = [
        Column("count", is_number=True),
        Column("final", is_number=True),
        Column("first seen"),
        Column("last seen"),
        Column("workflow", least=8),
        Column("task", least=8),
    ]
    form = "%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"
    lines = []
    for each in families:
        mark = family_mark(each, glyphs)
        style = mark[1]
        cells: list[Cell] = [
            (f"{each.count:,}", "bold"),
            (f"{each.final:,}", style),
            (local_time(each.first_at, form, zone), "dim"),
            (local_time(each.last_at, form, zone), ""),
            (_few(f"{name} {_few(versions)}" for name, versions in each.workflows.items()), "dim"),
            (_few(each.tasks), "bold"),
        ]
        log = f": {each.last.log_url}" if each.last.log_url else ""
        family = f"family {each.family[:_SHORT_FAMILY]}, in {affected(each)}"
        last = f"{family}, last in run {short_id(each.last.run.run_id)}{log}"
        below: list[Cell] = [(each.last.summary or "", style), (last, "dim")]
        if each.first is not None and each.first.last_good_version is not None:
            below.append((first_bad_version(each.first), "dim"))
        lines.append(Line(mark, cells, below))
    return draw_table(columns, lines, width=width, glyphs=glyphs)


def _few(names: "Iterator[str] | Sequence[str]") -> str:
    """Return the first names of a list, and how many more there are."""
    each = list(names)
    more = len(each) - _MOST_NAMES
    return ", ".join(each[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
