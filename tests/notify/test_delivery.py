"""
The delivery of one notice to real receivers: a webhook, a mail server and a command.

Not here: further tries, which are those of each consumer (test_storm).
"""

import json
import logging
import os
import socketserver
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from dkist_processing_core.errors import ConfigurationError, GiveUpError, NotDeliveredError, RetryLaterError
from dkist_processing_core.events import encode
from dkist_processing_core.events.notice import decode_notice
from dkist_processing_core.notify.delivery import send
from dkist_processing_core.notify.routes import Route
from tests.notify.receivers import HttpReceiver
from tests.notify.samples import hostile_notice, notice
from tests.services.sockets import BlackHole, closed_port, free_ports
from tests.services.tls import CertificateAuthority, TlsFiles
from tests.waiting import wait_until


def route(**receiver: dict[str, Any]) -> Route:
    """
    Return a route to a receiver.
    """
    return Route.model_validate(receiver)


def refusal(kind: type[Exception], route: Route) -> str:
    """
    Return the error of the delivery by a route, whose cause may hold secrets and is left out.
    """
    with pytest.raises(kind) as raised:
        send(route, notice())
    assert raised.value.__cause__ is None
    return str(raised.value)


def webhook(url: object, **facts: Any) -> Route:
    """
    Return a route to a webhook.
    """
    return route(webhook={"url": url, "format": "cloudevents", "timeout": "2s"} | facts)


def test_a_webhook_gets_a_cloudevent_with_the_key_of_the_notice(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Its secrets come from a variable and a file.
    """
    monkeypatch.setenv("THE_ADDRESS", receiver.url)
    (tmp_path / "token").write_text("Bearer hidden-token\n")
    headers = {"Authorization": {"file": str(tmp_path / "token")}, "X-Team": "dkist"}

    answer = send(webhook({"variable": "THE_ADDRESS"}, headers=headers), notice())

    (request,) = receiver.requests
    assert answer == "HTTP 200"
    assert request.notice == notice()
    assert request.key == json.loads(request.body)["id"] == notice().id
    assert request.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert (request.headers["Authorization"], request.headers["X-Team"]) == ("Bearer hidden-token", "dkist")


def test_a_message_for_slack_has_the_facts(receiver: HttpReceiver) -> None:
    """
    A title in bold, and a line for each kind of fact.
    """
    send(webhook(receiver.url, format="slack"), notice())

    assert receiver.requests[0].text.split("\n") == [
        "*3 occurrences of ParseL0 failed: KeyError: 'missing'*",
        "ParseL0 failed: KeyError: 'missing'",
        "3 times until 2026-11-22 12:00:00 UTC, 5 times since 2026-11-22 12:00:00 UTC",
        "workflows: l0_to_l1 2.1, 2.2",
        "tasks: ParseL0",
        "2 runs, such as r1",
        "hosts: node-1",
        "first seen 2026-11-22 12:00:00 UTC, in version 2.1",
        "log: https://airflow.example/log",
        "details: dkist-core failures 01234567",
    ]


def test_hostile_text_is_no_markup_and_has_a_limit(receiver: HttpReceiver) -> None:
    """
    Neither a mention of all people nor a link, in a bounded message; a CloudEvent has it unchanged.
    """
    send(webhook(receiver.url, format="slack"), hostile_notice())

    text = receiver.requests[0].text
    assert "<" not in text
    assert ">" not in text
    assert "&lt;!channel&gt;" in text
    assert "@everyone" not in text
    assert "@example.com" not in text
    assert "](" not in text
    assert "`" not in text
    assert "\x1b" not in text
    assert len(text) <= 12_000
    assert decode_notice(encode(hostile_notice())) == hostile_notice()


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (400, {}, GiveUpError),
        (401, {}, GiveUpError),
        (404, {"Retry-After": "5"}, GiveUpError),
        (410, {}, GiveUpError),
        (301, {"Location": "http://127.0.0.1:1/"}, GiveUpError),
        (302, {}, GiveUpError),
        (304, {}, GiveUpError),
        (408, {}, NotDeliveredError),
        (429, {}, NotDeliveredError),
        (500, {}, NotDeliveredError),
        (503, {"Retry-After": "soon"}, NotDeliveredError),
    ],
)
def test_an_answer_decides_whether_it_is_tried_again(
    receiver: HttpReceiver, status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    """
    The error has the status alone, since the receiver may repeat a secret or a part of it.
    """
    receiver.answer = lambda: (status, headers, f"no: {receiver.url}\n<b>".encode())

    with pytest.raises(error, match=f"HTTP {status}") as refused:
        send(webhook({"file": secret_file(receiver.url)}), notice())

    assert "hidden-path" not in str(refused.value)
    assert "<b>" not in str(refused.value)
    assert len(receiver.requests) == 1


def secret_file(content: str) -> str:
    """
    Return the path of a file in memory with a secret, which exists as long as this process.
    """
    descriptor = os.memfd_create("secret")
    os.write(descriptor, content.encode())
    return f"/proc/self/fd/{descriptor}"


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_the_receiver_names_the_pause(receiver: HttpReceiver, status: int, as_date: bool) -> None:  # noqa: FBT001
    """
    In seconds or as a date.
    """
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    receiver.answer = lambda: (status, {"Retry-After": tomorrow if as_date else "86400"}, b"")

    with pytest.raises(RetryLaterError) as refused:
        send(webhook(receiver.url), notice())

    assert refused.value.seconds == pytest.approx(86400.0, abs=60)


def test_an_address_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Libraries put it into their texts, and it may be the secret itself.
    """
    with closed_port() as port:
        monkeypatch.setenv("THE_ADDRESS", f"http://127.0.0.1:{port}/services/hidden-path")
        refused = refusal(NotDeliveredError, webhook({"variable": "THE_ADDRESS"}))
    monkeypatch.setenv("THE_ADDRESS", "no address hidden-path")
    unusable = refusal(NotDeliveredError, webhook({"variable": "THE_ADDRESS"}))
    with BlackHole() as silent:
        monkeypatch.setenv("THE_ADDRESS", f"http://127.0.0.1:{silent.port}/services/hidden-path")
        slow = refusal(NotDeliveredError, webhook({"variable": "THE_ADDRESS"}, timeout="1s"))

    assert [refused, unusable, slow] == [
        "the webhook cannot be reached: no connection, or it broke",
        "the webhook cannot be reached: its address or a header cannot be used",
        "the webhook cannot be reached: no answer within the time limit",
    ]


def test_a_receiver_that_answers_byte_by_byte_is_given_up() -> None:
    """
    Each byte arrives within the limit of a step, but not the whole answer.
    """
    ended = threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                # The pause of a slow receiver.
                while not ended.wait(0.1):
                    self.request.sendall(b"x")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        slow = refusal(NotDeliveredError, webhook(f"http://127.0.0.1:{server.server_address[1]}/", timeout="1s"))
        ended.set()
        server.shutdown()

    assert slow == "the receiver has not answered completely within 3 s"


def test_an_address_is_in_no_log_and_its_user_is_sent(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    At the level DEBUG libraries log the path.
    """
    monkeypatch.setenv("THE_ADDRESS", receiver.url.replace("://", "://user:hidden-word@"))
    with caplog.at_level(logging.DEBUG):
        send(webhook({"variable": "THE_ADDRESS"}), notice())

    assert "hidden" not in caplog.text
    assert receiver.requests[0].headers["Authorization"] == f"Basic {b64encode(b'user:hidden-word').decode()}"


def test_a_secret_that_is_missing_is_named() -> None:
    """
    By its variable or its file.
    """
    for where, found in (
        ({"variable": "NO_SUCH_VARIABLE"}, "the variable NO_SUCH_VARIABLE of a secret is empty, expected one line"),
        ({"file": "/nowhere"}, "the file /nowhere of a secret cannot be read: No such file or directory"),
        ({"file": secret_file("a\nb")}, "of a secret is of several lines, expected one line"),
    ):
        with pytest.raises(ConfigurationError, match=found):
            send(webhook(where), notice())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """
    The certificate of a server on loopback, and its authority.
    """
    return CertificateAuthority(tmp_path_factory.mktemp("mail")).issue("localhost")


class Mailbox:
    """
    A mail server that keeps messages, and refuses some.
    """

    def __init__(self, files: TlsFiles) -> None:
        """
        Store the certificate. Nothing is opened yet.
        """
        self.messages: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.answer, self.farewell, self.busy = "250 OK", "221 Bye", set[str]()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        self.controller = Controller(
            self,
            hostname="127.0.0.1",
            port=free_ports(1)[0],
            tls_context=context,
            authenticator=self._login,
            auth_required=True,
        )

    def _login(self, _server: object, _session: object, _envelope: object, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"hidden-password", handled=False)

    async def handle_RCPT(  # noqa: N802 - a name of aiosmtpd
        self, _server: object, _session: object, envelope: Any, address: str, _: object
    ) -> str:
        """
        Refuse one recipient.
        """
        if address.startswith("unknown"):
            return "550 no such user"
        if address in self.busy:
            return "450 mailbox busy"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 - as above
        """
        Keep a message.
        """
        if self.answer.startswith("250"):
            self.messages.append(envelope)
        return self.answer

    async def handle_QUIT(self, *_: object) -> str:  # noqa: N802 - as above
        """
        Answer the end of a session.
        """
        return self.farewell

    @property
    def port(self) -> int:
        """
        The port that it listens at.
        """
        return int(self.controller.port)


@pytest.fixture
def mailbox(certificates: TlsFiles) -> Iterator[Mailbox]:
    """
    A mail server that wants a login over STARTTLS.
    """
    mailbox = Mailbox(certificates)
    mailbox.controller.start()
    yield mailbox
    mailbox.controller.stop()


@pytest.fixture
def mail_route(mailbox: Mailbox, certificates: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Route]:
    """
    A function that returns a route to the mail server.
    """
    monkeypatch.setenv("MAIL_WORD", "hidden-password")

    def of(**facts: Any) -> Route:
        given: dict[str, Any] = {"host": "localhost", "port": mailbox.port, "security": "starttls", "user": "core"}
        given |= {"password": {"variable": "MAIL_WORD"}, "sender": "DKIST <core@example.com>", "timeout": "5s"}
        given |= {"recipients": ["ops@example.com"], "ca": str(certificates.ca)}
        return route(email=given | facts)

    return of


def test_an_email_has_one_line_as_subject_whatever_the_names_are(
    mailbox: Mailbox, mail_route: Callable[..., Route]
) -> None:
    """
    It is sent over TLS after a login, and has the key of the notice.
    """
    answer = send(mail_route(), hostile_notice())

    (envelope,) = mailbox.messages
    message = message_from_bytes(envelope.content, policy=default)
    assert answer == "accepted by localhost"
    assert mailbox.logins == [(b"core", b"hidden-password")]
    assert envelope.rcpt_tos == ["ops@example.com"]
    assert message["Bcc"] is None
    assert message["Idempotency-Key"] == hostile_notice().id
    assert message["Message-ID"] == f"<{hostile_notice().id}@dkist-core.invalid>"
    assert str(message["Subject"]).startswith("[dkist-core ops] 60 occurrences of 20 groups, the largest: <!channel>")
    assert "\n" not in str(message["Subject"])
    assert "Bcc: victim@example.com" in message.get_content()


def test_a_refusal_of_a_mail_server_decides_whether_it_is_tried_again(
    mailbox: Mailbox, mail_route: Callable[..., Route], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No error has the password; if one of several recipients is refused, the others have it and it is not repeated.
    """
    mailbox.answer = "451 try later, hidden-password"
    later = refusal(NotDeliveredError, mail_route())
    mailbox.answer = "554 spam"
    never = refusal(GiveUpError, mail_route())
    mailbox.answer = "250 OK"
    unknown = refusal(GiveUpError, mail_route(recipients=["unknown@example.com"]))
    some = send(mail_route(recipients=["unknown@example.com", "ops@example.com"]), notice())
    monkeypatch.setenv("MAIL_WORD", "wrong-password")
    login = refusal(GiveUpError, mail_route())
    with closed_port() as port:
        silent = refusal(NotDeliveredError, mail_route(port=port))
    untrusted = refusal(NotDeliveredError, mail_route(ca=None))

    assert later == "the mail server refused the message with 451 try later, [redacted]"
    assert never.startswith("the mail server refused the message with 554 spam; correct the route")
    assert unknown.startswith("the mail server refused unknown@example.com with 550")
    assert some == "accepted by localhost"
    assert len(mailbox.messages) == 1
    assert login.startswith("the mail server refused the login with 535")
    assert "cannot be reached" in silent
    assert "certificate" in untrusted
    errors = (later, never, unknown, login, silent, untrusted)
    assert not any(word in each for each in errors for word in ("hidden-password", "wrong-password"))


def test_recipients_who_are_refused_for_now_are_tried_again(mailbox: Mailbox, mail_route: Callable[..., Route]) -> None:
    """
    Those alone: the others have it.
    """
    route, key = mail_route(recipients=["ops@example.com", "busy@example.com"]), notice(sequence=99)
    mailbox.busy = {"busy@example.com"}
    with pytest.raises(NotDeliveredError, match=r"refuses busy@example.com for now; the other recipients have it"):
        send(route, key)
    with pytest.raises(NotDeliveredError, match=r"refused busy@example.com with 450"):
        send(route, key)
    mailbox.busy.clear()
    send(route, key)

    assert [message.rcpt_tos for message in mailbox.messages] == [["ops@example.com"], ["busy@example.com"]]


def test_an_error_at_the_end_of_a_session_is_no_failure(mailbox: Mailbox, mail_route: Callable[..., Route]) -> None:
    """
    The message was accepted before.
    """
    mailbox.farewell = "421 shutting down"

    assert send(mail_route(), notice()) == "accepted by localhost"
    assert len(mailbox.messages) == 1


def program(tmp_path: Path, source: str, *arguments: str, timeout: str = "20s") -> Route:
    """
    Return a route to a command in Python.
    """
    (tmp_path / "program.py").write_text(source)
    return route(command={"argv": [sys.executable, str(tmp_path / "program.py"), *arguments], "timeout": timeout})


@pytest.mark.processes
def test_a_command_gets_the_notice_on_its_input_without_a_shell(tmp_path: Path) -> None:
    """
    Its words are passed unchanged.
    """
    source = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read() + sys.argv[2].encode())"

    answer = send(program(tmp_path, source, str(tmp_path / "out"), "$(id); *"), hostile_notice())

    assert answer == "exit status 0"
    assert (tmp_path / "out").read_bytes() == encode(hostile_notice()) + b"$(id); *"


@pytest.mark.processes
def test_a_command_gets_no_secret_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    But the variables that its route names.
    """
    monkeypatch.setenv("BUS_PASSWORD", "hidden-word")
    monkeypatch.setenv("PAGER_TOKEN", "for-the-pager")
    argv = ["/bin/sh", "-c", 'env > "$1"', "sh", str(tmp_path / "out")]

    send(route(command={"argv": argv, "variables": ["PAGER_TOKEN"]}), notice())

    found = (tmp_path / "out").read_text()
    assert "PAGER_TOKEN=for-the-pager" in found
    assert "PATH=" in found
    assert "hidden-word" not in found


@pytest.mark.processes
def test_a_command_that_fails_or_hangs_is_tried_again(tmp_path: Path) -> None:
    """
    With the end of its error output; what hangs is killed with the processes that it has started.
    """
    failing = program(tmp_path, "import sys; sys.exit('x' * 100_000 + ' no\\nway')")
    failed = refusal(NotDeliveredError, failing)
    source = """
import os, signal, sys
pid = os.fork()
open(sys.argv[1] + str(bool(pid)), "w").write(str(os.getpid()))
signal.pause()
"""
    hanging = program(tmp_path, source, f"{tmp_path}/pid", timeout="2s")
    hung = refusal(NotDeliveredError, hanging)
    missing = refusal(NotDeliveredError, route(command={"argv": ["/nowhere"]}))

    pids = [int((tmp_path / f"pid{name}").read_text()) for name in (True, False)]
    assert failed.endswith("xxx no way")
    assert len(failed) < 400
    assert hung == f"the command {sys.executable} has not ended within 2 s and was killed"
    assert missing == "the command /nowhere cannot be started: No such file or directory"
    # The second one is no child of this process, which cannot wait for its end otherwise.
    wait_until(lambda: not any(map(is_running, pids)))


def is_running(pid: int) -> bool:
    """
    Return True for a process that is neither gone nor dead.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_threads_of_one_process_send_at_the_same_time(receiver: HttpReceiver) -> None:
    """
    Each route has a thread; one whose receiver waits holds up no other.
    """
    release, began = threading.Event(), threading.Event()
    receiver.answer = lambda: (began.set(), release.wait(30), (200, {}, b""))[2]  # type: ignore[func-returns-value]
    waiting = threading.Thread(target=send, args=(webhook(receiver.url, timeout="30s"), notice()))
    waiting.start()
    with HttpReceiver() as other:
        assert began.wait(30)
        assert send(webhook(other.url), notice()) == "HTTP 200"
    release.set()
    waiting.join()

    assert len(receiver.requests) == 1
