"""
A private server of the tests: a process with logs, which ends with the process that started it.

Not here: the command, the settings and the data of each server.
"""

import atexit
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.services.processes import descendants, listeners

_LOG_TAIL = 4000


class Server(ABC):
    """
    One server. It ends with the thread that started it, so start it from the main one.
    """

    _error: ClassVar[type[RuntimeError]]

    def __init__(self) -> None:
        """
        Nothing runs yet.
        """
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def __enter__(self) -> Self:
        """
        Start the server.
        """
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        End the server at once; its data is not needed any more.
        """
        self.close()

    @abstractmethod
    def start(self) -> None:
        """
        Start the server unless it runs, and return when it answers.
        """

    @abstractmethod
    def close(self) -> None:
        """
        End the server; a second call has no effect.
        """

    @property
    @abstractmethod
    def _logs(self) -> Sequence[Path]:
        """
        The logs; the first one has the output of the process.
        """

    @property
    def is_running(self) -> bool:
        """
        Whether the server's first process lives.
        """
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        The process id of the server's first process, the parent of all others.
        """
        if self._process is None:
            raise self._error("the server is not running")
        return self._process.pid

    def _begin(self, command: Sequence[str | Path], folder: Path, **options: Any) -> None:
        with self._logs[0].open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self._owner = os.getpid()
        atexit.register(self._close_at_exit)

    def _kill(self) -> None:
        """
        End the first process for certain.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            atexit.unregister(self._close_at_exit)

    def _assert_loopback_only(self) -> None:
        exposed = [found for found in listeners({self.pid, *descendants(self.pid)}) if not found.is_loopback]
        if exposed:
            self.close()
            raise self._error(f"the server listened off loopback: {exposed}")

    def _log_tail(self) -> str:
        ends = {log.name: log.read_text(errors="replace")[-_LOG_TAIL:] for log in self._logs if log.exists()}
        return "".join(f"\n--- end of {name} ---\n{end}" for name, end in ends.items())

    def _close_at_exit(self) -> None:
        # A fork of this process inherits the registration, and must not end its parent's server.
        if os.getpid() == self._owner:
            self.close()
