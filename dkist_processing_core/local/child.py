"""
The process of one attempt of a local run: starts the launcher, reads its output and sends it signals.

Not here: the work of a launcher (launcher), and the effect of its end (local.engine).
"""

import contextlib
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dkist_processing_core.launcher.assignment import ENGINE_FD, RECORD_FD
from dkist_processing_core.launcher.bootstrap import FLAGS
from dkist_processing_core.launcher.task_variables import without_launchers
from dkist_processing_core.process.descriptors import move_up
from dkist_processing_core.process.exit_status import fill_standard_descriptors, has_ended, wait_for

_POLL_MILLISECONDS = 50
_MAX_LINE_BYTES = 64 * 1024
# The output written before a process's end fits into the pipe; more comes from a process that it has left behind.
_MAX_BYTES_AFTER_END = 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")
# Does the same as `python -m dkist_processing_core.launcher`, from the location where this process has imported it.
_PROGRAM = """\
import json, os, sys
sys.path[:] = json.loads(os.environ["DKIST_CORE_TASK_SEARCH_PATH"])
from dkist_processing_core.launcher.termination_requests import block_signals
block_signals()
from dkist_processing_core.launcher.launch import main
sys.exit(main())
"""


def interpreter_flags() -> list[str]:
    """Return the options of this interpreter, such as `-O` and `-W error`, that multiprocessing passes on."""
    # The function expects the interpreter's own entries in sys.warnoptions, which a program may have changed.
    with contextlib.suppress(ValueError):
        return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined] # noqa: SLF001 - as there
    return []


class LauncherProcess(subprocess.Popen[bytes]):
    """The process of a launcher, with the pipe on which it sends the facts of the attempt's end."""

    end_pipe: io.FileIO


def start(environ: Mapping[str, str], record_fd: int | None = None) -> LauncherProcess:
    """
    Start a launcher as the leader of its process group, with these variables in addition to those of this process.

    If the run is started inside a task of another run, the variables that identify that task are not passed on. The
    options of this interpreter are for the task: the launcher runs without them, so that they cannot change its
    behaviour.

    Args:
        environ: The additional variables.
        record_fd: The descriptor of the run's record, which the launcher holds too; None without a record.
    """
    fill_standard_descriptors()
    read_fd, write_fd = map(move_up, os.pipe())
    pipe = io.FileIO(read_fd)
    try:
        process = LauncherProcess(
            [sys.executable, "-P", "-c", _PROGRAM],
            env={
                **without_launchers(os.environ),
                **environ,
                FLAGS: json.dumps(interpreter_flags()),
                ENGINE_FD: str(write_fd),
                **({} if record_fd is None else {RECORD_FD: str(record_fd)}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=(write_fd,) if record_fd is None else (write_fd, record_fd),
        )
    except BaseException:
        pipe.close()
        raise
    finally:
        os.close(write_fd)
    process.end_pipe = pipe
    return process


def output_of(process: "subprocess.Popen[bytes]") -> Iterator[list[str]]:
    """
    Yield the lines that a process writes, as they arrive, until it ends; an empty list after a moment without output.

    Reading stops at the process's end, since processes that it leaves behind may keep the pipe open. A line of more
    than 64 KiB comes in pieces.
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
    """Read and discard a process's output until it ends: a closed pipe would make it fail, a full one block it."""
    assert process.stdout is not None
    # Code in this process may have closed the descriptor.
    with contextlib.suppress(OSError, ValueError):
        waiting = select.poll()
        waiting.register(process.stdout, select.POLLIN)
        while not has_ended(process.pid):
            if waiting.poll(_POLL_MILLISECONDS) and not os.read(process.stdout.fileno(), _MAX_LINE_BYTES):
                return


def wait(process: "subprocess.Popen[bytes]") -> int | None:
    """Wait for the end of a process, and return its exit status; None if it is lost."""
    assert process.stdout is not None
    status = wait_for(process)
    with contextlib.suppress(OSError, ValueError):
        process.stdout.close()
    return status


def facts_of_end(process: LauncherProcess) -> dict[str, Any]:
    """Return the facts of the attempt's end that a launcher has sent, of all lines; none if it was killed before."""
    facts: dict[str, Any] = {}
    # Code in this process may have closed the descriptor.
    with contextlib.suppress(OSError, ValueError), process.end_pipe as pipe:
        os.set_blocking(pipe.fileno(), False)
        for line in (pipe.read(_MAX_LINE_BYTES) or b"").splitlines():
            found = json.loads(line)
            facts |= found if isinstance(found, dict) else {}
    return facts


def send_signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to the process group that a process leads: to it and the processes that it has started."""
    # The pid is used only while no other process can have it.
    if process.returncode is None and not has_ended(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
