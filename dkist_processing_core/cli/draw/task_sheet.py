"""
A task of a run with everything that is known about each of its attempts.

Not here: the whole run (draw.run_sheet), and the texts about resources (runs.wording.usage, draw.course).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.attempts import details_of, disputes_of, mark_of
from dkist_processing_core.cli.draw.course import MOST_CELLS, course
from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE, Glyphs
from dkist_processing_core.cli.draw.heading import flow
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.sheet import INDENT, LABEL, Sheet
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.events import Event, TaskFailed, TaskSampled, TaskStarted
from dkist_processing_core.runs import AttemptView, RunView, TaskView
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.runs.wording.facts import measured, named_recipe_run
from dkist_processing_core.runs.wording.stack import authors_lines
from dkist_processing_core.runs.wording.usage import used
from dkist_processing_core.text import duration, parts_of_attempt
from dkist_processing_core.text.terminal import one_line

_LEAST_CELLS = 8
_ROOM_OF_VALUE = 16


def draw_task(
    view: RunView,
    task: TaskView,
    reports: Sequence[Event],
    *,
    short_id: str,
    now: datetime,
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of the sheet of a task.

    Args:
        view: The state of the run.
        task: The task in it.
        reports: The reports on the run, for the facts that its state does not have.
        short_id: The short id of the run.
        now: The time until which an attempt without an end lasts.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    glyphs, sheet = ASCII if ascii_only else UNICODE, Sheet(width)
    run, style = view.run, STYLES[task.state]
    about = [
        Text.assemble(
            (f"{glyphs.marks[task.state]} ", style), (one_line(task.name), "bold"), (f" {task.state}", style)
        ),
        Text(f"{one_line(run.workflow_name)} {one_line(run.workflow_version)}", "dim"),
        Text(named_recipe_run(run.recipe_run_id), "dim"),
        Text(f"run {one_line(short_id)}", "dim"),
    ]
    yield from flow(about, width=sheet.room, separator=glyphs.separator)
    attempts = _Attempts(task, Moments(view, now), reports, now, sheet, glyphs, zone)
    for attempt in task.attempts:
        yield Text()
        yield from attempts.attempt(attempt)
    for words, of_dispute in disputes_of(task):
        yield from sheet.line(words, of_dispute)


@dataclass(frozen=True, slots=True)
class _Attempts:
    task: TaskView
    moments: Moments
    reports: Sequence[Event]
    now: datetime
    sheet: Sheet
    glyphs: Glyphs
    zone: tzinfo | None

    def attempt(self, attempt: AttemptView) -> Iterator[Text]:
        """Yield the lines about an attempt: its end first, then its last signs, then what it used."""
        mark, style = mark_of(attempt, self.task, self.glyphs)
        seconds = self.moments.duration(attempt)
        number = "a call by hand" if attempt.number is None else f"attempt {attempt.number}"
        took = "" if seconds is None else f" {'for' if attempt.end is None else 'after'} {duration(seconds)}"
        about = [Text.assemble((f"{mark} ", style), (number, "bold")), Text(f"{attempt.state}{took}", style)]
        about += [Text(place, "dim") for place in self._places(attempt)]
        yield from flow(about, width=self.sheet.room, separator=self.glyphs.separator)
        alarm = alarm_of(attempt.overdue, self.now, self.zone)
        for words, of_detail in (*alarm, *details_of(attempt, style)):
            yield from self.sheet.line(words, of_detail)
        yield from self.sheet.row("times", self._times(attempt))
        phases = parts_of_attempt({} if attempt.end is None else attempt.end.phases, attempt.preparation_seconds)
        yield from self.sheet.row("of these", phases)
        if isinstance(attempt.end, TaskFailed):
            yield from self._failure(attempt.end)
        if attempt.end is not None:
            yield from self._end(attempt, seconds)
        elif attempt.sample is not None:
            yield from self._sample(attempt.sample, seconds)

    def _places(self, attempt: AttemptView) -> Iterator[str]:
        """Yield where the attempt ran."""
        for event in self.reports:
            if not isinstance(event, TaskStarted) or (event.task_name, event.attempt) != (
                self.task.name,
                attempt.number,
            ):
                continue
            if event.host is not None:
                yield f"on {one_line(event.host)}"
            if event.pid is not None:
                yield f"pid {event.pid}"
            return

    def _times(self, attempt: AttemptView) -> str:
        times = {"dispatched": attempt.dispatched_at, "started": attempt.started_at, "ended": attempt.ended_at}
        known = [f"{name} {local_time(at, '%H:%M:%S', self.zone)}" for name, at in times.items() if at is not None]
        if attempt.overdue_after_seconds is not None:
            known.append(f"overdue after {duration(attempt.overdue_after_seconds)}")
        return ", ".join(known)

    def _failure(self, end: TaskFailed) -> Iterator[Text]:
        """Yield what a failure left: the exception, or the last signs of a task that was killed."""
        if end.message and end.message.strip().count("\n"):
            yield from self.sheet.block("message", end.message.splitlines())
        if end.stack:
            yield from self.sheet.block("stack", authors_lines(end.stack))
        yield from self.sheet.row("last phase", _aged(end.last_phase, end.last_phase_age_seconds, "entered "))
        yield from self.sheet.row("last progress", _aged(end.last_progress, end.last_progress_age_seconds))
        for name, text, age in (
            ("last stack", end.last_stack, end.last_stack_age_seconds),
            ("last log", end.last_log, end.last_log_age_seconds),
        ):
            if text:
                yield from self.sheet.block(_aged(name, age), text.splitlines())

    def _end(self, attempt: AttemptView, seconds: float | None) -> Iterator[Text]:
        """Yield what an attempt has used."""
        end = attempt.end
        assert end is not None
        if end.resources is not None:
            yield from self.sheet.rows(used(end.resources, seconds))
        else:
            cpu, peak = measured(end)
            yield from self.sheet.row("memory", f"{peak} at most, in one process" if peak else "")
            yield from self.sheet.row("CPU", cpu)
        if end.profile:
            cells = min(MOST_CELLS, self.sheet.room - INDENT - LABEL - _ROOM_OF_VALUE)
            if cells >= _LEAST_CELLS:
                yield from self.sheet.line("over time, with the largest value of each", "dim")
                yield from self.sheet.rows(course(end.profile, cells, self.glyphs))

    def _sample(self, sample: TaskSampled, seconds: float | None) -> Iterator[Text]:
        """Yield the latest sign of life of a running attempt."""
        ago = max(0.0, (self.now - sample.time).total_seconds())
        until = None if seconds is None else max(0.0, seconds - ago)
        at = f"{duration(ago)} ago"
        yield from self.sheet.row("last sample", f"{at}, in {one_line(sample.top_frame)}" if sample.top_frame else at)
        if sample.resources is not None:
            yield from self.sheet.rows(used(sample.resources, until))


def _aged(text: str | None, age: float | None, before: str = "") -> str:
    """Return a text with its age at the end of the attempt."""
    return f"{text}, {before}{duration(age)} before the end" if text and age is not None else text or ""
