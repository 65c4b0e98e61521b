"""
Tests of the terminal's output at any width: no line is wider, no word is cut, and no column moves.
"""

import io
import os
import pty
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import STYLES, UNICODE, Ink
from dkist_processing_core.cli.draw.lines import EventLines, style_of
from dkist_processing_core.events import Event, TaskEvent, TaskOverdue, TaskSkipped, WorkflowFinished, WorkflowStarted
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.local.live_table import LiveDisplay, _Row
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import Terminal, folded, print_error
from tests.facts import failed, finished, make, progressed, started
from tests.strategies import events, texts

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
    assert "yellow" not in {style_of(event), *STYLES.values()}


def test_waiting_and_preparing_look_different() -> None:
    """
    They are not two lines of dashes.
    """
    assert (UNICODE.stroke(Ink.WAITING, Ink.WAITING), UNICODE.stroke(Ink.PREPARING, Ink.PREPARING)) == ("░", "─")


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


def drawn(width: int, rows: dict[str, _Row]) -> list[str]:
    """
    Return the lines of a live display with these rows.
    """
    console = Console(file=io.StringIO(), width=width, height=30)
    display = LiveDisplay(console, [])
    display._rows = rows
    console.print(display)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@given(
    width=st.integers(30, 250),
    rows=st.dictionaries(
        texts(30),
        st.builds(
            _Row,
            state=st.sampled_from(["waiting", "running 1/2", "finished", "not run"]),
            seconds=st.none() | st.floats(0, 1e6),
            done=st.none() | st.integers(0, 1000),
            total=st.none() | st.integers(1, 1000),
            unit=texts(10),
            note=texts(60),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_each_task_has_one_line_in_a_live_display(width: int, rows: dict[str, _Row]) -> None:
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
    row = _Row("running", "cyan", done=3, total=12, unit="frame", note="reading the frames of the second camera")

    (line,) = drawn(width, {"ParseFrames": row})

    assert "3/12 frame" in line
    assert ("second camera" in line or line.rstrip().endswith("…")) is (width >= 60)
    assert ("━" in line) is (width >= 100)


def test_the_columns_of_a_live_display_stay_where_they_are() -> None:
    """
    The first report of progress moves nothing.
    """
    before = drawn(100, {"Parse": _Row("running", seconds=1.0)})[0]
    after = drawn(100, {"Parse": _Row("running 2/2", seconds=75.0, done=3, total=12, unit="frame")})[0]

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
    display = LiveDisplay(Console(file=io.StringIO(), width=80), ["A"])
    display.attempt_started(Attempt(Run("W", "1", "r", 1), "A", attempt=1, max_attempts=1))

    display.task_not_run("A")

    assert display._rows["A"].style == "magenta"


def test_an_error_is_folded_at_blanks_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A program that reads it from a pipe gets one line.
    """
    text = "error: " + " ".join(["somewhere"] * 9)
    print_error(text)
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 43))
    with os.fdopen(leader, "rb", buffering=0) as reader, os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        print_error(text)
        shown = reader.read(1000).decode()

    assert capsys.readouterr().err == f"{text}\n"
    assert max(map(len, shown.splitlines())) <= 43
    assert shown.split() == text.split()
