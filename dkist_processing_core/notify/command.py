"""
Delivery to a program, which gets the notice as JSON on its standard input.

Not here: further tries (inbox).
"""

import os
import signal
import subprocess
from contextlib import suppress
from tempfile import TemporaryFile

from dkist_processing_core.errors import NotDeliveredError
from dkist_processing_core.events import encode
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.notify.routes import Command
from dkist_processing_core.text import clean_line, redact

_LONGEST_OUTPUT = 200
# The variables that a program needs. The others of this process may be secrets of the bus, the engine and the routes.
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE")


def send(command: Command, notice: NoticeIssued) -> str:
    """
    Run the program, without a shell, and return its exit status as a text.

    Raises:
        NotDeliveredError: It cannot be started, has failed, or has not ended within the time limit.
    """
    name = command.argv[0]
    with TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own words, without a shell
                command.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={name: os.environ[name] for name in (*_PASSED, *command.variables) if name in os.environ},
                # With the processes that it starts, it is ended together.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            msg = f"the command {name} cannot be started: {getattr(error, 'strerror', None) or error}"
            raise NotDeliveredError(msg) from None
        try:
            process.communicate(encode(notice), timeout=command.timeout)
        except subprocess.TimeoutExpired:
            msg = f"the command {name} has not ended within {command.timeout:g} s and was killed"
            raise NotDeliveredError(msg) from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * _LONGEST_OUTPUT))
            line = clean_line(" ".join(redact(errors.read().decode("utf-8", "replace")).split()))[-_LONGEST_OUTPUT:]
            msg = f"the command {name} ended with the status {process.returncode}{f': {line}' if line else ''}"
            raise NotDeliveredError(msg)
    return "exit status 0"
