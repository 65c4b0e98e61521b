"""
Tests of the terminal's output at any width: no line is wider, no word is cut, and no column moves.
"""

import contextlib
import io
import os
import pty
import re
import subprocess
import termios
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.events import Event, TaskEvent, TaskOverdue, TaskSkipped, WorkflowFinished, WorkflowStarted
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.local._attempt_end import AttemptEnd
from dkist_processing_core.local.live_table import LiveDisplay
from dkist_processing_core.runs import RunState
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import Terminal, folded
from tests.facts import NOON, failed, finished, make, progressed, started
from tests.running import command
from tests.strategies import events, texts

RUN = Run("W", "1", "r", 1)
WIDTHS = st.one_of(st.sampled_from([40, 80, 120, 200]), st.integers(4, 250))
WORDS = st.lists(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=30), min_size=1, max_size=40)


@given(words=WORDS, width=WIDTHS, indent=st.integers(0, 60))
def test_a_line_is_folded_between_words(words: list[str], width: int, indent: int) -> None:
    """
    A word is cut only if no line has room for it, and nothing is lost.
    """
    line = Text(" ".join(words))

    lines = [each.plain for each in folded(line, width, indent)]

    assert all(cell_len(each) <= width for each in lines)
    assert "".join(line.plain.split()) == "".join("".join(lines).split())
    room = width - min(indent, width // 2)
    whole = [word for word in words if cell_len(word) <= room - 1]
    found = [word for each in lines for word in each.split()]
    assert [word for word in whole if word not in found] == []


@pytest.mark.parametrize("width", range(20, 60))
def test_a_number_stays_beside_its_unit(width: int) -> None:
    """
    A line never ends between them.
    """
    line = Text("ReadFrames 1/1 took 0.7 s, 39 ms in run, peak 27 MB, queued 2 min 05 s")

    lines = [each.plain for each in folded(line, width, 2)]

    assert max(map(len, lines)) <= width
    for amount in ("0.7 s", "39 ms", "27 MB", "2 min", "05 s"):
        assert any(amount in each for each in lines)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_live_display_has_room_for_the_mark_of_an_interrupt(width: int) -> None:
    """
    A terminal prints ^C behind the last line; in a full line, the line above would remain on the screen.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    display = LiveDisplay(console, ["A"])
    display.attempt_started(Attempt(RUN, "A", attempt=1, max_attempts=1))
    display.task_progressed(progressed("A", 1, total=12, unit="frame", note="w" * 250))

    lines = console.render_lines(display, pad=False)

    assert [sum(segment.cell_length for segment in line) <= width - len("^C") for line in lines] == [True]


@pytest.mark.parametrize(
    "words", ["events list --type nothing", "timeline 8bf54b12", "doctor", "outbox list", "outbox drain", "events list"]
)
@pytest.mark.usefixtures("state_dir")
def test_no_word_of_a_command_is_cut_in_a_terminal(words: str) -> None:
    """
    This holds for remarks, results, errors of the library and wrong calls; only a path may be wider than the terminal.
    """
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 60))
    variables = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "dumb"}
    shown = b""
    with subprocess.Popen(command(*words.split()), stdout=follower, stderr=follower, env=variables):
        os.close(follower)
        with os.fdopen(leader, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # Linux ends it with EIO
            while part := screen.read(4096):
                shown += part

    lines = [line.rstrip() for line in shown.decode().splitlines()]
    parts_of_paths = [line for line in lines if len(line) >= 60 and " " not in line.strip()]
    assert lines
    assert [line for line in lines if len(line) > 60 and line not in parts_of_paths] == []


@given(told=st.lists(events(), min_size=1, max_size=4), width=WIDTHS, dated=st.booleans(), with_runs=st.booleans())
def test_no_event_is_wider_than_the_terminal(*, told: list[Event], width: int, dated: bool, with_runs: bool) -> None:
    """
    This holds for any event, with and without dates and short ids.
    """
    lines = EventLines(dated=dated, with_runs=with_runs, width=width)

    assert all(line.cell_len <= width for event in told for line in lines.lines(event))


TOLD = [
    make(WorkflowStarted, recipe_run_id=3),
    started("ParseFrames", host="worker1", pid=31059),
    progressed("FitLimbPositions", 12, total=12, unit="frame", note="second camera"),
    failed("Fit", max_attempts=12, attempt=10, message="41 of 180 points of the limb agree with the model"),
    finished("FitLimbPositions", duration_seconds=3.6),
    make(WorkflowFinished, tasks={"ParseFrames": "success"}),
]


@pytest.mark.parametrize("width", [40, 80, 120, 140, 200, None])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_columns_do_not_move_in_a_list(*, width: int | None, ascii_only: bool) -> None:
    """
    With usual names, the name of each event begins at the same place, and so do tasks and attempts where they fit.
    """
    lines = EventLines(width=width, with_runs=True, ascii_only=ascii_only)
    first = [next(lines.lines(event)).plain for event in TOLD]

    assert {line.index(event.name) for line, event in zip(first, TOLD, strict=True)} == {len("12:00:00 12345678 ")}
    if width is None or width >= 140:
        told = zip(first, TOLD, strict=True)
        tasks = {line.index(event.task_name) for line, event in told if isinstance(event, TaskEvent)}
        assert len(tasks) == 1


def test_a_list_reads_well_in_80_columns() -> None:
    """
    The text of an event continues below its name.
    """
    lines = EventLines(width=80, with_runs=True)

    shown = [line.plain[9:] for line in lines.lines(TOLD[3])]

    assert shown == [
        "r        task.failed       W Fit 10/12 exception: 41 of 180 points of",
        "         the limb agree with the model",
    ]


@pytest.mark.parametrize(
    "event", [failed("A", final=False), make(TaskSkipped, "A"), make(TaskOverdue, "A", sequence=1, limit_seconds=1)]
)
def test_no_text_is_yellow(event: Event) -> None:
    """
    Yellow can hardly be read on a white background.
    """
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200)
    for line in EventLines(width=200).lines(event):
        console.print(line)
    for line in draw_timeline(next(iter(RunState([event]).runs)), width=80, now=NOON, ascii_only=False, zone=UTC):
        console.print(line)

    assert isinstance(console.file, io.StringIO)
    colours = {
        int(code) for codes in re.findall(r"\x1b\[([0-9;]+)m", console.file.getvalue()) for code in codes.split(";")
    }
    assert colours & {31, 35}
    assert not colours & {33, 43, 93, 103}


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_the_width_of_a_terminal_is_known_and_a_file_has_none(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    This includes a terminal that obeys no escapes.
    """
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 43))
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as terminal:
        width = Terminal(file=terminal).columns

    assert width == 43
    assert Terminal(file=io.StringIO(), force_terminal=True).columns is None


Told = Callable[[LiveDisplay, str], None]


def running(attempt: int = 1, of: int = 1) -> Told:
    """
    Return what a live display is told at the start of an attempt.
    """
    return lambda display, name: display.attempt_started(Attempt(RUN, name, attempt=attempt, max_attempts=of))


def with_progress(done: int, **facts: Any) -> Told:
    """
    Return what a live display is told by a running task.
    """
    return lambda display, name: display.task_progressed(progressed(name, done, **facts))


def ended(seconds: float, *, succeeded: bool = True) -> Told:
    """
    Return what a live display is told at the end of an attempt.
    """

    def tell(display: LiveDisplay, name: str) -> None:
        end = AttemptEnd(Attempt(RUN, name, attempt=1, max_attempts=1), int(not succeeded), seconds, is_reported=True)
        display.attempt_ended(end, succeeded=succeeded)

    return tell


def not_run(display: LiveDisplay, name: str) -> None:
    """
    Tell a live display that a task is not run.
    """
    display.task_not_run(name)


def drawn(width: int, rows: dict[str, list[Told]]) -> list[str]:
    """
    Return the lines of a live display after it was told this about its tasks.
    """
    console = Console(file=io.StringIO(), width=width, height=30)
    display = LiveDisplay(console, list(rows))
    for name, told in rows.items():
        for tell in told:
            tell(display, name)
    console.print(display)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@given(
    width=st.integers(30, 250),
    rows=st.dictionaries(
        texts(30),
        st.tuples(
            st.just(running(1, 2)),
            st.builds(
                with_progress,
                st.integers(0, 1000),
                total=st.none() | st.integers(1, 1000),
                unit=texts(10),
                note=texts(60),
            ),
            st.sampled_from([running(2, 2), not_run]) | st.builds(ended, st.floats(0, 1e6)),
        ).flatmap(lambda told: st.integers(0, 3).map(lambda first: list(told[:first]))),
        min_size=1,
        max_size=6,
    ),
)
def test_each_task_has_one_line_in_a_live_display(width: int, rows: dict[str, list[Told]]) -> None:
    """
    No line is wider than the terminal, whatever a task reports.
    """
    lines = drawn(width, rows)

    assert len(lines) == len(rows)
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_live_progress_has_its_count_at_every_width(width: int) -> None:
    """
    A bar without numbers does not show how much is left.
    """
    report = with_progress(3, total=12, unit="frame", note="reading the frames of the second camera")

    (line,) = drawn(width, {"ParseFrames": [running(), report]})

    assert "3/12 frame" in line
    assert ("second camera" in line or line.rstrip().endswith("…")) is (width >= 60)
    assert ("━" in line) is (width >= 100)


def test_the_columns_of_a_live_display_stay_where_they_are() -> None:
    """
    The first report of progress moves nothing.
    """
    before = drawn(100, {"Parse": [running(), ended(1.0)]})[0]
    after = drawn(100, {"Parse": [running(2, 2), with_progress(3, total=12, unit="frame"), ended(75.0)]})[0]

    assert before.index("1.0 s") + len("1.0 s") == after.index("1 min 15 s") + len("1 min 15 s")


@given(st.integers(0, 10**6))
def test_one_thing_is_not_counted_in_the_plural(number: int) -> None:
    """
    All counts in texts are written by one function.
    """
    assert counted(number, "task") == (f"{number} tasks" if number != 1 else "1 task")
    assert counted(number, "retry", "retries").endswith("retry" if number == 1 else "retries")


def test_a_task_that_is_not_run_is_no_failure() -> None:
    """
    In a live display it has the colour of what needs attention.
    """
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    display = LiveDisplay(console, ["A"])
    display.attempt_started(Attempt(RUN, "A", attempt=1, max_attempts=1))

    display.task_not_run("A")
    console.print(display)

    assert isinstance(console.file, io.StringIO)
    assert "\x1b[35mnot run" in console.file.getvalue()
