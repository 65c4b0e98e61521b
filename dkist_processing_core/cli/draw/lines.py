"""
An event as one line for a terminal, coloured by its kind.

Not here: the choice of events (events.show). The text of events is never interpreted as markup.
"""

from datetime import tzinfo

from rich.cells import cell_len
from rich.text import Text

from dkist_processing_core.cli.draw.facts import facts
from dkist_processing_core.cli.draw.words import fitted, local_time, one_line
from dkist_processing_core.events import (
    Event,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    TaskOverdue,
    TaskProgressed,
    TaskSkipped,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.identity.short_ids import SHORT, ShortIds

_STYLES: dict[type[Event], str] = {
    WorkflowStarted: "bold",
    WorkflowFinished: "bold green",
    WorkflowFailed: "bold red",
    TaskProgressed: "dim",
    TaskFinished: "green",
    TaskFailed: "red",
    TaskSkipped: "yellow",
    TaskOverdue: "yellow",
}
_WIDEST_NAME = len("workflow.finished")
_WIDEST_COLUMN = 36


class EventLines:
    """Format events as lines; the columns grow with their contents, so that later lines stay aligned."""

    def __init__(
        self, *, dated: bool = False, with_runs: bool = False, ascii_only: bool = False, zone: tzinfo | None = None
    ) -> None:
        """
        Start with narrow columns.

        Args:
            dated: each line has its date, in `zone` or the local time.
            with_runs: each line has the short id of its run, as is needed if there are several runs.
            ascii_only: only ASCII characters are added to the texts of the events.
            zone: the time zone of the times, by default the local one.
        """
        self._format = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"
        self._ellipsis = "..." if ascii_only else "…"
        self._zone = zone
        self._short_ids = ShortIds()
        self._with_runs = with_runs
        self._widths = {"run": SHORT, "workflow": 0, "task": 0, "attempt": 0}

    def line(self, event: Event) -> Text:
        """Return the line of one event."""
        style = style_of(event)
        text_style = "dim" if isinstance(event, TaskProgressed) else ""
        task = event.task_name if isinstance(event, TaskEvent) else ""
        run, words = one_line(self._short_ids.of(event.run_id)), facts(event)
        if not (self._with_runs or task):
            words = f"{words}, run {run}" if words else f"run {run}"
        line = Text.assemble(
            (local_time(event.time, self._format, self._zone), "dim"),
            " ",
            (f"{self._column('run', run)} " if self._with_runs else "", "cyan"),
            (f"{event.name:{_WIDEST_NAME}}", style),
            " ",
            (self._column("workflow", event.workflow_name), "dim"),
            " ",
            (self._column("task", task), text_style or "bold"),
            " ",
            (self._column("attempt", _attempt(event)), "dim"),
            " ",
            (words, style if isinstance(event, TaskFailed | WorkflowFailed) else text_style),
        )
        line.rstrip()
        return line

    def _column(self, name: str, text: str) -> str:
        text = one_line(text)
        self._widths[name] = min(_WIDEST_COLUMN, max(self._widths[name], cell_len(text)))
        return fitted(text, self._widths[name], self._ellipsis)


def style_of(event: Event) -> str:
    """Return the colour of an event; a failed attempt that is followed by another attempt is not yet a failure."""
    if isinstance(event, TaskFailed) and event.final is False:
        return "yellow"
    return _STYLES.get(type(event), "")


def _attempt(event: Event) -> str:
    if not isinstance(event, TaskEvent) or event.attempt is None:
        return ""
    if event.max_attempts is None:
        return str(event.attempt)
    return f"{event.attempt}/{event.max_attempts}"
