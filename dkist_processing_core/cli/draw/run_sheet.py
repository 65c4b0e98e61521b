"""
A run with all its attempts as a table: times, measurements, places, and why attempts failed.

Not here: the same run on an axis of time (draw.timeline), and the source of its state (collect).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.attempts import details_of, disputes_of, labels_of, last_frames_of, mark_of
from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE, Glyphs
from dkist_processing_core.cli.draw.heading import heading
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.events import Event, TaskFailed, TaskStarted
from dkist_processing_core.runs import AttemptView, RunView, TaskView
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.runs.wording.facts import measured
from dkist_processing_core.runs.wording.stack import authors_lines
from dkist_processing_core.text import duration, parts_of_attempt

_WITHOUT_TERMINAL = 200
_SHOWN_FRAMES = 6


def draw_run(
    view: RunView,
    reports: Sequence[Event],
    *,
    short_id: str,
    now: datetime,
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of the sheet of a run.

    Args:
        view: The state of the run.
        reports: The reports on it, for the facts that its state does not have.
        short_id: The short id of the run.
        now: The time until which a run or attempt without an end lasts.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    glyphs, moments = ASCII if ascii_only else UNICODE, Moments(view, now)
    yield from heading(view, moments, short_id, width=width or _WITHOUT_TERMINAL, glyphs=glyphs, zone=zone)
    yield Text()
    if not view.tasks:
        return
    wide = is_wide(width)
    columns = [
        Column("task", least=8),
        Column("state"),
        Column("began"),
        Column("took", is_number=True),
        Column("cpu", is_number=True),
        Column("memory", is_number=True),
        Column("host", least=8),
        *([Column("times", least=20)] if wide else []),
    ]
    hosts = {
        (event.task_name, event.attempt): event.host
        for event in reports
        if isinstance(event, TaskStarted) and event.host is not None
    }
    lines: list[Line] = []
    for task in view.tasks:
        lines += _lines(task, moments, hosts, glyphs, now, zone)
    if not wide:
        lines = [Line(line.mark, line.cells[:-1], line.below) for line in lines]
    yield from draw_table(columns, lines, width=width, glyphs=glyphs)


def _lines(
    task: TaskView,
    moments: Moments,
    hosts: dict[tuple[str, int | None], str],
    glyphs: Glyphs,
    now: datetime,
    zone: tzinfo | None,
) -> Iterator[Line]:
    labels = labels_of(task)
    if not task.attempts:
        style = STYLES[task.state]
        words = "upstream failed" if task.engine_state == "upstream_failed" else task.state.value
        yield Line((glyphs.marks[task.state], style), _padded([(labels[0], "bold"), (words, style)]))
    for label, attempt in zip(labels, task.attempts, strict=False):
        mark, style = mark_of(attempt, task, glyphs)
        began = attempt.started_at or attempt.dispatched_at
        seconds = moments.duration(attempt)
        cells: list[Cell] = [
            (label, "bold" if label == labels[0] else ""),
            (attempt.state.value, style),
            ("" if began is None else local_time(began, "%H:%M:%S", zone), "dim"),
            ("" if seconds is None else duration(seconds), ""),
            *((text, "dim") for text in measured(attempt.end)),
            (hosts.get((task.name, attempt.number), ""), "dim"),
            (parts_of_attempt({} if attempt.end is None else attempt.end.phases, attempt.preparation_seconds), "dim"),
        ]
        below = [*alarm_of(attempt.overdue, now, zone), *details_of(attempt, style)]
        if attempt is task.attempts[-1]:
            below += [*last_frames_of(attempt), *_frames(attempt), *disputes_of(task)]
        yield Line((mark, style), cells, below)


def _frames(attempt: AttemptView) -> Iterator[Cell]:
    """Yield the last lines of an exception's stack, without its message, which is shown already."""
    if isinstance(attempt.end, TaskFailed) and attempt.end.stack:
        frames = [line for line in authors_lines(attempt.end.stack) if line.startswith("  ")]
        for line in frames[-_SHOWN_FRAMES:]:
            yield line.removeprefix("  "), "dim"


def _padded(cells: list[Cell]) -> list[Cell]:
    return cells + [("", "")] * (8 - len(cells))
