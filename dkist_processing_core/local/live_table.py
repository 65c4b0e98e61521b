"""
The display of a run in a terminal: a live table with a row for each task, and the output of the tasks above it.

Not here: the choice of the display, and plain lines (display).
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer import Selection, Subscription
from dkist_processing_core.errors import BusUnreachableError, DKISTProcessingCoreError
from dkist_processing_core.events import TaskProgressed
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.local._attempt_end import AttemptEnd, outcome_text
from dkist_processing_core.local._display_texts import result_text, write_lines
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import amount, counted, duration
from dkist_processing_core.text.console import ATTENTION
from dkist_processing_core.text.terminal import visible, visible_line

_FOLLOW_SECONDS = 0.1
_AGAIN_SECONDS = 0.5
_MOST_SECONDS = 100
# Lines kept free below the table: for the cursor, and for a line with the number of omitted tasks.
_SPARE_LINES = 3
_BAR = 20
_NOTE = 5
# A narrow terminal has no room for the bar, which repeats the count, and a very narrow one none for time and note: the
# numbers of the columns, and the widths from which they are shown.
_LEAST_WIDTHS = {2: 50, 3: 100, _NOTE: 60}


@dataclass(slots=True)
class _Row:
    state: str = "waiting"
    style: str = "dim"
    began: float | None = None
    next_at: float | None = None
    seconds: float | None = None
    done: float | None = None
    total: float | None = None
    unit: str = ""
    note: str = ""

    def cells(self, name: str) -> list[Text | ProgressBar]:
        """Return the row of a task: name, state, time, progress as a bar and as a count, note."""
        # Read once: another thread may record the end at the same time.
        began = self.began
        seconds = time.monotonic() - began if began is not None else self.seconds
        bar: ProgressBar | Text = Text("")
        if self.done is not None and self.total:
            bar = ProgressBar(total=self.total, completed=self.done, width=_BAR)
        count = "" if self.done is None else amount(self.done, self.total, self.unit)
        return [
            Text(visible_line(name), style="bold" if began is not None else "", overflow="ellipsis", no_wrap=True),
            Text(self._state_now, style=self.style),
            Text("" if seconds is None else f"{seconds:.1f} s" if began else duration(seconds), justify="right"),
            bar,
            Text(visible_line(count)),
            Text(visible_line(self.note), style="dim", overflow="ellipsis", no_wrap=True),
        ]

    @property
    def _state_now(self) -> str:
        """The state, with the time that is left until the next attempt."""
        # Read once: the end of the run removes it in another thread.
        next_at = self.next_at
        if next_at is None:
            return self.state
        left = max(0, math.ceil(next_at - time.monotonic()))
        return f"{self.state} in {left} s" if left < _MOST_SECONDS else f"{self.state} in {left // 60} min"


def _most_telling(rows: list[tuple[str, _Row]], room: int) -> list[tuple[str, _Row]]:
    """Return at most `room` rows, in their order; running tasks are preferred, then failed ones, then waiting ones."""
    importance = {"running": 0, "failed": 1, "retry": 1, "waiting": 2}
    ranked = sorted(range(len(rows)), key=lambda at: (importance.get(rows[at][1].state.split()[0], 3), at))
    return [rows[at] for at in sorted(ranked[:room])]


class LiveDisplay:
    """A table with a row for each task; the output of the tasks scrolls above it."""

    def __init__(self, console: Console, names: Sequence[str], *, with_output: bool = True) -> None:
        """Store the tasks to show, in this order, and whether their output is shown above the table."""
        self._console = console
        self._with_output = with_output
        self.ending = Text("")
        """The result of the run; it is shown below the final table."""
        self._rows = {name: _Row() for name in names}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the table, which leave two cells free: the terminal prints ^C behind the last line."""
        room = max(1, options.max_width - len("^C"))
        # Only the note fills its column up to the end of the line; behind another last column there are blanks.
        has_note = options.max_width >= _LEAST_WIDTHS[_NOTE]
        for line in console.render_lines(self._table(), options.update_width(room) if has_note else options, pad=False):
            yield from Segment.adjust_line_length(line, room, pad=False)
            yield Segment.line()

    def _table(self) -> Table:
        """Return the current table: every task, or the most important ones if the terminal has too few lines."""
        width = self._console.width
        # Room for the usual texts from the beginning: the columns do not move while the run goes on.
        columns = [
            Column(max_width=max(8, 3 * width // 10), no_wrap=True),
            Column(min_width=len("retry in 42 s"), no_wrap=True),
            Column(min_width=len("2 min 05 s"), no_wrap=True, justify="right"),
            Column(min_width=_BAR, no_wrap=True),
            Column(min_width=len("12/12 frame"), no_wrap=True),
            Column(),
        ]
        kept = [at for at in range(len(columns)) if width >= _LEAST_WIDTHS.get(at, 0)]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.columns = [columns[at] for at in kept]
        rows = list(self._rows.items())
        room = max(1, self._console.height - _SPARE_LINES)
        shown = rows if len(rows) <= room else _most_telling(rows, room)
        for name, row in shown:
            cells = row.cells(name)
            table.add_row(*(cells[at] for at in kept))
        if len(shown) < len(rows):
            table.add_row(Text(f"and {counted(len(rows) - len(shown), 'other')}", style="dim"))
        return table

    @contextlib.contextmanager
    def following(self, run: Run, settings: Settings) -> Iterator[None]:
        """
        Show progress from the bus, as any other subscriber receives it; a thread reads it until the display ends.

        As long as the bus does not answer, there are no progress bars, but no time is lost: nothing waits for the
        thread.
        """
        is_over = threading.Event()

        def follow() -> None:
            with contextlib.suppress(DKISTProcessingCoreError):
                while not is_over.is_set():
                    # A broker may still be starting. At the first run, it creates its archive.
                    with contextlib.suppress(BusUnreachableError):
                        self._follow(run, settings, is_over)
                    is_over.wait(_AGAIN_SECONDS)

        thread = threading.Thread(target=follow, name="dkist-core-display", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(2 * _FOLLOW_SECONDS)

    def _follow(self, run: Run, settings: Settings, is_over: threading.Event) -> None:
        selection = Selection(("task.progressed",), run.workflow_name)
        receiver = open_bus(settings).subscribe(selection.patterns, only_watches=True)
        with Subscription(receiver, selection, timeout=_FOLLOW_SECONDS) as events:
            while not is_over.is_set():
                for event in events:
                    if isinstance(event, TaskProgressed) and event.run_id == run.run_id:
                        self.task_progressed(event)

    def task_progressed(self, event: TaskProgressed) -> None:
        """Show the progress that a task of the run reported."""
        row = self._rows.get(event.task_name)
        if row is not None:
            row.done, row.total = event.done, event.total
            row.unit, row.note = event.unit or "", event.note or ""

    def attempt_started(self, attempt: Attempt) -> None:
        """Show the attempt as running."""
        of = f" {attempt.attempt}/{attempt.max_attempts}" if attempt.max_attempts > 1 else ""
        self._rows[attempt.task_name] = _Row(f"running{of}", "cyan", began=time.monotonic())

    def attempt_ended(self, end: AttemptEnd, *, succeeded: bool, next_in: float | None = None) -> None:
        """Show how the attempt ended."""
        attempt, row = end.attempt, self._rows[end.attempt.task_name]
        row.began, row.seconds = None, end.duration_seconds
        row.note = end.error or ", ".join(filter(None, (row.note, end.parts)))
        of = f" {attempt.attempt}/{attempt.max_attempts}" if attempt.attempt > 1 else ""
        row.state, row.style = (f"finished{of}", "green") if succeeded else (f"failed{of}", "bold red")
        if next_in is not None:
            row.state, row.style = "retry", ATTENTION
            row.next_at = time.monotonic() + next_in
        if succeeded and row.done is not None:
            row.done = row.total if row.total is not None else row.done
        if not succeeded:
            text = outcome_text(end, succeeded=succeeded, next_in=next_in)
            self._console.print(Text(visible(f"{attempt.task_name} {text}"), style="red"))

    def task_not_run(self, name: str) -> None:
        """Show that a task is not run."""
        self._rows[name] = _Row("not run", ATTENTION)

    def output(self, name: str, lines: Sequence[str]) -> None:
        """Show a task's lines above the table; if the standard output is not the terminal, write them there."""
        if not self._with_output:
            write_lines(name, lines)
            return
        # The text is neither styled nor wrapped: a task that writes much must not wait for this.
        self._console.out("\n".join(f"{name} | {line}" for line in lines), highlight=False)

    def detail(self, name: str, text: str) -> None:
        """Show a detail above the table."""
        self._console.print(Text(visible(f"{name}: {text}"), style="dim"), soft_wrap=True)

    def stopping(self, text: str) -> None:
        """Show above the table why the run is stopped."""
        self._console.print(Text(visible(text), style="bold"))

    def run_ended(self, *, succeeded: bool, reason: str | None = None) -> None:
        """Store how the run ended; no further attempt begins."""
        for row in self._rows.values():
            if row.state == "waiting":
                row.state, row.style = "not run", ATTENTION
            if row.next_at is not None:
                row.state, row.style, row.next_at = "failed", "bold red", None
        self.ending = Text(result_text(reason, succeeded=succeeded), "bold green" if succeeded else "bold red")
