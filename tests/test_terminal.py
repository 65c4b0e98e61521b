"""
Output to a terminal: no text from outside can control the terminal or hide in it, in any command.
"""

import io
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from typer.testing import CliRunner

from dkist_processing_core.bus import open_bus
from dkist_processing_core.cli.program import VisibleFormatter, app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.local._display_texts import write_lines
from dkist_processing_core.local.display import PlainDisplay
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import visible, visible_json
from tests.facts import failed, progressed
from tests.running import command
from tests.strategies import texts

# Characters that a terminal obeys or does not display. Visible signs of Arabic and other scripts are of the category
# Cf, too.
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
SEEN = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\n\t")
HOSTILE = "a\x1b[31mb\x9b2Jc\u202ed\u2066e\u200bf\ud83dg\x07h"
SHOWN = r"a\x1b[31mb\x9b2Jc\u202ed\u2066e\u200bf\ud83dg\x07h"


def unseen_in(text: str) -> set[str]:
    """
    Return the characters of a text that must not reach a terminal.
    """
    return {each for each in text if unicodedata.category(each) in UNSEEN} - SEEN


@given(texts())
def test_a_shown_text_holds_nothing_that_is_obeyed_or_hidden(text: str) -> None:
    """
    Other characters stay, and escaping a second time changes nothing.
    """
    shown = visible(text)

    assert unseen_in(shown) == set()
    assert shown == visible(shown)
    assert visible("é 🔭 中 ⚠️\n\t") == "é 🔭 中 ⚠️\n\t"


def test_every_character_is_decided_on() -> None:
    """
    Each category of Unicode is covered.
    """
    every = "".join(map(chr, range(sys.maxunicode + 1)))

    assert unseen_in(visible(every)) == set()
    assert visible(HOSTILE) == SHOWN


@given(st.recursive(texts(), lambda inner: st.lists(inner) | st.dictionaries(texts(), inner), max_leaves=5))
def test_json_states_the_same_without_any_of_them(value: object) -> None:
    """
    In JSON they are JSON's escapes, including C1 and lone surrogates.
    """
    shown = visible_json(json.dumps(value, indent=2, ensure_ascii=False))

    assert unseen_in(shown) == set()
    assert value == json.loads(shown)
    assert visible_json('"\x9b"') == '"\\u009b"'


@given(texts())
def test_what_rich_prints_is_shown_so_too(text: str) -> None:
    """
    This holds for plain text, styled text and cells of a table. Colours stay.
    """
    stream = io.StringIO()
    console = Terminal(file=stream, force_terminal=True, color_system="standard", width=200)

    console.print(Text(text, "red"), soft_wrap=True)
    console.out(text, highlight=False)
    console.print(Text("!", "red"))

    written = stream.getvalue()
    assert written.endswith("\x1b[31m!\x1b[0m\n")
    assert unseen_in(re.sub(r"\x1b\[\d*m", "", written)) == set()


def test_the_lines_of_a_task_are_shown_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A local run prints the lines of a task and messages about it.
    """
    stream = io.StringIO()

    write_lines("A", [HOSTILE, "\t12 frames"])
    PlainDisplay(Terminal(file=stream)).task_not_run(HOSTILE)

    assert capsys.readouterr().out == f"A | {SHOWN}\nA | \t12 frames\n"
    assert stream.getvalue() == f"{SHOWN}: not run: an upstream task failed\n"


def test_what_is_logged_to_a_terminal_is_shown_so_too() -> None:
    """
    The command line logs warnings, which may quote texts from outside.
    """
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "found %s", (HOSTILE,), None)

    assert VisibleFormatter("%(message)s").format(record) == f"found {SHOWN}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    Return a folder of journals in which every text is hostile, as in the settings.
    """
    folder = tmp_path / "\x1b[2J\u202e\x9b31m"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(folder))
    monkeypatch.setenv("DKIST_CORE_ENVIRONMENTS_DIR", str(folder / "environments"))
    names = {"workflow_name": "w\u202e\u200b", "workflow_version": "1\u2066", "run_id": "run\u202e"}
    facts = {"message": "m\u202e", "error_type": "E\u2066", "stack": "s", "phase": "p\u200b"}
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(
            progressed("A\u202e", 1, note="n\u200b", unit="\u2067u", **names),
            failed("B\u200b", **facts, **names),
        )
    remote = DKISTProcessingCoreConfiguration(
        dkist_core_state_dir=folder, mesh_config='{"interservice-bus": {"mesh_address": "old.example", "mesh_port": 1}}'
    )
    with open_bus(remote).open_journal() as journal:
        journal.append([Message("x\x1b\u202e", "k\x1b[1m", b"{}", Properties("i\x9b", "text/plain", "t\x1b"))])
        path = journal.path
    with closing(sqlite3.connect(path)) as connection, connection:
        refusal = ("r\x1b[31m\x9b\u202e", time.time())
        connection.execute("UPDATE message SET set_aside = ?, refused = ?, tries = 3", refusal)
        destination = "h\x1b\n1\nv\u202e\ne\x9b\nf\u200b"
        connection.execute("UPDATE fact SET value = ? WHERE name = 'destination'", (destination,))
    path.rename(folder / "outbox-$(reboot)\x1b[31m\u202e.db")
    return folder


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", ["outbox drain", "outbox retry 7", "outbox retarget aaaaaaaa"])
def test_no_command_lets_through_what_it_found(arguments: str) -> None:
    """
    The reports and errors contain names of folders and files.
    """
    result = CliRunner().invoke(app, arguments.split())

    assert unseen_in(result.output) == set()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "arguments", ["outbox list", "outbox list --set-aside", "doctor", "events list", "timeline", "environments list"]
)
def test_no_list_lets_through_what_it_shows(arguments: str, *, as_json: bool) -> None:
    """
    The lists contain names, destinations, reasons and events, as text and as JSON.
    """
    result = CliRunner().invoke(app, [*arguments.split(), *(["--json"] if as_json else [])])

    assert result.output.strip()
    assert unseen_in(result.output) == set()
    if as_json:
        lines = result.stdout.splitlines() if arguments.startswith("events") else [result.stdout]
        assert all(json.loads(line) for line in lines)


def test_advice_can_be_pasted_whatever_a_file_is_named(folder: Path) -> None:
    """
    A name that a shell would interpret is quoted, and a name that is changed for display is omitted.
    """
    (path,) = folder.glob("outbox-$*")
    unprintable = CliRunner().invoke(app, ["outbox", "list", "--set-aside"]).output
    path.rename(folder / "outbox-$(reboot).db")
    shown = CliRunner().invoke(app, ["outbox", "list", "--set-aside"]).output

    assert "dkist-core outbox retry --outbox '$(reboot)' --all" in shown
    assert "--outbox" not in unprintable
    assert "rename the file" in unprintable


def test_a_name_stays_on_its_line(folder: Path) -> None:
    """
    Otherwise the text after a newline would look like a line of the command, and would cut the advice.
    """
    (path,) = folder.glob("outbox-$*")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE message SET set_aside = NULL, refused = NULL")
    path.rename(folder / "outbox-a\nforged\tb.db")

    listed, examined = (CliRunner().invoke(app, command.split()).output for command in ("outbox list", "doctor"))

    assert [line for line in (listed + examined).splitlines() if line.lstrip().startswith("forged")] == []
    assert r"outbox-a\nforged\tb " in listed
    assert r"outbox-a\nforged\tb.db is for another broker" in examined
    assert "rename the file" in examined


@pytest.mark.parametrize(
    "arguments",
    [
        ["--\x1b[31m"],
        ["\x1b[31m"],
        ["events", "list", "--type", "\x9b"],
        ["timeline", "\u202e"],
        ["run", "\x1b:w", "--recipe-run-id", "1"],
    ],
)
def test_what_was_given_is_shown_so_in_errors(arguments: list[str]) -> None:
    """
    This includes errors of the command line's syntax.
    """
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code in (1, 2)
    assert unseen_in(result.output) == set()


def test_a_traceback_is_shown_so_too(tmp_path: Path) -> None:
    """
    This holds for `--debug`, in a separate process.
    """
    shown = subprocess.run(
        command("--debug", "timeline", "\x1b[31m"),
        env=os.environ | {"DKIST_CORE_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert unseen_in(shown.stderr) == set()


def test_an_error_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    An argument may contain a secret, such as a pasted URL.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SITE_TOKEN", "hunter22")

    for arguments in (["timeline", "hunter22"], ["hunter22"], ["run", "hunter22.py:w", "--recipe-run-id", "1"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (1, 2)
        assert "[redacted]" in result.output
        assert "hunter22" not in result.output
