"""
The program that fills an environment: uv if it is available, or venv and its pip.

Not here: the translation of pip's settings for uv (_translation), the use of the result (_build).
"""

# ruff: noqa: PTH120 - paths are texts: importing pathlib takes longer than finding
import os
import select
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._requirement import Requirement
from dkist_processing_core.environments._translation import (
    Translation,
    pip_settings,
    site_settings,
    timeout_and_retries,
)
from dkist_processing_core.environments._variables import REDIRECTING, text_of, uv_files
from dkist_processing_core.environments.limits import Limits
from dkist_processing_core.errors import EnvironmentBuildError
from dkist_processing_core.process.exit_status import LOST, has_ended, output_of, wait_for
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.text import clean_line
from dkist_processing_core.text.redaction import SECRET_MIN_LENGTH, redactor, secrets_of, userinfo_of

_LAST_LINES = 20
_OTHERS_MAY_NOT_WRITE = 0o022
_TURN = 0.02
_MOMENT = 0.5
"""How long an installer's output is read after its end, in seconds: processes that it started may hold the pipe."""
# We report a missing extra ourselves, once, and `frozen` with another text: these lines of both programs are dropped.
_REPORTED_BY_US = ("does not have an extra named", "does not provide the extra")
_OF_OTHER_ENVIRONMENTS = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "__PYVENV_LAUNCHER__"})


@dataclass(frozen=True, slots=True)
class InstallerSettings:
    """Python, variables and limits of an installation; `program` is uv or pip, or None for any of them."""

    interpreter: str
    environ: Mapping[str, str]
    limits: Limits
    program: str | None = None


class Installer(ABC):
    """An installation by one program, which inherits `lock_fd`: builders wait for it even if its builder is killed."""

    label: str

    def __init__(self, settings: InstallerSettings, lock_fd: int, on_line: Callable[[str], None]) -> None:
        """Store the settings, and `on_line`, which receives the program's output."""
        self._interpreter = settings.interpreter
        self._limits = settings.limits
        self._lock_fd = lock_fd
        self._on_line = on_line
        self._environ = {
            name: value
            for name, value in settings.environ.items()
            if not name.startswith("PYTHON") and name not in REDIRECTING and name not in _OF_OTHER_ENVIRONMENTS
        } | {"NO_COLOR": "1"}
        self._pip = pip_settings(settings.environ)
        self._until = time.monotonic() + self._limits.longest
        self._redact = redactor(_secrets_of(settings.environ, self._pip))
        self._replacements: list[tuple[str, str]] = []
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of the program's output."""
        return tuple(self._lines)

    @abstractmethod
    def install(self, path: str, wanted: Requirement, *, asked: Requirement, is_repair: bool) -> None:
        """
        Build an environment at `path` that holds `wanted`, which is `asked` and our own extra.

        If it replaces a damaged one (`is_repair`), it is built without the program's cache, from which the damage may
        come.

        Raises:
            EnvironmentBuildError: The program does not succeed.
        """

    def _run(self, command: list[str], wanted: Requirement, asked: Requirement) -> None:
        # The output that the caller reads must not contain the extras that we added ourselves.
        added = [extra for extra in wanted.extras if extra not in asked.extras]
        self._replacements = [(str(wanted), str(asked)), *((f"{wanted.name}[{extra}]", wanted.name) for extra in added)]
        process, status = None, None
        try:
            # A signal handler that raised between the start and the assignment would leave the program running.
            with signals_deferred(interrupts=True):
                process = self._start(command)
            self._read_output(process, asked)
        finally:
            if process is not None:
                status = _end(process)
        if status is None:
            msg = f"no environment of {asked} could be built: {self.label} has ended; {LOST}"
            raise EnvironmentBuildError(msg, self.last_lines)
        if status:
            ending = f"exit status {status}" if status > 0 else f"signal {-status}"
            msg = f"no environment of {asked} could be built: {self.label} ended with {ending}"
            raise EnvironmentBuildError(msg, self.last_lines)

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        # It has its own process group: it ends with all processes that it started, and a Ctrl-C, which is meant for its
        # parent first, does not end it.
        return subprocess.Popen(  # noqa: S603 - checked words, and no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environ,
            pass_fds=(self._lock_fd,),
            umask=_umask(),
            process_group=0,
            bufsize=0,
        )

    def _read_output(self, process: "subprocess.Popen[bytes]", asked: Requirement) -> None:
        """Read the program's output until the program has ended, and a moment longer; the output may never end."""
        assert process.stdout is not None
        output = process.stdout.fileno()
        poll = select.poll()
        poll.register(output)
        ended, is_open, rest = None, True, b""
        while ended is None or (is_open and time.monotonic() < ended + _MOMENT):
            if ended is None and has_ended(process.pid):
                ended = time.monotonic()
            elif time.monotonic() > self._until:
                limit = f"{self._limits.longest:g} s"
                msg = f"no environment of {asked} could be built: {self.label} had not ended after {limit}"
                raise EnvironmentBuildError(msg, self.last_lines)
            if not is_open:
                time.sleep(_TURN)
            elif poll.poll(_TURN * 1000):
                chunk = os.read(output, 65536)
                is_open = bool(chunk)
                *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    self._take_line(line)
        self._take_line(rest)

    def _take_line(self, line: bytes) -> None:
        text = self._redact(clean_line(line.decode("utf-8", "replace").rstrip()))
        for text_of_ours, instead in self._replacements:
            text = text.replace(text_of_ours, instead)
        if text and not any(part in text for part in _REPORTED_BY_US):
            self._lines.append(text)
            self._on_line(text)


class Uv(Installer):
    """`uv venv` and `uv pip`."""

    def __init__(self, settings: InstallerSettings, lock_fd: int, on_line: Callable[[str], None], program: str) -> None:
        """Ask uv for its version."""
        super().__init__(settings, lock_fd, on_line)
        self._program = program
        self.label = _version_of(program)
        translation = Translation(settings.environ, self._pip, self._limits)
        self._environ |= translation.variables
        self._options = translation.options
        self._warnings = [self._redact(warning) for warning in translation.warnings]

    def install(self, path: str, wanted: Requirement, *, asked: Requirement, is_repair: bool) -> None:
        """Build the environment, without pip: it holds the requirement and nothing else."""
        for warning in self._warnings:
            self._on_line(warning)
        anew = ["--no-cache"] if is_repair else []
        # The settings of a project in the caller's folder are not used; relative paths still refer to the caller's
        # folder.
        common = ["--project", os.path.dirname(path), "--no-progress", "--no-python-downloads"]
        self._run(
            [self._program, "venv", "--quiet", *common, "--no-project", "--python", self._interpreter, path],
            wanted,
            asked,
        )
        install = [
            "pip",
            "install",
            *common,
            "--python",
            f"{path}/bin/python",
            "--compile-bytecode",
            *anew,
            *self._options,
        ]
        self._run([self._program, *install, str(wanted)], wanted, asked)


class Pip(Installer):
    """`python -m venv` and the pip in it."""

    label = "pip"

    def __init__(self, settings: InstallerSettings, lock_fd: int, on_line: Callable[[str], None]) -> None:
        """Add the settings that belong to the interpreter's own environment."""
        super().__init__(settings, lock_fd, on_line)
        for name, value in site_settings(settings.environ).items():
            variable = f"PIP_{name.upper().replace('-', '_')}"
            if variable not in REDIRECTING:
                self._environ.setdefault(variable, value)

    def install(self, path: str, wanted: Requirement, *, asked: Requirement, is_repair: bool) -> None:
        """Build the environment; pip stays in it."""
        self._run([self._interpreter, "-I", "-m", "venv", path], wanted, asked)
        self.label = f"pip {_record.distributions(path).get('pip', '')}".rstrip()
        timeout, retries = timeout_and_retries(self._pip, self._environ, self._limits)
        anew = ["--no-cache-dir"] if is_repair else []
        quietly = ["--no-input", "--progress-bar=off", "--disable-pip-version-check", "--no-warn-script-location"]
        # The output is unbuffered, so that each line arrives when it is written.
        pip = [
            f"{path}/bin/python",
            "-I",
            "-u",
            "-m",
            "pip",
            "install",
            "--compile",
            "--no-user",
            *quietly,
            f"--timeout={timeout}",
            f"--retries={retries}",
            *anew,
        ]
        self._run([*pip, str(wanted)], wanted, asked)


def choose(settings: InstallerSettings, lock_fd: int, on_line: Callable[[str], None]) -> Installer:
    """Return the program that the settings name; by default uv, from the interpreter's folder or the PATH, or pip."""
    if settings.program != "pip":
        beside = os.path.dirname(settings.interpreter)
        program = shutil.which("uv", path=beside) or shutil.which("uv", path=settings.environ.get("PATH", os.defpath))
        if program is not None:
            return Uv(settings, lock_fd, on_line, program)
        if settings.program == "uv":
            msg = f"there is no uv, neither in {beside} nor on the PATH"
            raise EnvironmentBuildError(msg)
    return Pip(settings, lock_fd, on_line)


def _end(process: "subprocess.Popen[bytes]") -> int | None:
    """End a program and all processes of its group, and return its exit status; None where it is lost."""
    # No other process can have its number, since it is not waited for yet. Its remaining processes hold our lock.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    process.stdout.close()
    return wait_for(process)


def _umask() -> int:
    """Return the umask of a build: this process's, plus no writing by others; os.umask(3) would change it."""
    for line in (text_of("/proc/self/status") or "").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8) | _OTHERS_MAY_NOT_WRITE
    return _OTHERS_MAY_NOT_WRITE


def _version_of(program: str) -> str:
    _, answer = output_of([program, "--version"])
    return " ".join(answer.split()[:2]) or "uv"


def _secrets_of(environ: Mapping[str, str], pip: Mapping[str, str]) -> list[str]:
    """Return the secrets in the variables and in the settings of pip and uv."""
    configured = [value for name, value in environ.items() if name.startswith(("PIP_", "UV_"))]
    configured += [*pip.values(), *" ".join(text_of(path) or "" for path in uv_files(environ)).split()]
    return [*secrets_of(environ), *_passwords([*environ.values(), *configured]), *_in_queries(configured)]


def _in_queries(texts: list[str]) -> Iterator[str]:
    """Yield the values in the queries of URLs, which give access to some indexes; a short one with its name."""
    for place in (place for text in texts for place in text.split() if "://" in place):
        for pair in place.strip("\"',").partition("?")[2].partition("#")[0].split("&"):
            value = pair.partition("=")[2]
            secret = value if len(value) >= SECRET_MIN_LENGTH else pair
            yield from {secret, unquote(secret)} if value else ()


def _passwords(texts: list[str]) -> Iterator[str]:
    """Yield the passwords in URLs, which an installer may print without the URL."""
    for information in userinfo_of("\n".join(texts)):
        for secret in (information, information.partition(":")[2]):
            yield from (form for form in {secret, unquote(secret)} if len(form) >= SECRET_MIN_LENGTH)
