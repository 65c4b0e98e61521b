"""
Tests of what a run shows: in a terminal, a table; elsewhere, lines (see also test_local).
"""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dkist_processing_core.display import LiveDisplay, outcome_text
from dkist_processing_core.identity import Attempt, Run

ROOT = Path(__file__).parent.parent
RUN = Run("W", "1", "r", 1)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(program: str) -> str:
    """
    Run a program in a terminal of its own and return what that showed, without escapes.
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
            except OSError:  # the terminal's way to say that nobody writes any more
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
    assert re.match(r"First +finished +\d+\.\d s +━+ +half way", last)
    assert [line.split()[:2] for line in last.splitlines()[1:4]] == [
        ["Left", "finished"],
        ["Right", "finished"],
        ["Last", "finished"],
    ]
    assert last.rstrip().endswith("run finished")
    assert "First | first of 5 in " in shown


@given(st.text(max_size=40), st.text(max_size=200))
def test_whatever_a_task_writes_is_shown_as_it_is(name: str, line: str) -> None:
    """
    No text of a task is taken for markup.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    display = LiveDisplay(console, ["A"])

    display.output(name, line)
    display.output("A", "[bold]not markup[/bold] [/]")

    assert isinstance(console.file, io.StringIO)
    assert "[bold]not markup[/bold] [/]" in ESCAPES.sub("", console.file.getvalue())


def test_an_end_is_said_in_words() -> None:
    """
    Success, exit code, signal, and whether another attempt follows.
    """
    first, last = Attempt(RUN, "A", attempt=1, max_attempts=2), Attempt(RUN, "A", attempt=2, max_attempts=2)

    assert outcome_text(first, succeeded=True, exit_code=0, seconds=1.23) == "finished in 1.2 s"
    assert outcome_text(last, succeeded=False, exit_code=-9, seconds=1.0) == "failed after 1.0 s (signal 9)"
    failed = outcome_text(first, succeeded=False, exit_code=3, seconds=1.0)
    assert failed == "failed after 1.0 s (exit code 3), attempt 2 of 2 follows"
