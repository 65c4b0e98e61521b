"""
The file of the routes: its fields, its errors, and its secrets.

Not here: the commands that read it (test_commands).
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.notify.fields import Secret
from dkist_processing_core.notify.routes import Route, routes_in
from dkist_processing_core.text import redact

EXAMPLE = Path(__file__).parents[2] / "config" / "notify.example.toml"
RECEIVER = 'command = { argv = ["true"] }'


def test_the_example_has_each_field() -> None:
    """
    Of routes and of receivers, with the defaults where it states that a value is one.
    """
    routes = routes_in(EXAMPLE)

    given = [route.model_fields_set for route in routes.values()]
    assert list(routes) == ["operators", "on-call", "archive", "pager"]
    assert set().union(*given) == set(Route.model_fields)
    defaults = routes["operators"]
    on_call = routes["on-call"]
    assert (on_call.window, on_call.clear_after) == (defaults.window, defaults.clear_after) == (300.0, 900.0)
    assert (on_call.most_at_once, on_call.events) == (defaults.most_at_once, defaults.events)
    assert [secret.variable or str(secret.file) for route in routes.values() for secret in route.secrets] == [
        "SLACK_WEBHOOK",
        "/etc/dkist-core/mail-password",
        "EVENTS_AUTHORIZATION",
    ]


@pytest.mark.parametrize(
    ("hour", "is_quiet"), [(7, False), (8, True), (12, True), (16, True), (17, False), (20, False)]
)
def test_quiet_hours_are_those_of_a_time_zone(hour: int, is_quiet: bool) -> None:  # noqa: FBT001
    """
    22:00 to 07:00 in Honolulu are 08:00 to 17:00 UTC.
    """
    moment = datetime(2026, 11, 22, hour, tzinfo=UTC).timestamp()

    assert routes_in(EXAMPLE)["on-call"].rule.is_quiet(moment) == is_quiet


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "found no route, expected tables [routes.NAME] alone; config/notify.example.toml is an example"),
        ("[route.ops]", "found 'route', expected tables [routes.NAME] alone"),
        ("[routes.'a b']", "found the route 'a b', expected a name of up to 50 letters, digits, - and _"),
        ("routes.ops = 5", "the route ops, its table: found 5, expected a valid dictionary or instance of Route"),
        ("[routes.ops]", "the route ops, its table: found another value, expected one of webhook, email and command"),
        (
            f"[routes.ops]\n{RECEIVER}\nwindov = '5m'",
            "the route ops, windov: found a field of this name, expected one of events, workflows, tasks, causes,",
        ),
        (
            f"[routes.ops]\n{RECEIVER}\nwindow = 5",
            "the route ops, window: found 5, expected a duration as '90s', '15m', '2h' or '1d'",
        ),
        (f"[routes.ops]\n{RECEIVER}\nwindow = '0s'", "the route ops, window: found '0s', expected a duration as"),
        (
            f"[routes.ops]\n{RECEIVER}\nevents = ['task.fail']",
            "the route ops, events.0: found 'task.fail', expected one of task.failed, workflow.failed, task.overdue,",
        ),
        (
            f"[routes.ops]\n{RECEIVER}\ncauses = ['oom']",
            "the route ops, causes.0: found 'oom', expected one of lost, exit_code, signal,",
        ),
        (
            f"[routes.ops]\n{RECEIVER}\nsmallest_group = 0",
            "the route ops, smallest_group: found 0, expected greater than or equal to 1",
        ),
        (
            f"[routes.ops]\n{RECEIVER}\nquiet_hours = {{ begin = '25:00', end = '07:00', timezone = 'Mars' }}",
            (
                "the route ops, quiet_hours.begin: found '25:00', expected a time of day between quotes, as '22:00'; "
                "the route ops, quiet_hours.timezone: found 'Mars', expected the name of a time zone"
            ),
        ),
        (
            "[routes.ops.webhook]\nurl = 'https://x/'",
            "the route ops, webhook.format: found nothing, expected this field",
        ),
        (
            "[routes.ops.webhook]\nurl = 'ftp://x/'\nformat = 'slack'",
            "the route ops, webhook.url: found another value, expected an address as https://host/path",
        ),
        (
            "[routes.ops.webhook]\nurl = { variabel = 'X' }\nformat = 'slack'",
            "the route ops, webhook.url.variabel: found a field of this name, expected one of variable, file",
        ),
        (
            (
                "[routes.ops.email]\nhost = 'h'\nport = 25\nsecurity = 'none'\nsender = 's@h'\nrecipients = ['r@h']\n"
                "user = 'u'\npassword = { variable = 'X' }"
            ),
            "the route ops, email: found another value, expected security = 'starttls' or 'tls' beside a password",
        ),
        (
            "[routes.ops.email]\nhost = 'h'\nport = 25\nsecurity = 'none'\nsender = \"a\\nb\"\nrecipients = []",
            (
                "the route ops, email.sender: found 'a\\nb', expected one line of printable characters; "
                "the route ops, email.recipients: found an empty list, expected one or more"
            ),
        ),
        (
            f"[routes.ops]\n{RECEIVER}\nquiet_hours = {{ begin = '22:00Z', end = '07:00' }}",
            "the route ops, quiet_hours.begin: found '22:00Z', expected a time of day between quotes, as '22:00'",
        ),
        (
            f"[routes.ops]\n{RECEIVER}\nquiet_hours = {{ begin = '22:00', end = '22:00' }}",
            "the route ops, quiet_hours: found another value, expected an end that differs from the begin",
        ),
        (
            "[routes.ops.email]\nhost = 'h'\nport = 25\nsecurity = 'none'\nsender = 'core'\nrecipients = ['a@h, b@']",
            (
                "the route ops, email.sender: found 'core', expected one mail address, as 'Name <name@example.com>'; "
                "the route ops, email.recipients.0: found 'a@h, b@', expected one mail address"
            ),
        ),
        (
            "[routes.ops]\ncommand = { argv = [] }",
            "the route ops, command.argv: found an empty list, expected one or more",
        ),
        ("[routes.ops", "is not in TOML"),
    ],
)
def test_an_error_names_file_route_and_field(tmp_path: Path, content: str, problem: str) -> None:
    """
    With what was found, and what is expected; all errors at once.
    """
    path = tmp_path / "notify.toml"
    path.write_text(content)

    with pytest.raises(ConfigurationError) as refused:
        routes_in(path)

    assert str(refused.value).startswith(f"{path}")
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
    assert redact(str(refused.value)) == str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "[routes.ops.webhook]\nurl = 'https://hooks.slack.com/services/hunter2'\nformat = 'slack'",
        "[routes.ops.webhook]\nurl = 'https://u:hunter2@host/'\nformat = 'slack'",
        "[routes.ops.webhook]\nurl = 'https://host/?token=hunter2'\nformat = 'slack'",
        "[routes.ops.webhook]\nurl = 'https://host/'\nformat = 'slack'\nheaders = { Authorization = 'hunter2' }",
        "[routes.ops.webhook]\nurl = 'https://host/'\nformat = 'slack'\nheaders = { X-Api-Key = 'hunter2' }",
        "[routes.ops.email]\npassword = 'hunter2'",
        "[routes.ops.webhook]\nurl = 'https://host/'\nformat = 'slack'\ntoken = 'hunter2'",
        "[routes.ops.webhook]\nurl = { value = 'hunter2' }\nformat = 'slack'",
        "[routes.ops]\npassword = 'hunter2'\nwebhook = 'hunter2 = ",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    """
    Wherever it is; the message names the places that may have one.
    """
    path = tmp_path / "notify.toml"
    path.write_text(content)

    with pytest.raises(ConfigurationError) as refused:
        routes_in(path)

    shown = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    assert "hunter2" not in shown


def test_a_route_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It has only the names of variables and files.
    """
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.slack.com/services/hunter2")
    route = routes_in(EXAMPLE)["operators"]

    assert route.webhook is not None
    assert isinstance(route.webhook.url, Secret)
    assert route.webhook.url.read().endswith("hunter2")
    assert "hunter2" not in repr(route)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """
    With the ways to name another one.
    """
    with pytest.raises(ConfigurationError, match="No such file or directory; --notify and DKIST_CORE_NOTIFY name a"):
        routes_in(tmp_path / "nowhere.toml")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the current folder of the process is.
    """
    (tmp_path / "token").write_text("https://host/hidden")
    path = tmp_path / "notify.toml"
    path.write_text('[routes.ops.webhook]\nurl = { file = "token" }\nformat = "slack"\nca = "ca.pem"\n')
    monkeypatch.chdir("/")

    webhook = routes_in(path)["ops"].webhook

    assert webhook is not None
    assert isinstance(webhook.url, Secret)
    assert webhook.url.read() == "https://host/hidden"
    assert webhook.ca == tmp_path / "ca.pem"
