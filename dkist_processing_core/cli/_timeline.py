"""
The timeline of a run, as lines of text: a bar for each attempt on a common axis of time.

Drawn from the folded state alone. Not here: where that comes from (_replay), and how a bar is drawn (_bars).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli._bars import ASCII, UNICODE, Glyphs, Ink, bar
from dkist_processing_core.cli._facts import end as end_words
from dkist_processing_core.cli._moments import Moments
from dkist_processing_core.cli._scale import Scale
from dkist_processing_core.cli._words import amount, duration, fitted, one_line
from dkist_processing_core.events import TaskEnd, TaskFailed
from dkist_processing_core.runs import AttemptView, RunView, State, TaskView

MAX_WIDTH = 160
_STYLES = {
    State.WAITING: "dim",
    State.DISPATCHED: "cyan",
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.SKIPPED: "yellow",
    State.NOT_RUN: "dim",
}
_RETRIED = "yellow"
_LEAST_CHART = 16
_LEAST_NAME = 8
_MESSAGE_LINES = 3
_DETAIL_INDENT = 4
_ENGINES_WORDS = {"success": State.FINISHED, "failed": State.FAILED, "skipped": State.SKIPPED}


def draw_timeline(
    view: RunView, *, width: int, now: datetime, ascii_only: bool = False, zone: tzinfo | None = None
) -> list[Text]:
    """
    Return the timeline of a run, no line wider than `width` cells.

    What has not ended lasts until `now`. Moments are shown in `zone`, the local time where none is given.
    """
    return _Timeline(view, min(width, MAX_WIDTH), now, ASCII if ascii_only else UNICODE, zone).lines()


@dataclass(frozen=True, slots=True)
class _Columns:
    """How many cells the name, the chart and the duration take; no chart where there is no room for one."""

    name: int
    chart: int
    duration: int

    @classmethod
    def within(cls, width: int, labels: Sequence[str], durations: Sequence[str]) -> "_Columns":
        last = max(map(cell_len, durations), default=0)
        # Two for the mark and its space, and a space on either side of the chart.
        room = width - 4 - last
        name = max(_LEAST_NAME, min(max(map(cell_len, labels), default=0), room * 2 // 5))
        chart = room - name
        return cls(name, chart, last) if chart >= _LEAST_CHART else cls(max(1, room), 0, last)


class _Timeline:
    """One drawing."""

    def __init__(self, view: RunView, width: int, now: datetime, glyphs: Glyphs, zone: tzinfo | None) -> None:
        self._view = view
        self._width = width
        self._glyphs = glyphs
        self._zone = zone
        self._moments = Moments(view, now)
        labels = [label for task in view.tasks for label in self._labels(task)]
        durations = [self._duration(attempt) for task in view.tasks for attempt in task.attempts]
        self._columns = _Columns.within(width, labels, durations)
        begin, end = self._moments.span
        seconds = max(0.001, (end - begin).total_seconds())
        self._scale = Scale(begin, seconds, max(1, self._columns.chart))
        self._ticks = self._scale.ticks if self._columns.chart else []

    def lines(self) -> list[Text]:
        lines = [*self._header(), Text(), *self._rows(), *self._axis()]
        for line in lines:
            line.truncate(self._width)
        return lines

    # The header

    def _header(self) -> Iterator[Text]:
        view, run = self._view, self._view.run
        style = _STYLES[view.state]
        title = f"{one_line(run.workflow_name)} {one_line(run.workflow_version)}"
        yield from self._flow(
            [
                Text(f"{self._glyphs.marks[view.state]} ", f"bold {style}").append(title, "bold"),
                Text(self._outcome(), style),
                Text(self._tally(), "dim"),
            ],
            self._glyphs.separator,
        )
        began = self._moments.span[0].astimezone(self._zone)
        about = [f"  recipe run {run.recipe_run_id}", f"began {began:%Y-%m-%d %H:%M:%S}", f"run {one_line(run.run_id)}"]
        yield from self._flow([Text(part, "dim") for part in about], self._glyphs.separator)
        if view.verdict is not None and self._is_disputed:
            yield Text(f"  ! the engine calls the run {view.verdict.value}", "yellow")

    def _flow(self, parts: Iterable[Text], separator: str) -> Iterator[Text]:
        """Give the parts one after the other, on as many lines as they need."""
        line = Text()
        for part in parts:
            if not line:
                line = part
            elif line.cell_len + len(separator) + part.cell_len <= self._width:
                line.append(separator, "dim").append_text(part)
            else:
                yield line
                line = Text("  ").append_text(part)
        yield line

    def _outcome(self) -> str:
        begin, end = self._moments.span
        took = duration((end - begin).total_seconds())
        how = {State.FINISHED: "finished in", State.FAILED: "failed after"}
        return f"{how.get(self._view.state, f'{self._view.state.value} for')} {took}"

    def _tally(self) -> str:
        states = [task.state for task in self._view.tasks]
        tasks = f"{len(states)} task{'' if len(states) == 1 else 's'}"
        counts = [f"{states.count(state)} {state.value}" for state in State if state in states]
        return tasks if self._view.state is State.FINISHED and len(counts) <= 1 else f"{tasks}: {', '.join(counts)}"

    @property
    def _is_disputed(self) -> bool:
        """Whether what became of the tasks is not what the engine says of the run."""
        has_failed = any(task.state in (State.FAILED, State.NOT_RUN) for task in self._view.tasks)
        return bool(self._view.tasks) and (self._view.verdict is State.FAILED) is not has_failed

    # The rows

    def _labels(self, task: TaskView) -> list[str]:
        later = [f"  attempt {attempt.number or '?'}" for attempt in task.attempts[1:]]
        return [one_line(task.name), *later]

    def _duration(self, attempt: AttemptView) -> str:
        seconds = self._moments.duration(attempt)
        return "" if seconds is None else duration(seconds)

    def _rows(self) -> Iterator[Text]:
        for task in self._view.tasks:
            labels = self._labels(task)
            if not task.attempts:
                yield self._row_of_words(task.state, labels[0], self._why_without_attempt(task))
            for label, attempt in zip(labels, task.attempts, strict=False):
                was_retried = attempt is not task.attempts[-1] and attempt.state is State.FAILED
                yield self._row(task, attempt, label, was_retried=was_retried)
                yield from self._details(attempt, "yellow" if was_retried else _STYLES[attempt.state])
            said = _ENGINES_WORDS.get(task.engine_state or "")
            if said is not None and task.attempts and said is not task.state:
                yield from self._detail(f"! the engine calls it {said.value}", "yellow")

    @staticmethod
    def _why_without_attempt(task: TaskView) -> str:
        if task.engine_state == "upstream_failed":
            return "not run: a task that it waits for failed"
        return task.state.value

    def _row_of_words(self, state: State, label: str, words: str) -> Text:
        style = _STYLES[state]
        line = Text(f"{self._glyphs.marks[state]} ", style)
        if not self._columns.chart:
            return line.append(label).append(f"  {words}", style)
        line.append(fitted(label, self._columns.name, self._glyphs.ellipsis)).append(" ")
        return line.append(fitted(words, self._columns.chart, self._glyphs.ellipsis).rstrip(), style)

    def _row(self, task: TaskView, attempt: AttemptView, label: str, *, was_retried: bool) -> Text:
        style = _RETRIED if was_retried else _STYLES[attempt.state]
        mark = self._glyphs.retried if was_retried else self._glyphs.marks[attempt.state]
        line = Text(f"{mark} ", style).append(fitted(label, self._columns.name, self._glyphs.ellipsis)).append(" ")
        if self._columns.chart:
            stretches = self._moments.stretches(task, attempt, self._scale)
            grid = [tick.cell for tick in self._ticks]
            line.append_text(bar(stretches, self._columns.chart, self._glyphs, style, grid)).append(" ")
        return line.append(f"{self._duration(attempt):>{self._columns.duration}}")

    def _details(self, attempt: AttemptView, style: str) -> Iterator[Text]:
        end = attempt.end
        if isinstance(end, TaskEnd) and not attempt.state is State.FINISHED:
            words = end_words(end)
            if end.provisional:
                words = f"{words} (only the engine says so)"
            yield from self._detail(words, style)
        elif attempt.state is State.FAILED:
            yield from self._detail(f"{attempt.cause}: nobody reported how it ended", style)
        if attempt.progress is not None and attempt.state is not State.FINISHED:
            note = one_line(attempt.progress.note or "")
            reached = amount(attempt.progress.done, attempt.progress.total, attempt.progress.unit)
            yield from self._detail(f"at {reached}{f' ({note})' if note else ''}", "dim")
        if isinstance(end, TaskFailed) and end.log_url:
            yield from self._detail(f"log: {one_line(end.log_url)}", "dim")
        for other in attempt.contradictions:
            words = ": ".join(part for part in (other.name.partition(".")[2], end_words(other)) if part)
            yield from self._detail(f"! the {other.reported_by.value} reports: {words}", "yellow")

    def _detail(self, words: str, style: str) -> Iterator[Text]:
        """Give words below a row, on a few lines at most."""
        room = max(8, self._width - _DETAIL_INDENT)
        rest = words
        for number in range(_MESSAGE_LINES):
            is_last = number == _MESSAGE_LINES - 1
            line, rest = (fitted(rest, room, self._glyphs.ellipsis).rstrip(), "") if is_last else _broken(rest, room)
            yield Text(" " * _DETAIL_INDENT).append(line, style)
            if not rest:
                return

    # The axis

    def _axis(self) -> Iterator[Text]:
        if not self._ticks:
            return
        glyphs, indent = self._glyphs, " " * (self._columns.name + 3)
        marks = {tick.cell for tick in self._ticks[1:]}
        drawn = (glyphs.tick if cell in marks else glyphs.axis for cell in range(1, self._columns.chart))
        yield Text(indent + glyphs.corner + "".join(drawn), "dim")
        labels = ""
        for tick in self._ticks:
            # Centred below its tick, as far as the one before leaves room.
            start = max(tick.cell - (len(tick.label.split()[0]) - 1) // 2, len(labels) + bool(labels))
            labels = labels.ljust(start) + tick.label
        yield Text(indent + labels, "dim")
        yield Text(f"{indent}{self._legend()}", "dim")

    def _legend(self) -> str:
        strokes = self._glyphs.strokes
        names = {Ink.WAITING: "waiting", Ink.PREPARING: "preparing", Ink.RUNNING: "running"}
        return "   ".join(f"{strokes[ink, ink] * 2} {name}" for ink, name in names.items())


def _broken(words: str, room: int) -> tuple[str, str]:
    """Return what fits on a line, broken between words where that is possible, and the rest."""
    if cell_len(words) <= room:
        return words, ""
    cut = len(fitted(words, room, "").rstrip())
    at = words.rfind(" ", cut // 2, cut + 1)
    at = cut if at < 0 else at
    return words[:at].rstrip(), words[at:].lstrip()
