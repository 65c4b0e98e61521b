"""
A private PostgreSQL server: the system's package, run in a separate folder on a free loopback port.

Not here: an SQL client library, and the content of the databases.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.services.processes import descendants, wait_for_end
from tests.services.server import Server
from tests.services.sockets import LOOPBACK, free_ports

_VERSIONS = Path("/usr/lib/postgresql")
_INSTALL = Path(__file__).with_name("install_packages.sh")
# The user as whom root runs it: PostgreSQL refuses root.
_USERS = ("postgres", "nobody")
_SUPERUSER = "core"
_POLL_SECONDS = 0.02
_CALL_SECONDS = 60
# Data that only a power cut would destroy may be lost here. Committed data survives a kill, because a test may depend
# on it. The socket is in the private folder, so no other program meets it.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    # Statistics that are collected at some time change the plan of a statement.
    "autovacuum": "off",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "autovacuum": "on"}


class MissingPostgresError(RuntimeError):
    """
    The package is not installed; the message states the package to install.
    """


class PostgresError(RuntimeError):
    """
    The server failed or did not answer; the message ends with its log.
    """


def require_postgres() -> Path:
    """
    Return the folder of the server's programs, or raise the installer's sentence if it is missing.
    """
    # Debian and Ubuntu keep each version apart and put none of its server on PATH.
    found = sorted(
        _VERSIONS.glob("*/bin/initdb"), key=lambda path: [int(part) for part in path.parts if part.isdigit()]
    )
    program = str(found[-1]) if found else shutil.which("initdb")
    if program is None:
        check = subprocess.run([_INSTALL, "--check", "postgresql"], capture_output=True, text=True, check=False)
        raise MissingPostgresError(check.stderr.strip())
    return Path(program).resolve().parent


class PostgresServer(Server):
    """
    A private database server, which a test may stop, kill and start again with data and port kept.
    """

    _error = PostgresError

    def __init__(self, *, is_durable: bool = False) -> None:
        """
        Choose the port and the password; a durable server syncs each commit to the disk, as one in service does.
        """
        super().__init__()
        self._settings = _SETTINGS | (_DURABLE if is_durable else {})
        self.host = LOOPBACK
        (self.port,) = free_ports(1)
        self.password = secrets.token_hex(12)
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """
        The folder of the data and the log.
        """
        if self._folder is None:
            raise PostgresError("the server was not started")
        return self._folder

    @property
    def _logs(self) -> list[Path]:
        return [self.folder / "output.log"]

    def start(self, timeout: float = 200.0) -> None:
        """
        Start the server, or start it again with its data, and return when it takes connections.

        Raises:
            MissingPostgresError: the package is not installed.
            PostgresError: the server ended or did not answer in time.
        """
        if self.is_running:
            return
        programs = require_postgres()
        if self._folder is None:
            self._make_cluster(programs)
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + timeout
        # A power cut for the server, if this process is killed: it still removes its shared memory.
        ending_with_us = ["setpriv", "--pdeathsig", "QUIT"]
        command: list[str | Path] = [
            *ending_with_us,
            programs / "postgres",
            "-D",
            "data",
            "-p",
            str(self.port),
            *settings,
        ]
        self._begin(command, self.folder, env=_environment(), **_other_user())
        ready: list[str | Path] = [programs / "pg_isready", "--quiet", "--host", self.host, "--port", str(self.port)]
        while subprocess.run(ready, env=_environment(), check=False).returncode != 0:
            ended = not wait_for_end([self.pid], _POLL_SECONDS)
            if ended or time.monotonic() > deadline:
                tail = self._log_tail()
                self.close()
                raise PostgresError(f"the server {'ended' if ended else 'did not answer in time'}{tail}")
        self._assert_loopback_only()

    def stop(self, timeout: float = 100.0) -> None:
        """
        Shut the server down in good order, without waiting for its clients; the data stays.
        """
        self._end(signal.SIGINT, timeout)

    def kill(self, timeout: float = 100.0) -> None:
        """
        End the server at once, as a power cut would; committed data stays and is recovered at the next start.
        """
        self._end(signal.SIGQUIT, timeout)

    def close(self) -> None:
        """
        End the server and remove its data; a second call has no effect.
        """
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def url(self, database: str, *, driver: str = "psycopg2") -> str:
        """
        Return the address of a database, with the password, in SQLAlchemy's form.
        """
        return f"postgresql+{driver}://{_SUPERUSER}:{self.password}@{self.host}:{self.port}/{database}"

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """
        Create a database, empty or as a copy of one without connections, and return its address.
        """
        self.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """
        Delete a database, and end the connections to it.
        """
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, *, database: str = "postgres") -> str:
        """
        Run one statement and return its result: a line for each row, ``|`` between the columns.

        Raises:
            PostgresError: the statement failed, or the server does not answer.
        """
        command: list[str | Path] = [require_postgres() / "psql"]
        command += ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]
        connection = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": _SUPERUSER, "PGPASSWORD": self.password}
        done = subprocess.run(
            [*command, "--set", "ON_ERROR_STOP=1", "--command", statement],
            env=_environment() | connection | {"PGDATABASE": database},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
        )
        if done.returncode != 0:
            raise PostgresError(f"{statement} failed: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def _make_cluster(self, programs: Path) -> None:
        """
        Create a folder and an empty cluster in it.

        The folder is not pytest's: another user must be able to read it, and pytest's folders are private.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="dkist-core-tests-postgres-", dir="/var/tmp"))
        other = _other_user()
        if "user" in other:
            os.chown(self._folder, other["user"], other["group"])
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.password, encoding="ascii")
        if "user" in other:
            os.chown(password, other["user"], other["group"])
        command: list[str | Path] = [programs / "initdb"]
        command += ["--pgdata=data", "--no-sync", "--no-instructions", "--encoding=UTF8"]
        done = subprocess.run(
            [*command, "--locale=C", f"--username={_SUPERUSER}", "--auth=scram-sha-256", "--pwfile=password"],
            cwd=self._folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_SECONDS,
            **other,
        )
        password.unlink()
        if done.returncode != 0:
            self.close()
            raise PostgresError(f"initdb exited with {done.returncode}: {done.stdout}{done.stderr}")

    def _end(self, how: signal.Signals, timeout: float) -> None:
        if self._process is None:
            return
        children = descendants(self._process.pid)
        self._process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._kill()
        for pid in wait_for_end(children, 5.0):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _other_user() -> dict[str, Any]:
    """
    Return the arguments with which `subprocess` changes the user if this one is root; otherwise none.
    """
    if os.geteuid() != 0:
        return {}
    for name in _USERS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresError(f"PostgreSQL does not run as root, and this machine has none of the users {', '.join(_USERS)}")


def _environment() -> dict[str, str]:
    """
    Return the environment without variables that would redirect PostgreSQL's programs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C"}
