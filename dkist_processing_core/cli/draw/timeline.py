"""
The timeline of a run, as lines of text: a bar for each attempt on a common axis of time.

It is drawn only from the state of a run. Not here: the source of the state (cli.runs.timeline), the bars
(draw.bars), and the texts about an attempt (draw.attempts).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.attempts import (
    details_of,
    disputes_of,
    is_retried,
    labels_of,
    last_frames_of,
    mark_of,
)
from dkist_processing_core.cli.draw.bars import axis, bar, strokes_legend
from dkist_processing_core.cli.draw.course import memory_of
from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE, Glyphs
from dkist_processing_core.cli.draw.heading import heading
from dkist_processing_core.cli.draw.moments import stretches
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.scale import Scale
from dkist_processing_core.cli.draw.words import broken, fitted
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.runs import AttemptView, RunView, TaskView
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.text import duration, parts_of_attempt
from dkist_processing_core.text.console import folded

MAX_WIDTH = 160
_LEAST_CHART = 16
_LEAST_NAME = 8
# The course of an attempt's memory, or else its peak alone, each with the narrowest chart beside it.
_CELLS_OF_MEMORY = ((12, 40), (0, _LEAST_CHART))
_GAP = "  "
_SHORTEST_SECONDS = 0.001
_MESSAGE_LINES = 3
_DETAIL_INDENT = 4


def draw_timeline(
    view: RunView,
    *,
    width: int,
    now: datetime,
    short_id: str | None = None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> list[Text]:
    """
    Return the timeline of a run, no line wider than `width` cells.

    A run or attempt without an end lasts until `now`. Times are shown in `zone`, by default the local time zone. The
    run is named by its `short_id` among the runs that were read; without one, this run is the only one.
    """
    width = min(width, MAX_WIDTH)
    glyphs = ASCII if ascii_only else UNICODE
    moments = Moments(view, now)
    tasks = _Tasks(view, moments, width, glyphs, now, zone)
    lines = [
        *heading(view, moments, short_id or ShortIds().of(view.run.run_id), width=width, glyphs=glyphs, zone=zone),
        Text(),
        *tasks.rows(),
        *tasks.axis(),
    ]
    for line in lines:
        line.truncate(width)
    return lines


@dataclass(frozen=True, slots=True)
class _Columns:
    """The widths of name, chart, duration and memory in cells; without enough room, there is no memory or chart."""

    name: int
    chart: int
    duration: int
    memory: int = 0

    @classmethod
    def within(
        cls, width: int, names: Sequence[str], durations: Sequence[str], memories: Sequence[str] = (), least: int = 0
    ) -> "_Columns":
        last = max(map(cell_len, durations), default=0)
        # Minus the mark and its space, and a space on each side of the chart.
        room = width - 4 - last
        name = max(_LEAST_NAME, min(max(map(cell_len, names), default=0), room * 2 // 5))
        chart = room - name
        memory = max(map(cell_len, memories), default=0)
        if memory and chart - memory - len(_GAP) >= least:
            return cls(name, chart - memory - len(_GAP), last, memory)
        return cls(name, chart, last) if chart >= _LEAST_CHART else cls(max(1, room), 0, last)


class _Tasks:
    """The rows of the tasks, and the axis below them."""

    def __init__(
        self, view: RunView, moments: Moments, width: int, glyphs: Glyphs, now: datetime, zone: tzinfo | None
    ) -> None:
        self._view = view
        self._now = now
        self._zone = zone
        self._moments = moments
        self._width = width
        self._glyphs = glyphs
        names = [name for task in view.tasks for name in labels_of(task)]
        attempts = [attempt for task in view.tasks for attempt in task.attempts]
        self._has_parts = True
        durations = list(map(self._duration, attempts))
        for self._cells, least in _CELLS_OF_MEMORY:
            self._columns = _Columns.within(width, names, durations, list(map(self._memory, attempts)), least)
            if self._columns.memory:
                break
        if not self._columns.chart:
            self._has_parts = False
            self._columns = _Columns.within(width, names, list(map(self._duration, attempts)))
        begin, end = moments.span
        seconds = max(_SHORTEST_SECONDS, (end - begin).total_seconds())
        self._scale = Scale(begin, seconds, max(1, self._columns.chart))
        self._ticks = self._scale.ticks if self._columns.chart and view.tasks else []

    def axis(self) -> Iterator[Text]:
        """Yield the lines of the axis if there is a chart, and the meaning of the characters."""
        indent = " " * (self._columns.name + 3)
        if self._ticks:
            for line in axis(self._ticks, self._columns.chart, self._glyphs, self._width - len(indent)):
                yield Text.assemble(indent, (line, "dim"))
            yield from self._legend(strokes_legend(self._glyphs, self._width - len(indent)), len(indent))
        if any(is_retried(attempt, task) for task in self._view.tasks for attempt in task.attempts):
            yield from self._legend(f"{self._glyphs.retried} failed, and another attempt followed", len(indent))

    def _legend(self, words: str, indent: int) -> Iterator[Text]:
        """Yield the meaning of characters, below the chart if there is enough room."""
        indent = indent if indent + cell_len(words) <= self._width else 2
        yield from folded(Text.assemble(" " * indent, (words, "dim")), self._width, indent)

    def rows(self) -> Iterator[Text]:
        """Yield a row for each attempt, with its details below it."""
        for task in self._view.tasks:
            if not task.attempts:
                yield from self._row_without_chart(task)
            for name, attempt in zip(labels_of(task), task.attempts, strict=False):
                mark, style = mark_of(attempt, task, self._glyphs)
                yield self._row(task, attempt, name, mark, style)
                details = (*details_of(attempt, style), *last_frames_of(attempt))
                for words, detail_style in (*alarm_of(attempt.overdue, self._now, self._zone), *details):
                    yield from self._detail(words, detail_style)
            for words, detail_style in disputes_of(task):
                yield from self._detail(words, detail_style)

    def _row(self, task: TaskView, attempt: AttemptView, name: str, mark: str, style: str) -> Text:
        columns, ellipsis = self._columns, self._glyphs.ellipsis
        line = Text.assemble((f"{mark} ", style), fitted(name, columns.name, ellipsis), " ")
        if columns.chart:
            parts = stretches(self._moments, task, attempt, self._scale)
            line.append_text(bar(parts, columns.chart, self._glyphs, style, self._ticks)).append(" ")
        line.append(f"{self._duration(attempt):>{columns.duration}}")
        memory = self._memory(attempt) if columns.memory else ""
        return line.append(f"{_GAP}{memory}", "dim") if memory else line

    def _row_without_chart(self, task: TaskView) -> Iterator[Text]:
        """Yield the row of a task without attempts."""
        columns, ellipsis, style = self._columns, self._glyphs.ellipsis, STYLES[task.state]
        (name,) = labels_of(task)
        words = task.state.value
        if task.engine_state == "upstream_failed":
            words = "not run: an upstream task failed"
        elif task.engine_state == "no_status":
            words = "not run: the run ended before"
        if not columns.chart:
            line = Text.assemble((f"{self._glyphs.marks[task.state]} ", style), f"{name}  {words}")
            yield from folded(line, self._width, _DETAIL_INDENT)
            return
        line = Text.assemble((f"{self._glyphs.marks[task.state]} ", style), fitted(name, columns.name, ellipsis))
        line.append(f" {words}", style)
        yield from folded(line, self._width, columns.name + 3)

    def _duration(self, attempt: AttemptView) -> str:
        """Return the duration of an attempt, with its environment and its phases if there is room for them."""
        seconds = self._moments.duration(attempt)
        phases = {} if attempt.end is None else attempt.end.phases
        parts = parts_of_attempt(phases, attempt.preparation_seconds) if self._has_parts else ""
        total = "" if seconds is None else duration(seconds)
        return f"{total} ({parts})" if total and parts else total or parts

    def _memory(self, attempt: AttemptView) -> str:
        return memory_of(attempt, self._cells, self._glyphs)

    def _detail(self, words: str, style: str) -> Iterator[Text]:
        """Yield a text below a row, on a few lines at most."""
        room = max(_LEAST_NAME, self._width - _DETAIL_INDENT)
        for line in broken(words, room, _MESSAGE_LINES, self._glyphs.ellipsis):
            yield Text.assemble(" " * _DETAIL_INDENT, (line, style))
