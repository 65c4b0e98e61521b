"""
`dkist-core stack`: where a running attempt of this host is now, by its recorder, and with py-spy by its native frames.

Not here: finding the recorders (recorder.finding), and the drawing (draw.stack_sheet).
"""

import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from dkist_processing_core.cli.draw.sheet import Sheet
from dkist_processing_core.cli.draw.stack_sheet import draw_recording
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.identity.short_ids import ShortIds, named_run
from dkist_processing_core.recorder.finding import owners_of_unreadable, recordings
from dkist_processing_core.recorder.reading import Recording
from dkist_processing_core.text.console import Terminal

_PY_SPY = "py-spy"
_PATIENCE_SECONDS = 30.0
# The command line of a task has the whole bootstrap program, and that of another process may have a secret.
_COMMAND_LINE = re.compile(r"\A.*^Python v[^\n]*\n+", re.DOTALL | re.MULTILINE)
_LISTED = 5


def show_stack(named: str, task_name: str) -> None:
    """
    Print where the running attempt of a task is.

    Raises:
        DKISTProcessingCoreError: No such attempt runs on this host, or it belongs to another user.
    """
    # A recorder that was made a moment ago has no identity yet.
    found = [each for each in recordings() if each.identity]
    run_id = named_run(named, (_run_id(each) for each in found if each.identity.get("task") == task_name))
    chosen = [each for each in found if (_run_id(each), each.identity.get("task")) == (run_id, task_name)]
    if not chosen:
        raise DKISTProcessingCoreError(_nothing(named, task_name, found))
    console, short_ids = Terminal(highlight=False), ShortIds(map(_run_id, found))
    for recording in chosen:
        short_id, ascii_only = short_ids.of(_run_id(recording)), console.options.ascii_only
        drawn = draw_recording(recording, short_id=short_id, width=console.columns, ascii_only=ascii_only)
        for line in (*drawn, *_native(recording, console.columns)):
            console.print(line, soft_wrap=True)


def _run_id(recording: Recording) -> str:
    return str(recording.identity.get("run_id"))


def _nothing(named: str, task_name: str, found: list[Recording]) -> str:
    """Return why there is nothing to show, and what runs instead."""
    what = f"no attempt of task {task_name!r} in run {named!r} runs on this host"
    short_ids = ShortIds(map(_run_id, found))
    others = [f"{each.identity.get('task')} in run {short_ids.of(_run_id(each))}" for each in found[:_LISTED]]
    known = f"; here run: {', '.join(others)}" if others else ""
    owners = ", ".join(sorted(map(_name_of, owners_of_unreadable())))
    unreadable = f"; attempts of {owners} cannot be read: run the command as that user" if owners else ""
    ended = f"; what is known of one that has ended: dkist-core runs show {named} {task_name}"
    return f"{what}{known}{ended}{unreadable}"


def _name_of(user: int) -> str:
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"


def _native(recording: Recording, width: int | None) -> Iterator[Text]:
    """Yield the lines with the native frames of a task, or how to get them."""
    if recording.pid is None:
        return
    program = shutil.which(_PY_SPY) or shutil.which(_PY_SPY, path=str(Path(sys.executable).parent))
    if program is None:
        yield from Sheet(width).line("for native frames: pip install py-spy")
    else:
        yield from Sheet(width).block("with native frames, by py-spy", _native_frames(program, recording.pid))


def _native_frames(program: str, pid: int) -> list[str]:
    """Return the stacks as py-spy has them, with the frames of C code; if that cannot be done, the reason."""
    words = [program, "dump", "--native", "--pid", str(pid)]
    try:
        done = subprocess.run(  # noqa: S603 - the program is the one that the user has installed
            words, capture_output=True, text=True, errors="replace", check=True, timeout=_PATIENCE_SECONDS
        )
    except subprocess.CalledProcessError as error:
        # The last line names the reason.
        return [*error.stderr.strip().splitlines()[-1:]] or [f"exit status {error.returncode}"]
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    return _COMMAND_LINE.sub("", done.stdout).rstrip().splitlines()
