"""
The names in the documents: commands with their options, variables, modules and files exist.

Not here: the outputs of commands (test_docs), and links (test_docs).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from dkist_processing_core.cli import app
from tests.test_docs import DOCUMENTS, ROOT

# The reference of the command line is generated from it.
PAGES = [
    *(page for page in DOCUMENTS if page.name != "cli.md"),
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    ROOT / "config" / "airflow" / "README.md",
    ROOT / "telemetry" / "README.md",
]
CODE = [path for folder in ("dkist_processing_core", "examples") for path in (ROOT / folder).rglob("*.py")]
_COMMAND = re.compile(r"dkist-core((?: +[^\s`|;)\"',]+)+)")
_VARIABLE = re.compile(r"\b(?:DKIST_CORE|ISB|EVENT|MESH|RETRY|IS_NOTEBOOK|BUILD|SOLAR)(?:_[A-Z]+)+\b")
_MODULE = re.compile(r"python -m ((?:dkist_processing_core|tests|benchmarks)[\w.]*\w)")
_FILE = re.compile(
    r"`((?:benchmarks|config|dkist_processing_core|docs|examples|requirements|telemetry|tests)/[\w./-]*)`"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def unknown_words(line: str) -> Iterator[str]:
    """
    Yield the subcommand and the options of a printed command that `dkist-core` does not have.
    """
    command = get_command(app)
    options: set[str] = set()
    for word in (word.rstrip(".:") for word in line.split()):
        options |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        commands = getattr(command, "commands", {})
        if word.startswith("--"):
            if word.partition("=")[0] not in options:
                yield word
        elif word in commands:
            command = commands[word]
        elif commands:
            yield word


@each_page
def test_each_printed_command_exists_with_its_options(page: Path) -> None:
    """
    A reader can enter it: the command line has each subcommand and each option.
    """
    commands = _COMMAND.findall(page.read_text(encoding="utf-8"))

    assert {line: unknown for line in commands if (unknown := list(unknown_words(line)))} == {}


@each_page
def test_each_printed_name_of_a_variable_module_or_file_exists(page: Path) -> None:
    """
    Variables are read by the code; modules and files of the repository are where the page states.
    """
    text = page.read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in CODE).upper()

    variables = [name for name in _VARIABLE.findall(text) if name not in code]
    paths = [Path(*name.split(".")) for name in _MODULE.findall(text)]
    modules = [path for path in paths if not {ROOT / path.with_suffix(".py"), ROOT / path / "__main__.py"} & files()]
    missing = [name for name in _FILE.findall(text) if not (ROOT / name).exists()]

    assert (variables, modules, missing) == ([], [], [])


def files() -> set[Path]:
    """
    Return the modules of the repository.
    """
    return {
        path for folder in ("dkist_processing_core", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    }
