"""
The process of one attempt of a local run: the launcher, started, listened to and told to end.

Not here: what a launcher does (launcher), and what its end means (local).
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

from dkist_processing_core.bootstrap import FLAGS
from dkist_processing_core.exit_status import fill_standard_descriptors, has_ended, wait_for
from dkist_processing_core.launcher import without_launchers

_POLL_MILLISECONDS = 50
_MAX_LINE_BYTES = 64 * 1024
# What a process has written before its end fits the pipe; what comes on and on is of somebody it has left behind.
_MAX_BYTES_AFTER_END = 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")
# As `python -m dkist_processing_core.launcher`, from wherever this process has imported it.
_PROGRAM = """\
import json, os, sys
sys.path[:] = json.loads(os.environ["DKIST_CORE_TASK_SEARCH_PATH"])
from dkist_processing_core.launcher import hold_back
hold_back()
from dkist_processing_core.launcher import main
sys.exit(main())
"""


def interpreter_flags() -> list[str]:
    """Return the options of this interpreter, as `-O` and `-W error`, that multiprocessing gives to its processes."""
    # It expects what the interpreter has put into sys.warnoptions, which a program may have changed.
    with contextlib.suppress(ValueError):
        return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined] # noqa: SLF001 - as there
    return []


def start(environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """
    Start a launcher, in a group of its own, with these variables beside those of this process.

    A run that is started within another's task does not lend that task's identity to its own. The options of this
    interpreter are for the task: the launcher runs without them, so that none of them can change what it does.
    """
    fill_standard_descriptors()
    return subprocess.Popen(  # noqa: S603 - a constant program, with values in its environment
        [sys.executable, "-P", "-c", _PROGRAM],
        env={**without_launchers(os.environ), **environ, FLAGS: json.dumps(interpreter_flags())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def output_of(process: "subprocess.Popen[bytes]") -> Iterator[list[str]]:
    """
    Yield the lines that a process writes, as they come, until it ends; none where it is silent for a moment.

    Not longer, since what it leaves behind may hold the pipe. A line of more than 64 KiB comes in pieces.
    """
    if process.stdout is None or process.stdout.closed:
        return
    rest, left_at_end = b"", _MAX_BYTES_AFTER_END
    pipe = process.stdout
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    while True:
        is_ended = has_ended(process.pid)
        is_readable = bool(waiting.poll(0 if is_ended else _POLL_MILLISECONDS))
        if not is_readable and not is_ended:
            yield []
            continue
        chunk = os.read(pipe.fileno(), _MAX_LINE_BYTES) if is_readable else b""
        left_at_end -= len(chunk) if is_ended else 0
        is_over = not chunk or left_at_end <= 0
        *lines, rest = _LINE_END.split(rest + chunk)
        if len(rest) >= _MAX_LINE_BYTES or (is_over and rest):
            lines, rest = [*lines, rest], b""
        if lines:
            yield [line.decode(errors="replace").rstrip("\r") for line in lines]
        if is_over:
            return


def drop_output(process: "subprocess.Popen[bytes]") -> None:
    """Read what a process still writes until it ends: a pipe that is closed, or full, would fail it or hold it up."""
    assert process.stdout is not None
    # Code in this process may have closed the descriptor.
    with contextlib.suppress(OSError, ValueError):
        waiting = select.poll()
        waiting.register(process.stdout, select.POLLIN)
        while not has_ended(process.pid):
            if waiting.poll(_POLL_MILLISECONDS) and not os.read(process.stdout.fileno(), _MAX_LINE_BYTES):
                return


def wait(process: "subprocess.Popen[bytes]") -> int | None:
    """Wait for the end of a process, and return its status; None where it is lost."""
    assert process.stdout is not None
    status = wait_for(process)
    with contextlib.suppress(OSError, ValueError):
        process.stdout.close()
    return status


def send_signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to a process and to all that it has started: it leads a group of its own."""
    # By its number only as long as no other process can have that.
    if process.returncode is None and not has_ended(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
