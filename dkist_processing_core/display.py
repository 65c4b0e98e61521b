"""
What a run on this host shows while it goes on: a live table in a terminal, plain lines elsewhere.

Not here: what is done (local), and what is shown of runs afterwards (cli).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import TaskProgressed
from dkist_processing_core.identity import Attempt, Run

_FOLLOW_SECONDS = 0.1


class Display(Protocol):
    """What the engine tells of; calls come from several threads."""

    def attempt_started(self, attempt: Attempt) -> None:
        """An attempt begins."""

    def attempt_ended(self, attempt: Attempt, *, succeeded: bool, exit_code: int, seconds: float) -> None:
        """An attempt ended."""

    def task_given_up(self, name: str) -> None:
        """A task is not run, since one that it waits for failed."""

    def output(self, name: str, line: str) -> None:
        """A task wrote a line."""

    def run_ended(self, *, succeeded: bool) -> None:
        """Everything has ended."""


@contextlib.contextmanager
def open_display(run: Run, names: Sequence[str], settings: DKISTProcessingCoreConfiguration) -> Iterator[Display]:
    """Show a run on the standard error stream for as long as it lasts, in the way that suits what that stream is."""
    console = Console(stderr=True)
    console.print(f"{run.workflow_name} {run.workflow_version}, run {run.run_id}", highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console, names)
    with display.following(run, settings), Live(display, console=console, refresh_per_second=8):
        yield display
    console.print(display.ending)


def outcome_text(attempt: Attempt, *, succeeded: bool, exit_code: int, seconds: float) -> str:
    """Return how an attempt ended, in a few words."""
    if succeeded:
        return f"finished in {seconds:.1f} s"
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    retry = "" if attempt.is_final else f", attempt {attempt.attempt + 1} of {attempt.max_attempts} follows"
    return f"failed after {seconds:.1f} s ({how}){retry}"


class PlainDisplay:
    """One line for each thing that happens; tasks' own output goes to the standard output stream."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console

    def _line(self, name: str, text: str) -> None:
        self._console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)

    def attempt_started(self, attempt: Attempt) -> None:
        """Say which attempt begins."""
        of = f" (attempt {attempt.attempt} of {attempt.max_attempts})" if attempt.max_attempts > 1 else ""
        self._line(attempt.task_name, f"started{of}")

    def attempt_ended(self, attempt: Attempt, *, succeeded: bool, exit_code: int, seconds: float) -> None:
        """Say how it ended."""
        self._line(attempt.task_name, outcome_text(attempt, succeeded=succeeded, exit_code=exit_code, seconds=seconds))

    def task_given_up(self, name: str) -> None:
        """Say that a task is not run."""
        self._line(name, "not run: a task that it waits for failed")

    def output(self, name: str, line: str) -> None:
        """Pass a task's line on, with its name before it."""
        sys.stdout.write(f"{name} | {line}\n")
        sys.stdout.flush()

    def run_ended(self, *, succeeded: bool) -> None:
        """Say how the run ended."""
        self._console.print("run finished" if succeeded else "run failed", highlight=False)


@dataclass(slots=True)
class _Row:
    state: str = "waiting"
    style: str = "dim"
    began: float | None = None
    seconds: float | None = None
    done: float | None = None
    total: float | None = None
    unit: str = ""
    note: str = ""


class LiveDisplay:
    """A table with a row for each task; tasks' own output scrolls by above it."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        """Show these tasks, in this order."""
        self._console = console
        self.ending = Text("")
        """How the run ended: to be shown below the table, once that stands still."""
        self._rows = {name: _Row() for name in names}

    def __rich__(self) -> Table:
        """Return the table as it is now."""
        table = Table.grid(padding=(0, 2))
        for name, row in list(self._rows.items()):
            seconds = time.monotonic() - row.began if row.began is not None else row.seconds
            bar: ProgressBar | Text = Text("")
            if row.done is not None and row.total:
                bar = ProgressBar(total=row.total, completed=row.done, width=20)
            elif row.done is not None:
                bar = Text(f"{row.done:g} {row.unit}", style="dim")
            table.add_row(
                Text(name, style="bold" if row.began is not None else ""),
                Text(row.state, style=row.style),
                Text("" if seconds is None else f"{seconds:.1f} s", justify="right"),
                bar,
                Text(row.note, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return table

    @contextlib.contextmanager
    def following(self, run: Run, settings: DKISTProcessingCoreConfiguration) -> Iterator[None]:
        """
        Show progress as everybody sees it: from the bus, read by a thread until the display ends.

        A bus that does not answer costs the bars, and no time: nothing waits for the thread.
        """
        is_over = threading.Event()

        def follow() -> None:
            with (
                contextlib.suppress(DKISTProcessingCoreError),
                subscribe(
                    "task.progressed", workflow=run.workflow_name, timeout=_FOLLOW_SECONDS, settings=settings
                ) as events,
            ):
                while not is_over.is_set():
                    for event in events:
                        if isinstance(event, TaskProgressed) and event.run_id == run.run_id:
                            self._show_progress(event)

        thread = threading.Thread(target=follow, name="dkist-core-display", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(2 * _FOLLOW_SECONDS)

    def _show_progress(self, event: TaskProgressed) -> None:
        row = self._rows.get(event.task_name)
        if row is not None:
            row.done, row.total = event.done, event.total
            row.unit, row.note = event.unit or "", event.note or ""

    def attempt_started(self, attempt: Attempt) -> None:
        """Show the attempt as running."""
        of = f" {attempt.attempt}/{attempt.max_attempts}" if attempt.max_attempts > 1 else ""
        self._rows[attempt.task_name] = _Row(f"running{of}", "cyan", began=time.monotonic())

    def attempt_ended(self, attempt: Attempt, *, succeeded: bool, exit_code: int, seconds: float) -> None:
        """Show how it ended."""
        row = self._rows[attempt.task_name]
        row.began, row.seconds = None, seconds
        row.state, row.style = ("finished", "green") if succeeded else ("failed", "bold red")
        if succeeded and row.done is not None:
            row.done = row.total if row.total is not None else row.done
        if not succeeded:
            text = outcome_text(attempt, succeeded=succeeded, exit_code=exit_code, seconds=seconds)
            self._console.print(Text(f"{attempt.task_name} {text}", style="red"))

    def task_given_up(self, name: str) -> None:
        """Show that a task is not run."""
        self._rows[name] = _Row("not run", "yellow")

    def output(self, name: str, line: str) -> None:
        """Let a task's line scroll by."""
        self._console.print(Text.assemble((f"{name} | ", "dim"), line), soft_wrap=True)

    def run_ended(self, *, succeeded: bool) -> None:
        """Note how the run ended."""
        self.ending = Text(*(("run finished", "bold green") if succeeded else ("run failed", "bold red")))
