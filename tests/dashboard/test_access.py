"""
Who may use the dashboard: tokens, sessions, a proxy's header, and the refusal to start without any of them.
"""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.api.endpoints import ENDPOINTS
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.http.access import COOKIE, Role, Rules
from dkist_processing_core.dashboard.options import options
from dkist_processing_core.errors import ConfigurationError
from tests.dashboard.ground import dashboard
from tests.dashboard.serving import Site, running
from tests.stored import running_run

TOKEN, READ_TOKEN = "o" * 20, "r" * 20


@pytest.fixture
def token_files(tmp_path: Path) -> dict[str, Any]:
    """Return options with a token of operators and one of readers."""
    files = {"token_file": tmp_path / "token", "read_token_file": tmp_path / "read-token"}
    for file, token in zip(files.values(), (TOKEN, READ_TOKEN), strict=True):
        file.write_text(f"{token}\n")
        file.chmod(0o600)
    return dict(files)


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "dashboard.example"])
def test_an_address_that_others_reach_needs_a_proof(host: str) -> None:
    """The message names both ways to give one."""
    settings = DKISTProcessingCoreConfiguration.read()

    with pytest.raises(ConfigurationError, match="expected --token-file, or --user-header with --trusted-proxy"):
        options(settings, host=host)
    assert options(settings).rules.is_open


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"user_header": "X-User"}, "without the addresses of the proxies"),
        ({"user_header": "X-User", "trusted_proxies": ["proxy"]}, "found 'proxy', expected the address of a proxy"),
        ({"token_file": Path("/nowhere/token")}, "the token file /nowhere/token cannot be used: No such file"),
        ({"trace_url": "javascript:alert(1)"}, "expected an http or https URL that may contain {span_id}, {trace_id}"),
        ({"log_url": "https://log.example/{password}"}, "expected an http or https URL that may contain {attempt}"),
        ({"log_url": "https://log.example/{"}, "expected an http or https URL that may contain {attempt}"),
    ],
)
def test_a_wrong_option_is_refused_at_the_start(given: dict[str, Any], message: str) -> None:
    """The message says what was found and what was expected."""
    with pytest.raises(ConfigurationError) as refusal:
        options(DKISTProcessingCoreConfiguration.read(), **given)
    assert message in str(refusal.value)


@pytest.mark.parametrize("text", ["", "short", "two words of a long text", "für-alle-und-jeden"])
def test_a_token_must_be_long_and_plain(text: str, tmp_path: Path) -> None:
    """The message does not show it."""
    (tmp_path / "token").write_text(text)

    with pytest.raises(ConfigurationError, match="has no token of 16 or more ASCII characters") as refusal:
        options(DKISTProcessingCoreConfiguration.read(), token_file=tmp_path / "token")
    assert not text or text not in str(refusal.value).replace(str(tmp_path), "")


def test_options_have_settings(monkeypatch: pytest.MonkeyPatch, token_files: dict[str, Any]) -> None:
    """An option takes the place of its setting."""
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_HOST", "0.0.0.0")
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_PORT", "8090")
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_READ_ONLY", "true")
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_TOKEN_FILE", str(token_files["token_file"]))
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_USER_HEADER", "X-User")
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/24")
    monkeypatch.setenv("DKIST_CORE_DASHBOARD_TRACE_URL", "https://traces.example/{trace_id}")

    found = options(DKISTProcessingCoreConfiguration.read(), port=0)

    assert (found.host, found.port, found.rules.is_read_only) == ("0.0.0.0", 0, True)
    assert found.rules.tokens == {Role.OPERATOR: TOKEN}
    assert found.rules.trusts("10.1.0.200")
    assert not found.rules.trusts("10.0.0.8")
    assert found.trace_url == "https://traces.example/{trace_id}"


@pytest.mark.parametrize(
    ("host", "proxies", "warnings"),
    [("0.0.0.0", [], 1), ("0.0.0.0", ["10.0.0.7"], 0), ("127.0.0.1", [], 0)],
)
def test_a_token_that_crosses_the_network_is_warned_of(
    host: str, proxies: list[str], warnings: int, token_files: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once, unless a proxy is there to encrypt it."""
    options(DKISTProcessingCoreConfiguration.read(), host=host, trusted_proxies=proxies, **token_files)

    assert [record.message.count("clear text") for record in caplog.records] == [1] * warnings


def test_an_address_that_stands_for_all_is_shown_by_the_name_of_the_host(token_files: dict[str, Any]) -> None:
    """A browser can open what is shown."""
    with dashboard(host="0.0.0.0", is_awaited=False, **token_files) as served:
        shown = served.address

    assert shown.startswith(f"http://{socket.gethostname()}:")


def test_a_person_logs_in_by_a_token_and_out_again(token_files: dict[str, Any]) -> None:
    """The token is in neither a page, an address nor the cookie, and the cookie is not for scripts or other sites."""
    with running(**token_files) as site:
        sent_to = site.get("/", x="1")
        page = site.get(sent_to.headers["Location"])
        wrong = site.request("POST", "/login?next=/", "token=wrong")
        done = site.request("POST", sent_to.headers["Location"], f"token={TOKEN}")
        cookie = done.headers["Set-Cookie"]
        inside = site.get("/", headers={"Cookie": cookie.partition(";")[0]})
        out = site.request("POST", "/logout", headers={"Cookie": cookie.partition(";")[0]})

    assert (sent_to.status, sent_to.headers["Location"]) == (303, "/login?next=%2F%3Fx%3D1")
    assert page.status == 200
    assert (wrong.status, wrong.headers["Set-Cookie"]) == (401, None)
    assert (done.status, done.headers["Location"]) == (303, "/?x=1")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in page.text + wrong.text + cookie + inside.text
    assert inside.status == 200
    assert "Max-Age=0" in out.headers["Set-Cookie"] or "expires" in out.headers["Set-Cookie"]


@pytest.mark.parametrize("after", ["https://evil.example/", "//evil.example/", "/\\evil.example", "x", "/a\r\nb: c"])
def test_a_login_leads_only_to_this_site(after: str, token_files: dict[str, Any]) -> None:
    """An address of another site is replaced by the first page."""
    with running(**token_files) as site:
        page = site.get("/login", next=after)

    assert 'action="/login?next=%2F"' in page.text


def test_programs_use_a_token_in_a_header(token_files: dict[str, Any]) -> None:
    """Without one, or with a wrong one, they get a problem in JSON."""
    with running(**token_files) as site:
        statuses = [site.get("/", headers=bearer(token)).status for token in (TOKEN, READ_TOKEN, "x" * 20)]
        refused = site.get("/live", of="/")
        with site.viewer("/", headers=bearer(READ_TOKEN)) as viewer:
            parts = viewer.parts()

    assert statuses == [200, 200, 303]
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert "expected a token in the header Authorization" in refused.json["detail"]
    assert parts


def test_the_header_of_a_proxy_counts_only_from_the_proxy() -> None:
    """Another client that sends the header is refused."""
    given = {"user_header": "X-User"}
    with running(**given, trusted_proxies=["127.0.0.1"]) as site:
        from_proxy = site.get("/", headers={"X-User": "ada"}).status, site.get("/").status
    with running(**given, trusted_proxies=["192.0.2.7"]) as site:
        from_elsewhere = site.get("/", headers={"X-User": "ada"})

    assert from_proxy == (200, 401)
    assert from_elsewhere.status == 401
    assert "X-User" in from_elsewhere.text


def test_a_proxy_may_forward_what_it_has_checked_itself(token_files: dict[str, Any]) -> None:
    """Its header counts beside one of the scheme Basic; a wrong token is still refused."""
    with running(user_header="X-User", trusted_proxies=["127.0.0.1"], **token_files) as site:
        basic = site.get("/", headers={"X-User": "ada", "Authorization": "Basic YWRhOmE="})
        wrong = site.get("/", headers={"X-User": "ada"} | bearer("x" * 20))

    assert (basic.status, wrong.status) == (200, 303)


def test_a_page_renews_the_session(token_files: dict[str, Any]) -> None:
    """A session ends some hours after the last page; a request by another proof begins none."""
    with running(**token_files) as site:
        cookie = site.request("POST", "/login", f"token={READ_TOKEN}").headers["Set-Cookie"].partition(";")[0]
        renewed = site.get("/", headers={"Cookie": cookie}).headers["Set-Cookie"]
        by_token = site.get("/", headers=bearer(READ_TOKEN)).headers["Set-Cookie"]

    assert Rules({Role.READER: READ_TOKEN}).role_of_session(renewed.partition(";")[0].partition("=")[2]) is Role.READER
    assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in renewed.split(";")}
    assert by_token is None


def test_a_cookie_behind_https_is_sent_by_https_only(token_files: dict[str, Any]) -> None:
    """A trusted proxy knows how the browser requested the page."""
    forwarded = {"X-Forwarded-Proto": "https"}

    def logged_in(site: Site) -> str:
        return str(site.request("POST", "/login", f"token={TOKEN}", forwarded).headers["Set-Cookie"])

    with running(**token_files, trusted_proxies=["127.0.0.1"]) as site:
        trusted = logged_in(site)
    with running(**token_files) as site:
        untrusted = logged_in(site)

    assert "Secure" in trusted
    assert "Secure" not in untrusted


def test_a_session_is_that_of_its_role_and_its_token() -> None:
    """A changed cookie, one of another role, and one of an earlier token count for nothing."""
    rules = Rules({Role.OPERATOR: TOKEN, Role.READER: READ_TOKEN})
    session = rules.session(Role.READER)
    role, until, signature = session.split(".")

    assert rules.role_of_session(session) is Role.READER
    assert rules.role_of_session(f"operator.{until}.{signature}") is None
    assert rules.role_of_session(f"{role}.{int(until) + 1}.{signature}") is None
    assert rules.role_of_session(f"{role}.{until}.") is None
    assert Rules({Role.READER: "n" * 20}).role_of_session(session) is None
    assert COOKIE not in session


def test_nothing_shows_the_tokens_of_rules() -> None:
    """Neither their text, as in a log, nor that of the options."""
    assert TOKEN not in repr(Rules({Role.OPERATOR: TOKEN}))


def test_no_page_and_no_answer_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch, token_files: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the tokens nor the passwords of the settings, in pages, in JSON, in metrics and in the log."""
    secrets = [TOKEN, READ_TOKEN, "password-of-the-broker", "password-of-airflow"]
    monkeypatch.setenv("ISB_PASSWORD", secrets[2])
    monkeypatch.setenv("DKIST_CORE_AIRFLOW_PASSWORD", secrets[3])
    caplog.set_level("DEBUG", "dkist_processing_core")
    paths = ["/metrics", "/openapi.json", "/login", "/health/ready", *PAGES, *(each.path for each in ENDPOINTS)]
    with running(**token_files) as site:
        answers = [site.get(path, headers=bearer(TOKEN)) for path in paths]
    shown = "".join(answer.text + str(answer.headers) for answer in answers) + caplog.text

    assert {answer.status for answer in answers} <= {200, 303, 400, 404}
    assert [secret for secret in secrets if secret in shown] == []


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\u202eevil", "n" * 5000, "'\";--", "%00 &amp;"])
def test_programs_get_hostile_names_as_they_are(name: str) -> None:
    """JSON has escapes for all of them, and the name leads to the run."""
    with running() as site:
        site.publish(*(report for report in running_run(name)))
        listed = site.get("/api/v1/runs").json["runs"]
        run = site.get("/api/v1/run", workflow="l1_to_l2_dlnirsp", version="dev", id=listed[0]["dagRunId"])

    assert [each["dagRunId"] for each in listed] == [name]
    assert (run.status, run.json["dagRunId"]) == (200, name)


def test_the_headers_of_the_documented_proxy_are_those_of_a_user_who_may_change_something() -> None:
    """
    At another port as well, which a browser names in the origin of a form.
    """
    page = (Path(__file__).parents[2] / "docs/how-to/dashboard.md").read_text()
    set_by_proxy = re.findall(r"proxy_set_header (\S+) (\S+);", page)
    values = {"$user": "ana", "$scheme": "https", "$host": "127.0.0.1", "$http_host": "127.0.0.1:8443"}
    headers = {name: values[variable] for name, variable in set_by_proxy}
    origin = {"Origin": "https://127.0.0.1:8443", "Content-Type": "application/x-www-form-urlencoded"}
    with running(user_header="X-Remote-User", trusted_proxies=["127.0.0.1"]) as site:
        without, looked = site.get("/runs"), site.get("/runs", headers)
        changed = site.request("POST", "/bus/letters", "action=retry&name=i1", headers | origin)

    assert (without.status, looked.status) == (401, 200)
    # The origin is that of the host, and the role that of an operator: only the token of the form is missing.
    assert "the form is not one of this dashboard" in changed.text
