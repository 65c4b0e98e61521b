"""
The runs of a list as a table, and one line about all of them.

Not here: the choice of the runs (collect.questions), and the widths of the columns (draw.table).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.cli.draw.words import local_time, restriction
from dkist_processing_core.collect.questions.answers import StoredRun
from dkist_processing_core.runs import State
from dkist_processing_core.text import counted, duration

_MOST_FAILURES = 3


def draw_runs(
    runs: Sequence[StoredRun],
    *,
    short_id: Callable[[str], str],
    now: datetime,
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of a table of runs, each with its failures below it.

    Args:
        runs: The runs.
        short_id: Returns the short id of a run's id.
        now: The time until which a run without an end lasts.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    glyphs, wide = ASCII if ascii_only else UNICODE, is_wide(width)
    columns = [
        Column("run"),
        Column("workflow", least=10),
        Column("version", least=5),
        Column("recipe", is_number=True),
        Column("began"),
        Column("took", is_number=True),
        Column("tasks", least=5),
        *([Column("last report", is_number=True)] if wide else []),
    ]
    lines = []
    for each in runs:
        style = STYLES[each.state]
        began = "" if each.began_at is None else local_time(each.began_at, _form(wide=wide), zone)
        below = [] if each.is_start_known or not began else [(f"began before {began}: no start was reported", "dim")]
        cells: list[Cell] = [
            (short_id(each.run.run_id), "bold"),
            (each.run.workflow_name, ""),
            (each.run.workflow_version, "dim"),
            ("" if each.run.recipe_run_id is None else str(each.run.recipe_run_id), ""),
            (began if each.is_start_known else "", "dim"),
            (_took(each, now), "" if each.state.is_end else style),
            (_tally(each.tasks, wide=wide), ""),
        ]
        if wide:
            cells.append((f"{_age(each.last_sign_at, now)} ago", "dim"))
        below += [*alarm_of(each.overdue, now, zone), *((text, style) for text in _failures(each))]
        lines.append(Line((glyphs.marks[each.state], style), cells, below))
    return draw_table(columns, lines, width=width, glyphs=glyphs)


def summary(
    states: Mapping[State, int],
    shown: int,
    *,
    since: datetime | None,
    is_of_some: bool = False,
    zone: tzinfo | None = None,
) -> str:
    """Return one line about all chosen runs, of which the table shows some."""
    total = sum(states.values())
    when = restriction(since, is_of_some=is_of_some and not total, zone=zone)
    counts = ", ".join(f"{count} {state.value}" for state, count in states.items())
    more = f"; the latest {shown} are shown, --limit 0 shows all" if shown < total else ""
    return f"{counted(total, 'run')}{when}: {counts}{more}" if total else f"no run{when}"


def _form(*, wide: bool) -> str:
    return "%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"


def _took(run: StoredRun, now: datetime) -> str:
    end = now if not run.state.is_end else run.ended_at
    if run.began_at is None or end is None:
        return ""
    return f"{'' if run.is_start_known else '> '}{duration(max(0.0, (end - run.began_at).total_seconds()))}"


def _age(moment: datetime, now: datetime) -> str:
    return duration(max(0.0, (now - moment).total_seconds()))


def _tally(tasks: Mapping[State, int], *, wide: bool) -> str:
    """
    Return how many of the tasks are over, or how many are in each state.

    >>> tasks = {State.RUNNING: 1, State.FINISHED: 2}
    >>> _tally(tasks, wide=False), _tally(tasks, wide=True)
    ('2/3', '3 tasks: 1 running, 2 finished')
    """
    total = sum(tasks.values())
    if not wide:
        return f"{sum(count for state, count in tasks.items() if state.is_end)}/{total}" if total else ""
    counts = ", ".join(f"{count} {state.value}" for state, count in tasks.items())
    return f"{counted(total, 'task')}: {counts}" if len(tasks) > 1 else " ".join([counted(total, "task"), *tasks])


def _failures(run: StoredRun) -> Iterator[str]:
    for attempt in run.failures[:_MOST_FAILURES]:
        yield f"{attempt.task_name}: {attempt.summary}"
    if (more := len(run.failures) - _MOST_FAILURES) > 0:
        yield f"and {counted(more, 'more failed task')}"
    if run.state is State.FAILED and not run.failures and run.reason:
        yield run.reason
