"""
One family of failures: its counts, its occurrences as a table, the stack of the last one, and the next steps.

Not here: the table of all families (draw.failure_table), and the next steps (store.next_steps).
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.attempt_table import numbered
from dkist_processing_core.cli.draw.glyphs import ASCII, RETRIED_STYLE, STYLES, UNICODE, Glyphs
from dkist_processing_core.cli.draw.heading import flow
from dkist_processing_core.cli.draw.table import Cell, Column, Line, draw_table, is_wide
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.collect.questions.answers import Family, FirstFailure, StoredAttempt, WholeFamily
from dkist_processing_core.runs import State
from dkist_processing_core.runs.wording.stack import authors_lines
from dkist_processing_core.text import counted, duration
from dkist_processing_core.text.console import folded
from dkist_processing_core.text.terminal import visible

_WITHOUT_TERMINAL = 200
_INDENT = 2
_FORM = "%Y-%m-%d %H:%M:%S"


def draw_family(
    whole: WholeFamily,
    *,
    steps: Iterable[tuple[str, str]],
    short_id: Callable[[str], str],
    width: int | None,
    ascii_only: bool = False,
    zone: tzinfo | None = None,
) -> Iterator[Text]:
    """
    Yield the lines of the sheet of a family.

    Args:
        whole: The family.
        steps: What to do next, each step with its reason.
        short_id: Returns the short id of a run's id.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
        zone: The time zone of the times, by default the local one.
    """
    family = whole.family
    glyphs, room = ASCII if ascii_only else UNICODE, width or _WITHOUT_TERMINAL
    mark, style = family_mark(family, glyphs)
    yield from folded(Text.assemble((f"{mark} {visible(family.last.summary or '')}", style)), room, 2 * _INDENT)
    of_tasks = "the task" if len(family.tasks) == 1 else "its tasks"
    finished = counted(whole.finished_since, "attempt") if whole.finished_since else "no attempt"
    about = [
        f"  {counted(family.count, 'failed attempt')} in {affected(family)}",
        f"{family.final:,} final",
        f"family {family.family}",
        f"first {local_time(family.first_at, _FORM, zone)}",
        f"last {local_time(family.last_at, _FORM, zone)}",
        f"since then {finished} of {of_tasks} finished",
        *([] if family.first is None else [first_bad_version(family.first)]),
    ]
    yield from flow([Text.assemble((part, "dim")) for part in about], width=room, separator=glyphs.separator)
    yield Text()
    yield from _table(whole, short_id, width, glyphs, zone)
    if (more := family.count - len(whole.failures)) > 0:
        yield from folded(Text(f"  and {counted(more, 'earlier attempt')}; --limit 0 shows all", "dim"), room, _INDENT)
    if whole.stack is not None:
        yield from _block(
            "the last one was raised here", ((line, "", "") for line in authors_lines(whole.stack)), width
        )
    yield from _block("what to do next", (("  ", step, f": {reason}") for step, reason in steps), width)


def affected(family: Family) -> str:
    """Return how many runs a family affects, and of how many recipe runs, as far as these are known."""
    of_recipe_runs = f" of {counted(family.recipe_runs, 'recipe run')}" if family.recipe_runs else ""
    return f"{counted(family.runs, 'run')}{of_recipe_runs}"


def first_bad_version(first: FirstFailure) -> str:
    """Return in which version a family occurred first, and the last version before that ran the task without it."""
    good = "" if first.last_good_version is None else f", not in {first.last_good_version}"
    return f"first in version {first.version} of {first.workflow_name}{good}"


def family_mark(family: Family, glyphs: Glyphs) -> tuple[str, str]:
    """Return the mark of a family and its style: whether a task has failed for good, or only attempts of it."""
    if family.final:
        return glyphs.marks[State.FAILED], STYLES[State.FAILED]
    return glyphs.retried, RETRIED_STYLE


def _table(
    whole: WholeFamily,
    short_id: Callable[[str], str],
    width: int | None,
    glyphs: Glyphs,
    zone: tzinfo | None,
) -> Iterator[Text]:
    wide = is_wide(width)
    columns = [
        Column("run"),
        Column("workflow", least=8),
        Column("version", least=5),
        *([Column("recipe", is_number=True)] if wide else []),
        Column("task", least=8),
        Column("attempt"),
        Column("failed"),
        *([Column("took", is_number=True), Column("host", least=8)] if wide else []),
    ]
    lines = []
    for each in whole.failures:
        mark, style = _mark(each, glyphs)
        took = "" if each.duration_seconds is None else duration(each.duration_seconds)
        recipe, place = [(str(each.run.recipe_run_id or ""), "")], [(took, "dim"), (each.host or "", "dim")]
        cells: list[Cell] = [
            (short_id(each.run.run_id), "bold"),
            (each.run.workflow_name, ""),
            (each.run.workflow_version, "dim"),
            *(recipe if wide else []),
            (each.task_name, "bold"),
            (numbered(each), ""),
            ("" if each.failed_at is None else local_time(each.failed_at, _FORM if wide else "%m-%d %H:%M", zone), ""),
            *(place if wide else []),
        ]
        # The exception is the same, its message may differ.
        differs = each.summary is not None and each.summary != whole.family.last.summary
        lines.append(Line((mark, style), cells, [(each.summary or "", style)] if differs else []))
    yield from draw_table(columns, lines, width=width, glyphs=glyphs)


def _mark(failure: StoredAttempt, glyphs: Glyphs) -> tuple[str, str]:
    return (glyphs.marks[State.FAILED], STYLES[State.FAILED]) if failure.is_final else (glyphs.retried, RETRIED_STYLE)


def _block(title: str, lines: Iterator[tuple[str, str, str]], width: int | None) -> Iterator[Text]:
    """Yield a title and lines of three parts, the second of which is not dim."""
    yield Text()
    yield from folded(Text(f"  {title}", "dim"), width or _WITHOUT_TERMINAL, _INDENT)
    for before, text, after in lines:
        line = Text.assemble((f"  {visible(before)}", "dim"), visible(text), (visible(after), "dim"))
        yield from [line] if width is None else folded(line, width, 3 * _INDENT)
