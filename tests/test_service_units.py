"""The units of systemd in `config/systemd`: systemd accepts them, they restrict the service, and hold no secret."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.text import is_secret_name
from tests.running import ROOT
from tests.test_document_names import unknown_words

FOLDER = ROOT / "config" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
PROGRAM = "/opt/dkist-core/bin/dkist-core"
# systemd's own measure, from 0 to 100: 96 without any restriction.
MOST_EXPOSED = 20

each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)


def assigned(path: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit, in order."""
    return re.findall(r"^(\w+)=(.*)$", path.read_text(), flags=re.MULTILINE)


def test_there_is_a_unit_for_each_lasting_command() -> None:
    """The list in the folder's own page has the same units."""
    named = re.findall(r"`(dkist-core-\w+\.service)`", (FOLDER / "README.md").read_text())

    assert sorted(named) == [path.name for path in UNITS]
    assert [path.stem for path in UNITS] == [
        "dkist-core-collect",
        "dkist-core-dashboard",
        "dkist-core-relay",
        "dkist-core-watch",
    ]


@each_unit
def test_it_starts_a_command_that_exists(path: Path) -> None:
    """The command line has it, with its options."""
    (command,) = [value for name, value in assigned(path) if name == "ExecStart"]

    assert command.startswith(f"{PROGRAM} ")
    assert list(unknown_words(command.removeprefix(PROGRAM))) == []


@each_unit
def test_it_holds_no_secret_and_only_settings(path: Path) -> None:
    """Secrets are in a file that only root reads."""
    variables = [value.partition("=")[0] for name, value in assigned(path) if name == "Environment"]

    assert {name.lower() for name in variables} <= set(DKISTProcessingCoreConfiguration.model_fields)
    assert [name for name in variables if is_secret_name(name)] == []
    assert ("EnvironmentFile", "/etc/dkist-core/settings.env") in assigned(path)


@each_unit
def test_systemd_accepts_it_and_finds_it_restricted(path: Path, tmp_path: Path) -> None:
    """`systemd-analyze` has no complaint, with a program that exists in place of the installed one."""
    text = path.read_text()
    settings = dict(assigned(path))
    assert (settings["NoNewPrivileges"], settings["ProtectSystem"], settings["User"]) == ("yes", "strict", "dkist")
    unit = tmp_path / path.name
    unit.write_text(text.replace(PROGRAM, str(Path(sys.executable).resolve())))
    # A container may have no systemd; then the settings above are all that is checked.
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return

    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    measure = [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit)]
    measured = subprocess.run(measure, capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")
    assert measured.returncode == 0, measured.stdout
