"""
The environments with published pipelines, and functions that run programs there.

Not here: the tests.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import ROOT
from tests.services.processes import SESSION_VARIABLE

REPLACED = ROOT / ".venv-replaced"
"""The pipelines with the release that they were published for, all as published."""
CLIENTS = ROOT / ".venv-clients"
"""The same pipelines with this library instead of that release."""
SECONDS = 1500.0
"""The time limit; an idle machine takes a thirtieth of it."""

_HERE = Path(__file__).parent


class MissingClientsError(RuntimeError):
    """
    An environment does not exist; the message states the command that creates it.
    """


@dataclass(frozen=True)
class Installed:
    """
    One of the environments, and a folder with the files that its processes write.
    """

    environment: Path
    folder: Path

    def __post_init__(self) -> None:
        """
        Raise an error if the environment does not exist.
        """
        if not (self.environment / ".stamp-clients").exists():
            name = self.environment.name
            msg = f"The published pipelines are missing: run `make {name}/.stamp-clients`, which needs Python 3.13"
            raise MissingClientsError(msg)
        self.folder.mkdir(mode=0o700)

    def run(
        self, program: str, *arguments: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """
        Run a program of the environment to its end, with only `variables` and the paths to write to in its environment.
        """
        programs = self.environment / "bin"
        environ = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "DKIST_CORE_STATE_DIR": str(self.folder / "state"),
            SESSION_VARIABLE: os.environ[SESSION_VARIABLE],
        }
        return subprocess.run(
            [programs / program, *arguments],
            cwd=cwd or self.folder,
            env=environ | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=SECONDS,
        )

    def ask(
        self, script: str, *arguments: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> Any:
        """
        Run a script of this folder there, and return the JSON that it writes to the file of its first argument.
        """
        answer = self.folder / f"{script}.json"
        answer.unlink(missing_ok=True)
        done = self.run("python", "-P", _HERE / f"{script}.py", answer, *arguments, cwd=cwd, variables=variables)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(answer.read_text(encoding="utf-8"))
