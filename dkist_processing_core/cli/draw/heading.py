"""
The heading of a run's timeline: the run's identity, its result, and the results of its tasks.

Not here: the tasks themselves (draw.timeline).
"""

from collections.abc import Iterable, Iterator
from datetime import tzinfo

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import DISPUTED_STYLE, STYLES, Glyphs
from dkist_processing_core.cli.draw.overdue import alarm_of
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.runs import RunView, State, stated_times
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.runs.wording.facts import named_recipe_run
from dkist_processing_core.text import counted, duration
from dkist_processing_core.text.console import folded
from dkist_processing_core.text.terminal import one_line

_INDENT = 2
_FORM = "%Y-%m-%d %H:%M:%S"
_MAX_IMPLAUSIBLE = 3


def heading(
    view: RunView, moments: Moments, short_id: str, *, width: int, glyphs: Glyphs, zone: tzinfo | None
) -> Iterator[Text]:
    """Yield the lines, as few as the width allows; they have the short id of the run, and its whole id."""
    run, style = view.run, STYLES[view.state]
    yield from flow(
        [
            Text.assemble(
                (f"{glyphs.marks[view.state]} ", style),
                (f"{one_line(run.workflow_name)} {one_line(run.workflow_version)}", "bold"),
            ),
            Text.assemble((_outcome(view, moments), style)),
            Text.assemble((_tally(view), "dim")),
        ],
        width=width,
        separator=glyphs.separator,
    )
    has_no_time = view.started_at is None and view.implausible
    before = "" if view.is_start_known else "before "
    about = [
        " " * _INDENT + named_recipe_run(run.recipe_run_id),
        "began at an implausible time" if has_no_time else f"began {before}{local_time(moments.span[0], _FORM, zone)}",
        f"run {one_line(short_id)}",
        *([f"id {one_line(run.run_id)}"] if short_id != run.run_id else []),
    ]
    yield from flow([Text.assemble((part, "dim")) for part in about], width=width, separator=glyphs.separator)
    if view.reason:
        yield from folded(Text.assemble(" " * _INDENT, (one_line(view.reason), style)), width, 2 * _INDENT)
    for words, of_alarm in alarm_of(view.overdue, moments.span[1], zone):
        yield from folded(Text.assemble(" " * _INDENT, (words, of_alarm)), width, 2 * _INDENT)
    remarks = []
    if view.is_disputed:
        remarks.append(f"the engine reports the run as {view.verdict}")
    for event in view.implausible[:_MAX_IMPLAUSIBLE]:
        times = " and ".join(local_time(moment, _FORM, zone) for moment in dict.fromkeys(stated_times(event)))
        remarks.append(f"implausible and not drawn: the {event.reported_by} reports {event.name} at {times}")
    if (more := len(view.implausible) - _MAX_IMPLAUSIBLE) > 0:
        remarks.append(f"and {counted(more, 'more report')} with implausible times")
    for remark in remarks:
        yield from folded(Text.assemble(" " * _INDENT, (f"! {remark}", DISPUTED_STYLE)), width, 2 * _INDENT)


def flow(parts: Iterable[Text], *, width: int, separator: str) -> Iterator[Text]:
    """Yield the parts in sequence, on as many lines as they need."""
    line = Text()
    for part in parts:
        if not line:
            line.append_text(part)
        elif line.cell_len + len(separator) + part.cell_len <= width:
            line.append(separator, "dim").append_text(part)
        else:
            yield from folded(line, width, 2 * _INDENT)
            line = Text(" " * _INDENT).append_text(part)
    yield from folded(line, width, 2 * _INDENT)


def _outcome(view: RunView, moments: Moments) -> str:
    begin, end = moments.span
    took = f"{'' if view.is_start_known else 'more than '}{duration((end - begin).total_seconds())}"
    match view.state:
        case State.FINISHED:
            return f"finished in {took}"
        case State.FAILED if view.verdict is not None and view.ended_at is None:
            return f"failed at an unknown time, last sign of life after {took}"
        case State.FAILED:
            return f"failed after {took}"
        case state:
            return f"{state.value} for {took}"


def _tally(view: RunView) -> str:
    states = [task.state for task in view.tasks]
    tasks = counted(len(states), "task")
    counts = [f"{states.count(state)} {state.value}" for state in State if state in states]
    return tasks if set(states) <= {view.state} else f"{tasks}: {', '.join(counts)}"
