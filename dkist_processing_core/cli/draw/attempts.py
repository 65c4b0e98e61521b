"""
The texts about an attempt in the drawings of a run: its label, its mark, and what its row does not show.

Not here: their places (draw.timeline, draw.run_sheet).
"""

from collections.abc import Iterator

from dkist_processing_core.cli.draw.glyphs import DISPUTED_STYLE, RETRIED_STYLE, STYLES, Glyphs
from dkist_processing_core.events import TaskFailed, TaskSkipped
from dkist_processing_core.runs import AttemptView, State, TaskView
from dkist_processing_core.runs.wording.facts import end_detail
from dkist_processing_core.runs.wording.last_place import last_place
from dkist_processing_core.text import amount
from dkist_processing_core.text.terminal import one_line

_SHOWN_FRAMES = 3


def is_retried(attempt: AttemptView, task: TaskView) -> bool:
    """Return True if an attempt failed and is not the last one."""
    return attempt.state is State.FAILED and attempt is not task.attempts[-1]


def mark_of(attempt: AttemptView, task: TaskView, glyphs: Glyphs) -> tuple[str, str]:
    """Return the mark of an attempt and its style."""
    if is_retried(attempt, task):
        return glyphs.retried, RETRIED_STYLE
    return glyphs.marks[attempt.state], STYLES[attempt.state]


def labels_of(task: TaskView) -> list[str]:
    """Return the labels of a task's rows: its name, then the numbers of its further attempts."""
    return [one_line(task.name), *(f"  attempt {attempt.number}" for attempt in task.attempts[1:])]


def details_of(attempt: AttemptView, style: str) -> Iterator[tuple[str, str]]:
    """Yield the details that do not fit into an attempt's row, each with its style."""
    end = attempt.end
    if end is None and attempt.state is State.FAILED:
        yield f"{attempt.cause}: its end was not reported", style
    elif isinstance(end, TaskFailed):
        yield f"{end_detail(end)} (reported only by the engine)" if end.provisional else end_detail(end), style
    elif isinstance(end, TaskSkipped):
        yield _joined("skipped", end_detail(end)), style
    if attempt.progress is not None and attempt.state is not State.FINISHED:
        note = one_line(attempt.progress.note or "")
        reached = amount(attempt.progress.done, attempt.progress.total, one_line(attempt.progress.unit or ""))
        yield f"at {reached}{f' ({note})' if note else ''}", "dim"
    if isinstance(end, TaskFailed) and end.log_url:
        yield f"log: {one_line(end.log_url)}", "dim"
    for other in attempt.contradictions:
        words = _joined(other.name.partition(".")[2], end_detail(other))
        yield f"! the {other.reported_by} reports: {words}", DISPUTED_STYLE


def last_frames_of(attempt: AttemptView) -> Iterator[tuple[str, str]]:
    """Yield where a task was that could not report its failure itself: its deepest frames, each with its style."""
    place = last_place(attempt.end) if isinstance(attempt.end, TaskFailed) else None
    if place is not None:
        yield one_line(place.text), "dim"
        for frame in place.frames[1:_SHOWN_FRAMES]:
            yield one_line(f"called by {frame}"), "dim"


def _joined(verb: str, words: str) -> str:
    return f"{verb}: {words}" if words else verb


def disputes_of(task: TaskView) -> Iterator[tuple[str, str]]:
    """Yield the engine's state of a task, with its style, if it contradicts that of its attempts."""
    if task.disputed_state is not None:
        yield f"! the engine reports it as {task.disputed_state}", DISPUTED_STYLE
