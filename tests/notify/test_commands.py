"""
The commands about notices.

Not here: what a mute holds (test_grouping, test_counting), and the errors of the file (test_routes).
"""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dkist_processing_core.cli.program import app
from dkist_processing_core.collect.store import Store
from dkist_processing_core.inbox import Database
from dkist_processing_core.notify.counting import Counting
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.notify.receivers import HttpReceiver
from tests.services.sockets import closed_port

FAMILY = "0123456789abcdef"


def run(*arguments: str) -> tuple[int, str]:
    """
    Run a command, and return its exit code and its output in one line.
    """
    result = CliRunner().invoke(app, ["notify", *arguments], env={"COLUMNS": "1000"})
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def routes(tmp_path: Path, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A file with a route to a webhook, named by the variable.
    """
    path = tmp_path / "notify.toml"
    path.write_text('[routes.ops]\n[routes.ops.webhook]\nurl = { variable = "THE_HOOK" }\nformat = "slack"\n')
    monkeypatch.setenv("DKIST_CORE_NOTIFY", str(path))
    monkeypatch.setenv("THE_HOOK", receiver.url)
    return path


@pytest.mark.usefixtures("routes")
def test_a_sample_is_sent_and_its_answer_is_shown(receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Once; a failure is an error without the address.
    """
    sent = run("test", "ops")
    receiver.answer = lambda: (403, {}, b"no")
    refused = run("test", "ops")
    with closed_port() as port:
        monkeypatch.setenv("THE_HOOK", f"http://127.0.0.1:{port}/hidden-path")
        unreachable = run("test", "ops")

    assert sent == (0, "the route ops has a sample: HTTP 200, a webhook in the form slack")
    assert receiver.requests[0].text.startswith("*sample: Sample failed: nothing has failed: this notice was sent by")
    assert refused[0] == unreachable[0] == 1
    assert refused[1].startswith(
        "error: the route ops: the webhook answered HTTP 403 Forbidden, expected an answer 2xx"
    )
    assert unreachable[1] == "error: the route ops: the webhook cannot be reached: no connection, or it broke"
    assert len(receiver.requests) == 2
    assert run("test", "other")[0] == 2


def test_routes_are_checked_with_their_secrets(routes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is sent.
    """
    good = run("check")
    monkeypatch.delenv("THE_HOOK")
    without = run("check", "--notify", str(routes))
    monkeypatch.delenv("DKIST_CORE_NOTIFY")

    assert good == (
        0,
        "ops: task.failed, workflow.failed, task.overdue, workflow.overdue, to a webhook in the form slack",
    )
    assert without[0] == 1
    assert f"{routes}: the route ops: the variable THE_HOOK of a secret is empty, expected one line" in without[1]
    assert run("check") == (2, run("check")[1])
    assert "found no file of routes; name one by --notify FILE or DKIST_CORE_NOTIFY" in run("check")[1]


def test_a_check_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An address that is none, a file, and a program; no secret is shown.
    """
    path = tmp_path / "notify.toml"
    path.write_text(
        '[routes.a.webhook]\nurl = { variable = "THE_HOOK" }\nformat = "slack"\nca = "no.pem"\n'
        '[routes.b.command]\nargv = ["no-such-program"]\n'
    )
    monkeypatch.setenv("THE_HOOK", "hunter2")

    code, output = run("check", "--notify", str(path))

    assert code == 1
    assert "the route a: webhook.url: its secret is no address, expected one as https://host/path; " in output
    assert f"the route a: ca: there is no file {tmp_path}/no.pem; " in output
    assert "the route b: command.argv: there is no program 'no-such-program'" in output
    assert "hunter2" not in output


def test_a_family_or_a_workflow_is_muted_until_a_time(database: Database) -> None:
    """
    A family is named by its beginning, and must be in the store.
    """
    store = Store()
    with database.transaction() as transaction:
        store.clear(transaction)
        store.add(transaction, failed("T", fingerprint=FAMILY))
        store.fold(transaction, 10)

    muted = [
        run("mute", "0123", "--for", "2h"),
        run("mute", "--workflow", "l0_to_l1", "--until", "2999-01-01T00:00Z"),
    ]
    listed = run("mutes")
    as_json = json.loads(run("mutes", "--json")[1])
    ended = [run("unmute", "0123"), run("unmute", "--workflow", "l0_to_l1")]

    assert [code for code, _ in muted] == [0, 0]
    assert muted[0][1].endswith(f": the family {FAMILY}")
    assert listed[1].index(FAMILY) < listed[1].index("the workflow l0_to_l1")
    assert [(each["kind"], each["name"]) for each in as_json["mutes"]] == [("family", FAMILY), ("workflow", "l0_to_l1")]
    assert as_json["mutes"][1]["until"] == "2999-01-01T00:00:00.000000Z"
    assert ended == [
        (0, f"no longer muted: the family {FAMILY}"),
        (0, "no longer muted: the workflow l0_to_l1"),
    ]
    assert run("mutes") == (0, "nothing is muted")
    assert run("unmute", "0123")[0] == 1


def test_a_family_that_only_a_route_has_is_muted(database: Database) -> None:
    """
    The store may lag behind.
    """
    counting = Counting(read_settings(), {"ops": Route.model_validate({"command": {"argv": ["true"]}})})
    with database.transaction() as transaction:
        Store().clear(transaction)
        counting.add(transaction, failed("T", fingerprint="abcdef0123456789"))
        counting.fold(transaction)

    assert run("mute", "abcd", "--for", "1h")[1].endswith(": the family abcdef0123456789")
    assert run("unmute", "abcd")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["mute", "0123"], "expected either --until or --for"),
        (["mute", "0123", "--for", "2h", "--until", "2999-01-01"], "expected either --until or --for"),
        (["mute", "--for", "2h"], "expected either a family of failures or --workflow"),
        (["mute", "0123", "--workflow", "W", "--for", "2h"], "expected either a family of failures or --workflow"),
        (["mute", "0123", "--for", "soon"], "found 'soon', expected a duration as 90s, 30m, 2h or 7d"),
        (["mute", "0123", "--until", "2001-01-01"], "found '2001-01-01', expected a time in the future"),
        (["mute", "--workflow", "W" * 251, "--for", "2h"], "expected a name of at most 250 characters"),
    ],
)
def test_a_mute_that_is_not_clear_is_refused(arguments: list[str], problem: str) -> None:
    """
    With what is expected.
    """
    code, output = run(*arguments)

    assert code == 2
    assert problem in output


@pytest.mark.usefixtures("database")
def test_a_family_that_is_not_in_the_store_is_not_muted() -> None:
    """
    The latest families are named.
    """
    code, output = run("mute", "ffff", "--for", "1h")

    assert code == 1
    assert "there is no family 'ffff' of failures in the store" in output
