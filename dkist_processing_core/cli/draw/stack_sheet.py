"""
Where a running attempt is now: its phase, its progress, and the stacks of its threads.

Not here: the stack of an exception (runs.wording.stack).
"""

from collections.abc import Iterator

from rich.text import Text

from dkist_processing_core.cli.draw.glyphs import ASCII, STYLES, UNICODE
from dkist_processing_core.cli.draw.heading import flow
from dkist_processing_core.cli.draw.sheet import Sheet
from dkist_processing_core.recorder.reading import Recording
from dkist_processing_core.runs import State
from dkist_processing_core.text import duration
from dkist_processing_core.text.terminal import one_line


def draw_recording(
    recording: Recording, *, short_id: str, width: int | None, ascii_only: bool = False
) -> Iterator[Text]:
    """
    Yield the lines about an attempt, as its recorder has it.

    Args:
        recording: What the recorder holds.
        short_id: The short id of the run.
        width: The width of the terminal; without a terminal nothing is cut or folded.
        ascii_only: Whether the terminal has only the characters of ASCII.
    """
    glyphs, sheet, identity = ASCII if ascii_only else UNICODE, Sheet(width), recording.identity
    number = identity.get("attempt")
    about = [
        Text.assemble(
            (f"{glyphs.marks[State.RUNNING]} ", STYLES[State.RUNNING]), (one_line(str(identity.get("task"))), "bold")
        ),
        *([] if number is None else [Text(f"attempt {number}")]),
        Text(f"run {one_line(short_id)}", "dim"),
        *([] if recording.pid is None else [Text(f"pid {recording.pid}", "dim")]),
    ]
    yield from flow(about, width=sheet.room, separator=glyphs.separator)
    yield from sheet.row("phase", _aged(recording.phase, recording.phase_age, "since {}"))
    yield from sheet.row("progress", _aged(recording.progress, recording.progress_age, "{} ago"))
    if recording.stack:
        yield from sheet.block(_aged("stack", recording.stack_age, "{} ago"), recording.stack.splitlines())
    else:
        yield from sheet.line("no stack: the task has not begun, or its environment has an older release")


def _aged(text: str | None, age: float | None, form: str) -> str:
    return f"{text}, {form.format(duration(age))}" if text and age is not None else text or ""
