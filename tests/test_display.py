"""
Tests of the display of a run: a table in a terminal, lines elsewhere (see also test_local).
"""

import contextlib
import io
import itertools
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.local._attempt_end import AttemptEnd, outcome_text
from dkist_processing_core.local.live_table import LiveDisplay, _Row
from tests.facts import progressed
from tests.services.broker import Broker
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
RUN = Run("W", "1", "r", 1)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(program: str) -> str:
    """
    Run a program in a new terminal and return the terminal's content, without escapes.
    """
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    ) as process:  # fmt: skip
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the terminal's signal that no process writes any more
                break
            if not part:
                break
            shown += part
        process.wait(30)
    os.close(leader)
    return ESCAPES.sub("", shown.decode())


def test_a_terminal_shows_a_table_with_the_tasks_output_above_it() -> None:
    """
    Each task has a row with its outcome, its time, and the progress that it reported on the bus.
    """
    shown = in_terminal("from tests.pipelines import diamond; diamond.run(recipe_run_id=5)")

    last = shown[shown.rindex("First ") :]
    assert re.match(r"First +finished +[\d.]+ m?s +━+ +2/2 step +half way", last)
    assert [line.split()[:2] for line in last.splitlines()[1:4]] == [
        ["Left", "finished"],
        ["Right", "finished"],
        ["Last", "finished"],
    ]
    assert last.rstrip().endswith("run finished")
    assert "First | first of 5 in " in shown


def test_a_task_that_writes_much_is_neither_slowed_nor_cut(tmp_path: Path) -> None:
    """
    In a terminal the last of many lines are shown: a traceback ends there.
    """
    program = (
        "from dkist_processing_core import TaskBase, Workflow\n"
        "class Chatty(TaskBase):\n"
        "    def run(self):\n"
        "        for number in range(20_000): print('line', number)\n"
        "if __name__ == '__main__':\n"
        "    w = Workflow(process_category='much', process_name='output')\n"
        "    w.add_node(Chatty)\n"
        "    w.run(recipe_run_id=1)\n"
    )
    (tmp_path / "chatty.py").write_text(program)

    shown = in_terminal(f"import runpy; runpy.run_path({str(tmp_path / 'chatty.py')!r}, run_name='__main__')")

    assert "Chatty | line 19999" in shown
    assert "run finished" in shown


def test_a_low_terminal_shows_what_runs_and_what_failed() -> None:
    """
    If there are more tasks than lines, the most important ones are shown, with the number of the others.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=8)
    names = [f"Task{number}" for number in range(20)]
    display = LiveDisplay(console, names)
    display.attempt_started(Attempt(RUN, "Task17", attempt=1, max_attempts=1))
    failed = Attempt(RUN, "Task9", attempt=1, max_attempts=1)
    display.attempt_ended(AttemptEnd(failed, 1, 1.0, is_reported=True), succeeded=False)

    console.print(display)

    assert isinstance(console.file, io.StringIO)
    shown = ESCAPES.sub("", console.file.getvalue())
    assert re.search(r"Task17 +running", shown)
    assert re.search(r"Task9 +failed", shown)
    assert "and 15 others" in shown


@given(st.text(max_size=40), st.text(max_size=200))
def test_whatever_a_task_writes_is_shown_as_it_is(name: str, line: str) -> None:
    """
    Text of a task is not interpreted as markup.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    display = LiveDisplay(console, ["A"])

    display.output(name, [line])
    display.output("A", ["[bold]not markup[/bold] [/]"])

    assert isinstance(console.file, io.StringIO)
    assert "[bold]not markup[/bold] [/]" in ESCAPES.sub("", console.file.getvalue())


def test_a_row_is_drawn_while_another_thread_notes_the_end() -> None:
    """
    The start of the task is read only once: it may be removed between two reads.
    """
    moments = iter([time.monotonic(), None])

    class Ending(_Row):
        began = property(lambda _: next(moments), lambda *_: None)

    cells = Ending("running", "cyan").cells("A")

    assert str(cells[2]) == "0.0 s"


def test_a_row_is_drawn_while_another_thread_ends_the_run() -> None:
    """
    The time of the next attempt is read only once, as the start is.
    """
    moments = iter([time.monotonic() + 9, None])

    class Ending(_Row):
        next_at = property(lambda _: next(moments), lambda *_: None)

    cells = Ending("retry").cells("A")

    assert str(cells[1]) == "retry in 9 s"


def test_an_end_is_said_in_words() -> None:
    """
    Success, exit code, signal, and whether another attempt follows.
    """
    first, last = Attempt(RUN, "A", attempt=1, max_attempts=2), Attempt(RUN, "A", attempt=2, max_attempts=2)

    def text(attempt: Attempt, exit_code: int | None, *, next_in: float | None = None, error: str = "") -> str:
        end = AttemptEnd(attempt, exit_code, 1.23, is_reported=True, error=error)
        return outcome_text(end, succeeded=exit_code == 0, next_in=next_in)

    assert text(first, 0) == "finished in 1.2 s"
    assert text(last, 137) == "failed after 1.2 s (exit code 137, SIGKILL)"
    assert text(first, 3, next_in=0.0) == "failed after 1.2 s (exit code 3), attempt 2 of 2 follows"
    assert text(first, 1, next_in=60.0, error="LimbError: no limb") == (
        "failed after 1.2 s (exit code 1), attempt 2 of 2 follows in 1 min 00 s: LimbError: no limb"
    )
    assert text(last, None).startswith("failed after 1.2 s (its exit status was lost: ")


def test_a_retry_wait_shows_the_time_that_is_left_and_the_error() -> None:
    """
    The row of the task counts down until the next attempt begins.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    display = LiveDisplay(console, ["FitLimb"])
    first = Attempt(RUN, "FitLimb", attempt=1, max_attempts=2)
    end = AttemptEnd(first, 1, 1.0, is_reported=True, error="LimbError: no limb in frame 3")

    display.attempt_started(first)
    display.attempt_ended(end, succeeded=False, next_in=42.0)
    console.print(display)
    display.attempt_started(Attempt(RUN, "FitLimb", attempt=2, max_attempts=2))
    console.print(display)

    assert isinstance(console.file, io.StringIO)
    rows = ESCAPES.sub("", console.file.getvalue()).splitlines()[-2:]
    assert re.search(r"FitLimb +retry in 4[0-2] s +1.0 s +LimbError: no limb in frame 3", rows[0])
    assert re.search(r"FitLimb +running 2/2 +0.0 s", rows[1])


def test_the_last_table_names_attempts_and_what_was_not_run() -> None:
    """
    A task that needed its second attempt is told from one that needed none, and nothing waits in a run that is over.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    display = LiveDisplay(console, ["FitLimb", "Write"])
    second = Attempt(RUN, "FitLimb", attempt=2, max_attempts=2)

    display.attempt_started(second)
    display.attempt_ended(AttemptEnd(second, 0, 1.0, is_reported=True), succeeded=True)
    display.run_ended(succeeded=False, reason="interrupted (Ctrl-C)")
    console.print(display)

    assert isinstance(console.file, io.StringIO)
    rows = ESCAPES.sub("", console.file.getvalue()).splitlines()[-2:]
    assert re.search(r"FitLimb +finished 2/2 +1.0 s", rows[0])
    assert re.search(r"Write +not run", rows[1])


def test_the_table_shows_progress_as_soon_as_the_archive_can_be_read(
    broker: Broker, use: Callable[[Broker], None]
) -> None:
    """
    A broker refuses to be read while it creates its archive, as at the first run, or while it starts.
    """
    use(broker)
    settings = DKISTProcessingCoreConfiguration.read()
    display = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=200), ["A"])
    numbers = itertools.count(1)

    def shows() -> bool:
        with Publisher.open(settings) as publisher:
            publisher.publish(progressed("A", next(numbers)))
            assert publisher.flush(60)
        return display._rows["A"].done is not None

    shows()
    with contextlib.ExitStack() as stack:
        with broker.absent(ARCHIVE_QUEUE):
            stack.enter_context(display.following(progressed("A", 0).run, settings))
            with pytest.raises(BusUnreachableError, match="is not ready"):
                open_bus(settings).subscribe(("#",))
        wait_until(shows, every=0.2)

    assert display._rows["A"].done


def test_the_table_adds_no_line_about_an_outage_of_the_broker(
    broker: Broker, use: Callable[[Broker], None], caplog: pytest.LogCaptureFixture
) -> None:
    """
    The publisher of the run reports the outage; the table shows the progress that is reported after it.
    """
    use(broker)
    caplog.set_level(logging.INFO)
    settings = DKISTProcessingCoreConfiguration.read()
    display = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=200), ["A"])
    run = progressed("A", 0).run

    row, numbers = display._rows["A"], itertools.count(1)

    def shows_more_than(shown: float) -> bool:
        with Publisher.open(settings) as publisher:
            publisher.publish(progressed("A", next(numbers)))
        return row.done is not None and row.done > shown

    # A broker that creates its archive at this moment refuses to be read.
    shows_more_than(0)
    with display.following(run, settings):
        wait_until(lambda: shows_more_than(0))
        broker.close_connections()
        wait_until(lambda: "connecting again" in caplog.text)
        before = next(numbers)
        wait_until(lambda: shows_more_than(before))

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
