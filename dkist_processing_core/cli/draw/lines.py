"""
An event as one line for a terminal, coloured by its kind.

Not here: the choice of events (events.show). The text of events is never interpreted as markup.
"""

from collections.abc import Iterator
from datetime import tzinfo

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.words import fitted, local_time
from dkist_processing_core.events import (
    Event,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
)
from dkist_processing_core.identity.short_ids import SHORT, ShortIds
from dkist_processing_core.runs.wording.facts import facts
from dkist_processing_core.text.console import ATTENTION, folded
from dkist_processing_core.text.terminal import one_line

_STYLES: dict[type[Event], str] = {
    WorkflowStarted: "bold",
    WorkflowFinished: "bold green",
    WorkflowFailed: "bold red",
    WorkflowOverdue: ATTENTION,
    TaskProgressed: "dim",
    TaskSampled: "dim",
    TaskFinished: "green",
    TaskFailed: "red",
    TaskSkipped: ATTENTION,
    TaskOverdue: ATTENTION,
}
_WIDEST_NAME = len("workflow.finished")
_WIDEST_COLUMN = 36
# Wide enough for most names: a column that grows in the middle of a list shifts all that follows.
_USUAL = {"run": SHORT, "workflow": 12, "task": 16, "attempt": 3}
_GENEROUS = {"run": SHORT, "workflow": 28, "task": 24, "attempt": 5}
_WITH_COLUMNS = 140
_WITH_INDENT = 60


class EventLines:
    """
    Format events as lines of columns; in a narrow terminal, the columns after the event's name are words of a text.

    Columns have usual widths and grow only for unusual names. In a terminal, lines are folded between words.
    """

    def __init__(
        self,
        *,
        dated: bool = False,
        with_runs: bool = False,
        ascii_only: bool = False,
        width: int | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        """
        Start with columns of the usual widths.

        Args:
            dated: each line has its date, in `zone` or the local time.
            with_runs: each line has the short id of its run, as is needed if there are several runs.
            ascii_only: only ASCII characters are added to the texts of the events.
            width: the width of the terminal in cells; without a terminal, no line is folded.
            zone: the time zone of the times, by default the local one.
        """
        self._format = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"
        self._ellipsis = "..." if ascii_only else "…"
        self._zone = zone
        self._short_ids = ShortIds()
        self._with_runs = with_runs
        self._width = width
        self._has_columns = width is None or width >= _WITH_COLUMNS
        self._widths = dict(_USUAL if width is None else _GENEROUS)

    def lines(self, event: Event) -> Iterator[Text]:
        """Yield the lines of one event: one, or in a terminal as many as it needs."""
        line = self._line(event)
        if self._width is None:
            yield line
            return
        indent = len(self._time(event)) + 1 + (self._widths["run"] + 1 if self._with_runs else 0)
        yield from folded(line, self._width, indent if self._width >= _WITH_INDENT else 2)

    def _line(self, event: Event) -> Text:
        style = style_of(event)
        text_style = "dim" if isinstance(event, TaskProgressed | TaskSampled) else ""
        task = event.task_name if isinstance(event, TaskEvent) else ""
        run, words = one_line(self._short_ids.of(event.run_id)), facts(event)
        if run and not (self._with_runs or task):
            words = f"{words}, run {run}" if words else f"run {run}"
        columns = [(self._time(event), "dim")]
        if self._with_runs:
            columns.append((self._padded("run", run), ""))
        columns += [
            (f"{event.name:{_WIDEST_NAME}}", style),
            (self._column("workflow", event.workflow_name), "dim"),
            (self._column("task", task), text_style or "bold"),
            (self._column("attempt", _attempt(event)), "dim"),
            (words, style if isinstance(event, TaskFailed | WorkflowFailed) else text_style),
        ]
        line = Text(" ").join(Text(text, column_style) for text, column_style in columns if text)
        line.rstrip()
        return line

    def _time(self, event: Event) -> str:
        return local_time(event.time, self._format, self._zone)

    def _column(self, name: str, text: str) -> str:
        return self._padded(name, one_line(text)) if self._has_columns else one_line(text)

    def _padded(self, name: str, text: str) -> str:
        self._widths[name] = min(_WIDEST_COLUMN, max(self._widths[name], cell_len(text)))
        return fitted(text, self._widths[name], self._ellipsis)


def style_of(event: Event) -> str:
    """Return the colour of an event; a failed attempt that is followed by another attempt is not yet a failure."""
    if isinstance(event, TaskFailed) and event.final is False:
        return ATTENTION
    return _STYLES.get(type(event), "")


def _attempt(event: Event) -> str:
    if not isinstance(event, TaskEvent) or event.attempt is None:
        return ""
    if event.max_attempts is None:
        return str(event.attempt)
    return f"{event.attempt}/{event.max_attempts}"
