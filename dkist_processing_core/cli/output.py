"""
Standard streams that cannot be written to, and errors of files: one sentence and an exit status for every command.

A stream may be closed or full, or the program at the other end of a pipe may have ended. Not here: the characters that
are written (text.terminal), and the library's own errors (program).
"""

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.text.terminal import write_line

READER_ENDED = 128 + signal.SIGPIPE
"""The exit status if the program that reads the output ends first, as of programs that SIGPIPE ends."""
_OF_OUTPUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE})


class _ClosedOutput:
    """The stream in place of a closed standard output stream; None if that is open."""

    stream: Any = None


def replace_closed_output() -> None:
    """Make each write to a closed standard output stream an error, which a command reports like a full disk."""
    if sys.stdout is None:
        read_only = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        _ClosedOutput.stream = sys.stdout = open(read_only, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def do_without_output() -> None:
    """Work without a closed standard output stream, for a command whose purpose is not its output."""
    if _ClosedOutput.stream is not None and sys.stdout is _ClosedOutput.stream:
        sys.stdout = None  # as Python itself starts without the descriptor


def report(error: OSError) -> int:
    """Write one sentence about an error of a file or of the output, and return the exit status."""
    # The error stream may be the one that cannot be written to.
    with contextlib.suppress(OSError):
        write_line(without_secrets(f"error: {_sentence(error)}", None), err=True)
    return 1


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)} cannot be used: {reason}"
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        return "the current folder was removed; change to another folder"
    if error.errno == errno.EBADF and _ClosedOutput.stream is not None:
        return "the output cannot be written: the standard output stream is closed"
    if error.errno in _OF_OUTPUT:
        return f"the output cannot be written: {reason}"
    return reason


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def end_output(status: Any) -> Any:
    """
    Write what the streams still hold, and return the exit status.

    A stream that cannot be written to is connected to the null device: otherwise Python would try again at its end, and
    replace the exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
            if stream is sys.stdout and isinstance(error, OSError):
                status = status or (READER_ENDED if isinstance(error, BrokenPipeError) else report(error))
    return status
