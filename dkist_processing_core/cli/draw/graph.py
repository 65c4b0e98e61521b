"""
A workflow's graph as lines for a terminal: one task per line, with its queue and its extras.

Not here: the layout of the lanes (draw.lanes), and the order of the tasks (draw.order).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.lanes import Line, Stroke, lay_out, widest
from dkist_processing_core.cli.draw.order import drawing_order
from dkist_processing_core.cli.draw.words import broken
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.text.terminal import one_line
from dkist_processing_core.workflow import Workflow

_GAP = "  "
_LEAST_ROOM = 28
_LEAST_LABEL = 16
_MOST_LINES = 40
_UP, _DOWN, _LEFT, _RIGHT = Stroke
_UNICODE = {
    Stroke(0): " ",
    _UP | _DOWN: "│", _LEFT | _RIGHT: "─",
    _DOWN | _RIGHT: "╭", _DOWN | _LEFT: "╮", _UP | _RIGHT: "╰", _UP | _LEFT: "╯",
    _UP | _DOWN | _RIGHT: "├", _UP | _DOWN | _LEFT: "┤",
    _DOWN | _LEFT | _RIGHT: "┬", _UP | _LEFT | _RIGHT: "┴", _UP | _DOWN | _LEFT | _RIGHT: "┼",
}  # fmt: skip
# For terminals with few characters: a dot connects only downwards, an apostrophe only upwards, and a plus both ways.
_SIMPLER = str.maketrans("│─╭╮┬╰╯┴├┤┼●", "|-...'''+++o")
_MARK = "●"


@dataclass(frozen=True, slots=True)
class Task:
    """A node's name, queue and extras."""

    name: str
    queue: ResourceQueue = ResourceQueue.DEFAULT
    extras: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the queue, and the extras in brackets as in pip's requirements."""
        extras = f" [{','.join(map(one_line, self.extras))}]" if self.extras else ""
        return f"{self.queue}{extras}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row: the strokes before a task's name, and before its texts below; a row without a name has only strokes."""

    before: str
    below: str
    name: str = ""
    label: str = ""


def draw_workflow(workflow: Workflow, *, width: int | None, ascii_only: bool = False) -> list[Text]:
    """Return the drawing of a workflow; if `width` is given, no line is wider than `width` cells."""
    tasks = [Task(node.name, node.resource_queue, tuple(node.pip_extras)) for node in workflow.nodes]
    return draw_graph(tasks, workflow.graph.edges, width=width, ascii_only=ascii_only)


def draw_graph(
    tasks: Sequence[Task], edges: Sequence[tuple[str, str]], *, width: int | None, ascii_only: bool = False
) -> list[Text]:
    """Return the drawing of a graph; without enough room for its lanes, a numbered list that names the edges."""
    by_name = {task.name: task for task in tasks}
    order = drawing_order([*by_name], edges)
    lines = lay_out(order, edges)
    if width is None or width - widest(lines) - len(_GAP) >= _LEAST_ROOM:
        rows = list(_drawn(lines, by_name, ascii_only=ascii_only))
    else:
        rows = list(_listed([by_name[name] for name in order], edges))
    return list(_worded(rows, width))


def _drawn(lines: Sequence[Line], by_name: dict[str, Task], *, ascii_only: bool) -> Iterator[_Row]:
    cells = widest(lines)
    for line in lines:
        mark = None if line.column is None else 2 * line.column
        strokes = [line.cells.get(at, Stroke(0)) for at in range(cells)]
        before = "".join(_MARK if at == mark else _UNICODE[each] for at, each in enumerate(strokes))
        after = "".join("│" if each & _DOWN else " " for each in strokes)
        if ascii_only:
            before, after = before.translate(_SIMPLER), after.translate(_SIMPLER)
        task = by_name[line.node] if line.node is not None else None
        yield _Row(before, after, task.name, task.label) if task else _Row(before, after)


def _listed(tasks: Sequence[Task], edges: Sequence[tuple[str, str]]) -> Iterator[_Row]:
    numbers = {task.name: number for number, task in enumerate(tasks, 1)}
    digits = len(str(len(tasks)))
    for task in tasks:
        after = sorted(numbers[upstream] for upstream, downstream in edges if downstream == task.name)
        label = f"{task.label}, after {', '.join(map(str, after))}" if after else task.label
        yield _Row(f"{numbers[task.name]:>{digits}}", " " * digits, task.name, label)


def _worded(rows: Sequence[_Row], width: int | None) -> Iterator[Text]:
    """Yield the rows with their texts, in two columns if there is enough room, otherwise below each other."""
    if not rows:
        return
    room = None if width is None else max(1, width - len(rows[0].before) - len(_GAP))
    names = max(cell_len(row.name) for row in rows)
    label = max(cell_len(row.label) for row in rows)
    beside = label if room is None else room - names - len(_GAP)
    is_beside = beside >= min(label, _LEAST_LABEL)
    for row in rows:
        line = Text.assemble((row.before, "cyan"))
        for at, (name, words) in enumerate(
            _paired(row, names, beside, room) if is_beside else _stacked(row, room or 1)
        ):
            text = Text.assemble((row.below, "cyan")) if at else line
            yield _ended(text, name, words)
        if not row.name:
            yield _ended(line, "", "")


def _paired(row: _Row, names: int, beside: int, room: int | None) -> Iterator[tuple[str, str]]:
    padded = row.name + " " * (names - cell_len(row.name)) + _GAP
    label = [row.label] if room is None else broken(row.label, beside, _MOST_LINES, "...")
    for at, words in enumerate(label if row.name else ()):
        yield (" " * cell_len(padded) if at else padded), words


def _stacked(row: _Row, room: int) -> Iterator[tuple[str, str]]:
    for part in broken(row.name, room, _MOST_LINES, "..."):
        yield part, ""
    for part in broken(row.label, max(1, room - len(_GAP)), _MOST_LINES, "..."):
        yield _GAP, part


def _ended(line: Text, name: str, words: str) -> Text:
    line.append(_GAP)
    line.append(name, "bold")
    line.append(words, "dim" if words == ResourceQueue.DEFAULT else "")
    line.rstrip()
    return line
