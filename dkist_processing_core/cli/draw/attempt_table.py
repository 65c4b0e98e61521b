"""
The running attempts as a table: how long each takes, how far it is, and when its last sign of life was. Below them are
the runs of which no attempt runs.

Not here: the choice of the attempts (collect.questions), and the widths of the columns (draw.table).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.collect.questions.answers import StoredAttempt, StoredRun
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import State
from dkist_processing_core.text import amount, duration
from dkist_processing_core.text.console import ATTENTION

SILENT_SECONDS = 600.0
"""From this time on, the last sign of life of an attempt is shown in another colour."""
_PERCENT = 100
# A narrower terminal shows the share alone, if the total is known.
_WITH_AMOUNT = 100


def draw_attempts(
    attempts: Sequence[StoredAttempt],
    idle_runs: Sequence[StoredRun] = (),
    *,
    short_id: Callable[[str], str],
    now: datetime,
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of a table of attempts without an end, and of runs that have none.

    Args:
        attempts: The attempts.
        idle_runs: The runs without an end of which no attempt runs.
        short_id: Returns the short id of a run's id.
        now: The time until which they last.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    glyphs, wide = ASCII if ascii_only else UNICODE, is_wide(width)
    columns = [
        Column("run"),
        Column("workflow", least=8),
        *([Column("version", least=5), Column("recipe", is_number=True)] if wide else []),
        Column("task", least=8),
        Column("attempt"),
        *([Column("state"), Column("host", least=8)] if wide else []),
        Column("age", is_number=True),
        Column("silent", is_number=True),
        Column("progress", least=8),
    ]
    lines = []
    for each in attempts:
        style = STYLES[each.state]
        place: list[Cell] = [(each.state.value, style), (each.host or "", "dim")]
        cells: list[Cell] = [
            *_identity(each.run, short_id, wide=wide),
            (each.task_name, "bold"),
            (numbered(each), "dim"),
            *(place if wide else []),
            *_times(each, now, style),
            (progress(each, with_amount=width is None or width >= _WITH_AMOUNT, with_note=wide), ""),
        ]
        lines.append(Line((glyphs.marks[each.state], style), cells, list(alarm_of(each.overdue, now, zone))))
    for run in idle_runs:
        over = sum(count for state, count in run.tasks.items() if state.is_end)
        tasks = f"{over}/{sum(run.tasks.values())} tasks" if run.tasks else ""
        cells = [
            *_identity(run.run, short_id, wide=wide),
            ("no attempt", "dim"),
            *([("", "")] * (3 if wide else 1)),
            *_times(run, now, ""),
            (tasks, ""),
        ]
        alarm = list(alarm_of(run.overdue, now, zone))
        lines.append(Line((glyphs.marks[State.WAITING], STYLES[State.WAITING]), cells, alarm))
    return draw_table(columns, lines, width=width, glyphs=glyphs)


def _identity(run: Run, short_id: Callable[[str], str], *, wide: bool) -> list[Cell]:
    more: list[Cell] = [(run.workflow_version, "dim"), (str(run.recipe_run_id or ""), "")]
    return [(short_id(run.run_id), ""), (run.workflow_name, "dim"), *(more if wide else [])]


def _times(each: StoredAttempt | StoredRun, now: datetime, style: str) -> list[Cell]:
    """Return the time since it began, and since the last report on it."""
    least = "> " if isinstance(each, StoredRun) and not each.is_start_known else ""
    silence = None if each.last_sign_at is None else (now - each.last_sign_at).total_seconds()
    return [
        ("" if each.began_at is None else least + duration(max(0.0, (now - each.began_at).total_seconds())), style),
        (
            "" if silence is None else duration(max(0.0, silence)),
            ATTENTION if silence is not None and silence >= SILENT_SECONDS else "",
        ),
    ]


def numbered(attempt: StoredAttempt) -> str:
    """Return the number of an attempt and of the most possible ones, as far as they are known: `1/3`."""
    if attempt.number is None:
        return ""
    return f"{attempt.number}/{attempt.max_attempts}" if attempt.max_attempts is not None else str(attempt.number)


def progress(attempt: StoredAttempt, *, with_amount: bool, with_note: bool) -> str:
    """Return how far an attempt is: `45 %, 9/20 frame`, or the share alone."""
    if attempt.done is None:
        return ""
    done, total = _exact(attempt.done), None if attempt.total is None else _exact(attempt.total)
    share = f"{_PERCENT * min(1.0, max(0.0, done / total)):.0f} %" if total else ""
    note = f" ({attempt.note})" if with_note and attempt.note else ""
    if share and not with_amount:
        return share
    return f"{share}, " * bool(share) + f"{amount(done, total, attempt.unit)}{note}"


def _exact(value: float) -> float:
    return int(value) if value.is_integer() else value
