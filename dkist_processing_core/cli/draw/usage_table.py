"""
What tasks have used as a table, and below it by how much the memory of each queue could shrink.

Not here: the sums (collect.questions.usage), and the use by one attempt (runs.wording.usage).
"""

from collections.abc import Iterator, Sequence

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.collect.questions.answers import Usage
from dkist_processing_core.runs import State
from dkist_processing_core.text import counted, size
from dkist_processing_core.text.console import folded
from dkist_processing_core.text.terminal import one_line

_INDENT = 2
_LEAST_SHOWN = 0.1


def draw_usage(
    tasks: Sequence[Usage], queues: Sequence[Usage], *, width: int | None, ascii_only: bool = False
) -> Iterator[Text]:
    """
    Yield the lines of the table; a task of which an attempt ran out of memory is marked.

    Args:
        tasks: What each task has used.
        queues: What each queue has used.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
    """
    if not tasks:
        return
    glyphs, wide = ASCII if ascii_only else UNICODE, is_wide(width)
    columns = [
        *([Column("workflow", least=8)] if wide else []),
        Column("task", least=8),
        Column("queue", least=5),
        Column("attempts", is_number=True),
        Column("died", is_number=True),
        Column("median memory", is_number=True),
        Column("largest memory", is_number=True),
        Column("its limit", is_number=True),
        *([Column(head, is_number=True) for head in ("processors", "their limit", "read", "written")] if wide else []),
    ]
    lines = []
    for each in tasks:
        failed = (glyphs.marks[State.FAILED], STYLES[State.FAILED])
        rest = [_number(each.cpu_mean), _number(each.cpu_limit), _size(each.bytes_read), _size(each.bytes_written)]
        cells: list[Cell] = [
            *([(each.workflow_name or "", "dim")] if wide else []),
            (each.task_name or "", "bold"),
            (each.queue or "", "dim"),
            (f"{each.attempts:,}", ""),
            (f"{each.died:,}" if each.died else "", failed[1]),
            (_size(each.memory_median), ""),
            (_size(each.memory_largest), "bold"),
            (_size(each.memory_limit), "dim"),
            *([(text, "") for text in rest] if wide else []),
        ]
        below = [] if wide else [(_below(each, *rest), "dim")]
        lines.append(Line(failed if each.out_of_memory else (" ", ""), cells, below))
    yield from draw_table(columns, lines, width=width, glyphs=glyphs)
    yield Text()
    for each in queues:
        line = Text.assemble(" " * _INDENT, *_advice(each))
        yield from [line] if width is None else folded(line, width, 2 * _INDENT)


def _advice(usage: Usage) -> Iterator[str | tuple[str, str]]:
    """Yield the parts of a sentence: by how much the memory of a queue could shrink, or why not."""
    yield (f"queue {one_line(usage.queue)}: " if usage.queue else "without a queue: ", "bold")
    if usage.out_of_memory:
        died = counted(usage.out_of_memory, "attempt")
        yield f"the memory should not shrink, since {died} ran out of it"
    elif usage.memory_largest is None:
        yield "the memory was not measured"
    elif usage.memory_limit is None:
        yield f"{_size(usage.enough_memory)} would be enough; no limit is known"
    elif usage.spare_memory is None:
        yield f"the memory should not shrink: {_size(usage.memory_largest)} of {_size(usage.memory_limit)} were used"
    else:
        enough, limit = _size(usage.enough_memory), _size(usage.memory_limit)
        yield f"the memory could shrink by {_size(usage.spare_memory)}, from {limit} to {enough}"
    if usage.died and usage.enough_memory is not None:
        verb = "it" if usage.died == 1 else "they"
        yield f"; {counted(usage.died, 'attempt')} died, and {verb} may have needed more"


def _below(usage: Usage, processors: str, limit: str, read: str, written: str) -> str:
    """Return what a narrow table has no columns for."""
    parts = [
        usage.workflow_name or "",
        f"{processors}{f' of {limit}' if limit else ''} processors" if processors else "",
        f"{read} read" if read else "",
        f"{written} written" if written else "",
    ]
    return ", ".join(part for part in parts if part)


def _size(count: int | None) -> str:
    return "" if count is None else size(count)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}".removesuffix(".0") if value >= _LEAST_SHOWN or not value else f"<{_LEAST_SHOWN}"
