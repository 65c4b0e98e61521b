"""
The display of a run on this host while it runs: its choice, and plain lines where there is no terminal.

Not here: the table in a terminal (live_table), running the tasks (engine), and the output about earlier runs (cli).
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dkist_processing_core.bus import unexpected_bus
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.short_ids import ShortIds
from dkist_processing_core.local._attempt_end import AttemptEnd, outcome_text
from dkist_processing_core.local._display_texts import result_text, write_lines
from dkist_processing_core.local.live_table import LiveDisplay
from dkist_processing_core.process.thread_limits import can_start_threads
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text.console import Terminal, folded
from dkist_processing_core.text.terminal import visible


class Display(Protocol):
    """The events of a run that are shown; several threads call these methods."""

    def attempt_started(self, attempt: Attempt) -> None:
        """An attempt begins."""

    def attempt_ended(self, end: AttemptEnd, *, succeeded: bool, next_in: float | None = None) -> None:
        """An attempt ended; `next_in` is the time until the next one of its task, in seconds, or None."""

    def task_not_run(self, name: str) -> None:
        """A task is not run, since a task that it depends on failed."""

    def output(self, name: str, lines: Sequence[str]) -> None:
        """A task wrote lines."""

    def detail(self, name: str, text: str) -> None:
        """A detail of a task or of the run, for users who want to see more."""

    def stopping(self, text: str) -> None:
        """The run is being stopped; the text states why, and how the user can force it."""

    def run_ended(self, *, succeeded: bool, reason: str | None = None) -> None:
        """The run has ended."""


@contextlib.contextmanager
def open_display(run: Run, names: Sequence[str], settings: Settings) -> Iterator[Display]:
    """Show a run on the standard error stream until it ends: a live table on a terminal, plain lines elsewhere."""
    console = Terminal(stderr=True)
    header = [f"{run.workflow_name} {run.workflow_version}, run {ShortIds().of(run.run_id)}", unexpected_bus(settings)]
    try:
        for line in filter(None, header):
            for part in folded(Text(visible(line)), console.columns or cell_len(visible(line)), 2):
                console.print(part, soft_wrap=True)
    except (OSError, ValueError, AttributeError, SystemExit):
        # No process reads the error stream, or it is closed; rich raises SystemExit then.
        yield SilentDisplay()
        return
    # Separate threads draw the live table.
    if not (console.is_terminal and can_start_threads()) or console.is_dumb_terminal:
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console, names, with_output=sys.stdout is not None and sys.stdout.isatty())
    try:
        with display.following(run, settings), Live(display, console=console, refresh_per_second=8):
            yield display
    finally:
        console.print(display.ending)


class SilentDisplay:
    """Shows nothing; used if the standard error stream cannot be written to."""

    def attempt_started(self, attempt: Attempt) -> None:
        """Show nothing."""

    def attempt_ended(self, end: AttemptEnd, *, succeeded: bool, next_in: float | None = None) -> None:
        """Show nothing."""

    def task_not_run(self, name: str) -> None:
        """Show nothing."""

    def output(self, name: str, lines: Sequence[str]) -> None:
        """Show nothing."""

    def detail(self, name: str, text: str) -> None:
        """Show nothing."""

    def stopping(self, text: str) -> None:
        """Show nothing."""

    def run_ended(self, *, succeeded: bool, reason: str | None = None) -> None:
        """Show nothing."""


class PlainDisplay:
    """Writes one line for each event of the run; the output of tasks goes to the standard output stream."""

    def __init__(self, console: Console) -> None:
        """Store the console."""
        self._console = console

    def _line(self, name: str, text: str) -> None:
        self._console.print(visible(f"{name}: {text}"), highlight=False, markup=False, soft_wrap=True)

    def attempt_started(self, attempt: Attempt) -> None:
        """Write which attempt begins."""
        of = f" (attempt {attempt.attempt} of {attempt.max_attempts})" if attempt.max_attempts > 1 else ""
        self._line(attempt.task_name, f"started{of}")

    def attempt_ended(self, end: AttemptEnd, *, succeeded: bool, next_in: float | None = None) -> None:
        """Write how the attempt ended."""
        self._line(end.attempt.task_name, outcome_text(end, succeeded=succeeded, next_in=next_in))

    def task_not_run(self, name: str) -> None:
        """Write that a task is not run."""
        self._line(name, "not run: an upstream task failed")

    def output(self, name: str, lines: Sequence[str]) -> None:
        """Write a task's lines, with its name before each."""
        write_lines(name, lines)

    def detail(self, name: str, text: str) -> None:
        """Write a detail."""
        self._line(name, text)

    def stopping(self, text: str) -> None:
        """Write why the run is stopped."""
        self._console.print(visible(text), highlight=False, markup=False, soft_wrap=True)

    def run_ended(self, *, succeeded: bool, reason: str | None = None) -> None:
        """Write how the run ended."""
        self._console.print(result_text(reason, succeeded=succeeded), highlight=False, markup=False, soft_wrap=True)
