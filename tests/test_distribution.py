"""
The source distribution: the commands of the documents work in it, from the installation to the first program.

Not here: the outputs of the commands (test_docs), and the lock files (test_door).
"""

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.test_docs import DOCUMENTS, ROOT, blocks_of

STAMPS = [".venv/.stamp-test", ".venv-airflow/.stamp-airflow", ".venv-clients/.stamp-clients"]


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Build the source distribution and return the folder of its unpacked files.
    """
    folder = tmp_path_factory.mktemp("distribution")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_the_first_program_runs_after_the_printed_commands(distribution: Path, tmp_path: Path, state_dir: Path) -> None:
    """
    The documents print the same commands of the installation; after them, the README's program runs in any folder.
    """
    printed = {block.text for path in DOCUMENTS for block in blocks_of(path.read_text()) if block.kind == "set up"}
    (install,) = printed
    (program,) = (block.text for block in blocks_of((ROOT / "README.md").read_text()) if block.kind == "hello.py")
    (tmp_path / "hello.py").write_text(program)
    commands = [line.removeprefix("$ ") for line in install.splitlines()]
    # The requirements are those of this environment, which a fresh one finds without a package index. PYTHONPATH does
    # not activate the editable installation of the library there.
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).resolve().parent}{os.pathsep}{os.environ['PATH']}",
        "DKIST_CORE_STATE_DIR": str(state_dir),
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }

    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join([*commands, f"cd '{tmp_path}'", "python hello.py", "dkist-core timeline"])],
        cwd=distribution,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "FitLimb | radius: 46.68 pixels" in done.stdout
    assert "✓ FitLimb" in done.stdout


def test_the_targets_of_the_documents_have_their_files(distribution: Path) -> None:
    """
    `make` finds the files that its targets need, and pytest finds the tests of files.
    """
    targets = ["demo", "docs", "lint", *STAMPS]
    of_files = [
        f"tests/test_{name}.py"
        for name in ("benchmarks", "deployed_files", "docs", "door", "drawings", "telemetry_files")
    ]
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *of_files]

    done = [
        subprocess.run(command, cwd=distribution, capture_output=True, text=True, check=False)
        for command in (["make", "--dry-run", *targets], collect)
    ]

    assert [(each.returncode, each.stderr) for each in done] == [(0, ""), (0, "")], done[1].stdout


def test_the_description_on_a_package_index_has_no_relative_link(distribution: Path) -> None:
    """
    A package index shows the README without the repository: its links lead to files of this version.
    """
    described = email.message_from_string((distribution / "PKG-INFO").read_text(encoding="utf-8"))
    text = described.get_payload()
    assert isinstance(text, str)
    urls = dict(url.split(", ", 1) for url in described.get_all("Project-URL", []))

    links = re.findall(r"\]\(([^)#]+)", text)
    files = f"{urls['Repository']}/src/v{described['Version']}/"

    assert links
    assert [link for link in links if not link.startswith(files)] == []
    assert [link for link in links if not (ROOT / link.removeprefix(files)).exists()] == []


def test_each_extra_installs_what_the_library_or_its_examples_import() -> None:
    """
    An extra for something that does not exist yet would install packages without a use.
    """
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [
        path.read_text() for folder in ("dkist_processing_core", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    imported = set(re.findall(r"^ *(?:from|import) (\w+)", "\n".join(sources), flags=re.MULTILINE))

    names = {extra: {name for each in extras[extra] for name in re.findall(r"\w+", each)} for extra in extras}

    assert [extra for extra in extras.keys() - {"test", "docs"} if not names[extra] & imported] == []
