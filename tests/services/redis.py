"""
A private Redis server: the system's package, run on a free loopback port, with nothing kept on disk.

Not here: a client library, and the clients' data.
"""

import json
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.services.processes import listeners, wait_for_end
from tests.services.server import Server
from tests.services.sockets import LOOPBACK, free_ports

_PROGRAM = Path("/usr/bin/redis-server")
_INSTALL = Path(__file__).with_name("install_packages.sh")
_SERVICE = "automated-processing-scratch-inventory"
_POLL_SECONDS = 0.02
# No file of settings is read: all other settings are Redis's defaults.
_SETTINGS = {
    "bind": LOOPBACK,
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
}


class MissingRedisError(RuntimeError):
    """
    The package is not installed; the message states the package to install.
    """


class RedisError(RuntimeError):
    """
    The server failed or did not answer; the message ends with its log.
    """


def require_redis() -> str:
    """
    Return the server's program, or raise the installer's sentence if it is missing.
    """
    check = subprocess.run([_INSTALL, "--check", "redis"], capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise MissingRedisError(check.stderr.strip())
    return str(_PROGRAM) if _PROGRAM.exists() else "redis-server"


class RedisServer(Server):
    """
    A private server without a password; its data is lost when it ends.
    """

    _error = RedisError

    def __init__(self, folder: Path) -> None:
        """
        Choose the port, and the folder for the log.
        """
        super().__init__()
        self.host = LOOPBACK
        (self.port,) = free_ports(1)
        self.folder = folder

    @property
    def _logs(self) -> list[Path]:
        return [self.folder / "output.log"]

    @property
    def env(self) -> dict[str, str]:
        """
        The variable that names this server to a pipeline as its inventory of files.
        """
        return {"MESH_CONFIG": json.dumps({_SERVICE: {"mesh_address": self.host, "mesh_port": self.port}})}

    def start(self, timeout: float = 200.0) -> None:
        """
        Start the server unless it runs, and return when it answers.

        Raises:
            MissingRedisError: the package is not installed.
            RedisError: the server ended or did not answer in time.
        """
        if self.is_running:
            return
        program = require_redis()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = [word for name, value in _SETTINGS.items() for word in (f"--{name}", value)]
        deadline = time.monotonic() + timeout
        command = ["setpriv", "--pdeathsig", "KILL", program, "--port", str(self.port), *settings]
        self._begin(command, self.folder)
        while not self._answers():
            ended = not wait_for_end([self.pid], _POLL_SECONDS)
            if ended or time.monotonic() > deadline:
                self.close()
                raise RedisError(f"the server {'ended' if ended else 'did not answer in time'}{self._log_tail()}")
        self._assert_loopback_only()

    def close(self) -> None:
        """
        End the server; a second call has no effect.
        """
        self._kill()

    def ask(self, *words: str, timeout: float = 5.0) -> str:
        """
        Return the first line of the server's answer to a command, such as ``+PONG``.
        """
        with socket.create_connection((self.host, self.port), timeout=timeout) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            with connection.makefile("r", encoding="utf-8", newline="\r\n") as answer:
                return answer.readline().rstrip()

    def _answers(self) -> bool:
        # Another server may hold the port: this one has ended then, or is about to.
        with suppress(OSError):
            return self.ask("PING") == "+PONG" and bool(listeners({self.pid}))
        return False
