"""
TLS with a node that verifies its clients: events over TLS, and each wrong configuration.

Not here: TLS itself, which OpenSSL and Erlang implement.
"""

import json
import logging
import os
import pty
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import IncompatibleProtocolError
from typer.testing import CliRunner

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.amqp.errors import explain
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError
from dkist_processing_core.journal import Books
from tests.bus.contract import SECONDS
from tests.facts import finished, progressed, started
from tests.services.broker import Broker, open_broker
from tests.services.rabbitmq import RabbitMQNode
from tests.services.tls import CertificateAuthority, TlsFiles
from tests.test_delivery import books_of, wait_until_confirmed, warnings_in

pytestmark = pytest.mark.rabbitmq

ROOT = Path(__file__).parents[1]
OTHER = "other.example"
Changes = dict[str, Any]


@dataclass(frozen=True)
class Certificates:
    """
    Certificates of broker and client; a foreign one is signed by an authority that the other side does not know.
    """

    server: TlsFiles
    expired_server: TlsFiles
    other_server: TlsFiles
    client: TlsFiles
    expired_client: TlsFiles
    foreign: TlsFiles


@dataclass(frozen=True)
class SecureBroker:
    """
    A virtual host on the node with TLS.
    """

    plain: Broker
    certificates: Certificates
    shown: TlsFiles

    @property
    def port(self) -> int:
        """
        Return the port for TLS.
        """
        assert self.plain.node.tls_port is not None
        return self.plain.node.tls_port

    def show(self, files: TlsFiles) -> None:
        """
        Have the node present another certificate in all later connections.
        """
        put(files, self.shown)
        self.plain.node.eval("ssl:clear_pem_cache().")

    def variables(self, **changes: Any) -> dict[str, str]:
        """
        Return the variables for this broker with some changes; a change to None removes a variable.
        """
        client = self.certificates.client
        port = changes.pop("port", self.port)
        mesh = {"interservice-bus": {"mesh_address": "localhost", "mesh_port": port}}
        values = {
            **self.plain.env,
            "MESH_CONFIG": json.dumps(mesh),
            "ISB_TLS_CA": client.ca,
            "ISB_TLS_CERT": client.certificate,
            "ISB_TLS_KEY": client.key,
        }
        return {name: str(value) for name, value in (values | changes).items() if value is not None}

    def settings(self, **changes: Any) -> DKISTProcessingCoreConfiguration:
        """
        Return the settings of these variables.
        """
        named: dict[str, Any] = {name.lower(): value for name, value in self.variables(**changes).items()}
        return DKISTProcessingCoreConfiguration(**named)


def put(files: TlsFiles, place: TlsFiles) -> None:
    """
    Copy files over the files that a node reads.
    """
    for source, target in (
        (files.ca, place.ca),
        (files.certificate, place.certificate),
        (files.key, place.key),
    ):
        shutil.copyfile(source, target)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """
    Issue certificates of two authorities.
    """
    folder = tmp_path_factory.mktemp("authorities")
    authority = CertificateAuthority(folder / "known")
    return Certificates(
        server=authority.issue("server"),
        expired_server=authority.issue("expired-server", expired=True),
        other_server=authority.issue("other-server", names=(f"DNS:{OTHER}",)),
        client=authority.issue("client"),
        expired_client=authority.issue("expired-client", expired=True),
        foreign=CertificateAuthority(folder / "foreign").issue("foreign"),
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> TlsFiles:
    """
    Return the files that the node reads, which a test may replace.
    """
    folder = tmp_path_factory.mktemp("shown")
    files = TlsFiles(ca=folder / "ca.pem", certificate=folder / "server.pem", key=folder / "server.key")
    put(certificates.server, files)
    return files


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory: pytest.TempPathFactory, shown: TlsFiles) -> Iterator[RabbitMQNode]:
    """
    Yield a node that requires a certificate of each client that connects over TLS.
    """
    with RabbitMQNode(tmp_path_factory.mktemp("tls") / "node", tls=shown) as node:
        yield node


@pytest.fixture
def secure(tls_node: RabbitMQNode, certificates: Certificates, shown: TlsFiles) -> Iterator[SecureBroker]:
    """
    Yield a virtual host for this test; the node presents the right certificate.
    """
    with open_broker(tls_node) as plain:
        broker = SecureBroker(plain, certificates, shown)
        broker.show(certificates.server)
        yield broker


def told_of_two_publishers(
    settings: DKISTProcessingCoreConfiguration, caplog: pytest.LogCaptureFixture, password: str
) -> str:
    """
    Publish twice, check that both events are kept, and return the reason in the warning: one line, without the
    password.
    """
    caplog.set_level(logging.DEBUG)
    for event in (started("A"), finished("A")):
        with Publisher.open(settings) as publisher:
            publisher.publish(event)
            assert not publisher.flush(SECONDS)
    assert books_of(settings) == Books(published=2, confirmed=0, pending=2, set_aside=0)
    assert password not in caplog.text
    (told,) = warnings_in(caplog)
    reason, kept, rest = told.partition(". Events are kept in ")
    assert kept
    later = "; if no process publishes then, run `dkist-core outbox drain`."
    assert rest == f"{AmqpBus(settings).journal_path} until they can be delivered{later}"
    return reason


def test_events_go_out_and_come_back(secure: SecureBroker, caplog: pytest.LogCaptureFixture) -> None:
    """
    With the right authority, certificate and name, a subscription receives the published events.
    """
    settings = secure.settings()
    events = [started("A"), *(progressed("A", number) for number in range(50)), finished("A")]

    with subscribe(settings=settings, timeout=SECONDS) as subscription, Publisher.open(settings) as publisher:
        publisher.publish(*events)
        assert publisher.flush(SECONDS)
        received = [next(subscription) for _ in events]

    assert received == events
    assert books_of(settings) == Books(published=52, confirmed=52, pending=0, set_aside=0)
    assert warnings_in(caplog) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda found: {"ISB_TLS_CA": found.foreign.ca},
            "cannot be trusted: its certificate is signed by an authority that ISB_TLS_CA does not hold",
            id="wrong CA",
        ),
        pytest.param(
            lambda _: {"ISB_TLS_CA": None},
            "cannot be trusted: its certificate is signed by an authority that this system does not hold "
            "(set ISB_TLS_CA)",
            id="no CA",
        ),
        pytest.param(
            lambda _: {"ISB_TLS_SERVER_NAME": OTHER},
            f"cannot be trusted: its certificate is for another name than '{OTHER}' (check ISB_TLS_SERVER_NAME)",
            id="wrong name",
        ),
        pytest.param(
            lambda _: {"ISB_TLS_CERT": None, "ISB_TLS_KEY": None},
            "wants a client's certificate: set ISB_TLS_CERT and ISB_TLS_KEY",
            id="no client certificate",
        ),
        pytest.param(
            lambda found: {"ISB_TLS_CERT": found.foreign.certificate, "ISB_TLS_KEY": found.foreign.key},
            "refuses this client's certificate (ISB_TLS_CERT): it is signed by an authority that the broker does not "
            "hold",
            id="foreign client certificate",
        ),
        pytest.param(
            lambda found: {"ISB_TLS_CERT": found.expired_client.certificate, "ISB_TLS_KEY": found.expired_client.key},
            "refuses this client's certificate (ISB_TLS_CERT): it has expired",
            id="expired client certificate",
        ),
        pytest.param(
            lambda _: {"ISB_TLS_CA": None, "ISB_TLS_CERT": None, "ISB_TLS_KEY": None},
            "broke the connection before it sent any AMQP; if it requires TLS, set ISB_TLS_CA",
            id="no TLS",
        ),
    ],
)
def test_a_client_that_is_set_up_wrongly_says_so(
    secure: SecureBroker,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Certificates], Changes],
    expected: str,
) -> None:
    """
    One line names the variable to check, and events are kept.
    """
    settings = secure.settings(**change(secure.certificates))

    told = told_of_two_publishers(settings, caplog, secure.plain.password)

    assert told == f"RabbitMQ at localhost:{secure.port} {expected}"


def test_tls_spoken_to_the_plain_port_is_told(secure: SecureBroker, caplog: pytest.LogCaptureFixture) -> None:
    """
    The line names the port and the variables that enable TLS.
    """
    port = secure.plain.port

    told = told_of_two_publishers(secure.settings(port=port), caplog, secure.plain.password)

    text = "does not use TLS there: check mesh_port in MESH_CONFIG, or set no ISB_TLS_* variable"
    assert told == f"RabbitMQ at localhost:{port} {text}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "expired_server",
            "its certificate has expired, or the certificate of its authority has (ISB_TLS_CA)",
            id="expired",
        ),
        pytest.param(
            "other_server",
            "its certificate is for another name than 'localhost' "
            "(check mesh_address in MESH_CONFIG, or set ISB_TLS_SERVER_NAME)",
            id="other name",
        ),
    ],
)
def test_a_broker_with_a_wrong_certificate_is_not_trusted(
    secure: SecureBroker, caplog: pytest.LogCaptureFixture, name: str, expected: str
) -> None:
    """
    One line states the problem of the certificate, and events are kept.
    """
    secure.show(getattr(secure.certificates, name))

    told = told_of_two_publishers(secure.settings(), caplog, secure.plain.password)

    assert told == f"RabbitMQ at localhost:{secure.port} cannot be trusted: {expected}"


def test_another_name_is_right_where_the_variable_gives_it(secure: SecureBroker) -> None:
    """
    ISB_TLS_SERVER_NAME replaces the name in the address.
    """
    secure.show(secure.certificates.other_server)
    settings = secure.settings(ISB_TLS_SERVER_NAME=OTHER)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        is_delivered = publisher.flush(SECONDS)

    assert is_delivered
    assert books_of(settings) == Books(published=1, confirmed=1, pending=0, set_aside=0)


def test_a_renewed_certificate_is_accepted_without_a_restart(
    secure: SecureBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A publisher that met an expired certificate delivers when the broker presents another one.
    """
    settings = secure.settings()
    secure.show(secure.certificates.expired_server)

    with Publisher.open(settings) as publisher:
        publisher.publish(started("A"))
        assert not publisher.flush(SECONDS)
        secure.show(secure.certificates.server)
        wait_until_confirmed(settings, 1)

    assert books_of(settings) == Books(published=1, confirmed=1, pending=0, set_aside=0)
    assert len(warnings_in(caplog)) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda found, folder: {"ISB_TLS_CERT": folder / "none.pem", "ISB_TLS_KEY": found.client.key},
            "ISB_TLS_CERT: found '{ISB_TLS_CERT}', expected a PEM file that can be read (No such file or directory)",
            id="missing",
        ),
        pytest.param(
            lambda _, folder: {"ISB_TLS_CA": folder},
            "ISB_TLS_CA: found '{ISB_TLS_CA}', expected a PEM file that can be read (Is a directory)",
            id="directory",
        ),
        pytest.param(
            lambda found, _: {"ISB_TLS_CA": found.client.key},
            "ISB_TLS_CA: found '{ISB_TLS_CA}', expected a PEM file of certificates (no certificate or crl found)",
            id="no certificates",
        ),
        pytest.param(
            lambda found, _: {"ISB_TLS_KEY": found.foreign.key},
            "ISB_TLS_CERT, ISB_TLS_KEY: found '{ISB_TLS_CERT}' and '{ISB_TLS_KEY}', expected PEM files of a "
            "certificate and the key that belongs to it (key values mismatch)",
            id="key of another",
        ),
        pytest.param(
            lambda _, __: {"ISB_TLS_CERT": None},
            "ISB_TLS_KEY: found '{ISB_TLS_KEY}' without ISB_TLS_CERT, expected both or neither",
            id="key alone",
        ),
        pytest.param(
            lambda found, folder: {"ISB_TLS_KEY": locked(found.client.key, folder)},
            "ISB_TLS_KEY: found a private key that is locked by a password, expected one that is not",
            id="locked key",
        ),
    ],
)
def test_files_that_are_of_no_use_are_told(
    secure: SecureBroker,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    change: Callable[[Certificates, Path], Changes],
    expected: str,
) -> None:
    """
    One line names variable, file and the expected content, and events are kept.
    """
    changes = change(secure.certificates, tmp_path)

    told = told_of_two_publishers(secure.settings(**changes), caplog, secure.plain.password)

    assert told == expected.format_map(secure.variables(**changes))


def locked(key: Path, folder: Path) -> Path:
    """
    Return a copy of a private key that is encrypted with a password.
    """
    target = folder / "locked.key"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:canary", "-out", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_nobody_is_asked_for_the_password_of_a_key(certificates: Certificates, tmp_path: Path) -> None:
    """
    On a terminal, where OpenSSL would prompt and wait, the doctor ends and reports the problem.
    """
    client = certificates.client
    variables = {
        "MESH_CONFIG": '{"interservice-bus": {"mesh_address": "localhost", "mesh_port": 1}}',
        "ISB_TLS_CERT": str(client.certificate),
        "ISB_TLS_KEY": str(locked(client.key, tmp_path)),
    }
    # A session leader that opens a terminal makes it the controlling terminal. OpenSSL opens that one instead of the
    # standard streams.
    program = (
        "import os\n"
        "terminal = os.open(os.ttyname(0), os.O_RDWR)\n"
        "assert open('/dev/tty').isatty()\n"
        "from dkist_processing_core.cli import app\n"
        "app(['doctor', '--json'])\n"
    )
    ours, theirs = pty.openpty()

    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | variables,
            stdin=theirs,
            capture_output=True,
            start_new_session=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert b"locked by a password" in done.stdout


@pytest.mark.parametrize(
    ("change", "status", "detail", "advice"),
    [
        pytest.param(lambda _: {}, "ok", "answers over TLS", None, id="right"),
        pytest.param(
            lambda found: {"ISB_TLS_CA": found.foreign.ca},
            "wrong",
            "signed by an authority that ISB_TLS_CA does not hold",
            "set the ISB_TLS_* variables as this broker requires; set none of them if it does not use TLS",
            id="wrong CA",
        ),
        pytest.param(
            lambda _: {"ISB_TLS_CA": None, "ISB_TLS_CERT": None, "ISB_TLS_KEY": None},
            "wrong",
            "if it requires TLS, set ISB_TLS_CA",
            "set the ISB_TLS_* variables as this broker requires; set none of them if it does not use TLS",
            id="no TLS",
        ),
    ],
)
def test_the_doctor_points_at_the_variables(
    secure: SecureBroker,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Certificates], Changes],
    status: str,
    detail: str,
    advice: str | None,
) -> None:
    """
    If TLS is the problem, the advice is about TLS.
    """
    for name, value in secure.variables(**change(secure.certificates)).items():
        monkeypatch.setenv(name, value)

    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False).stdout)

    (found,) = (check for check in told["checks"] if check["name"] == "broker")
    assert (found["status"], found["advice"]) == (status, advice)
    assert found["detail"].endswith(detail)


def _not_accepted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def _silent(reason: str) -> IncompatibleProtocolError:
    return IncompatibleProtocolError(f"StreamLostError: ('Stream connection lost: {reason}',)")


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        pytest.param(
            ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure"),
            BusRefusedError,
            "does not agree on TLS with this client ([SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake "
            "failure); if it wants a client's certificate, set ISB_TLS_CERT",
            id="TLS 1.2 without certificate",
        ),
        pytest.param(
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
            BusUnreachableError,
            "broke the connection off at the TLS handshake; if it wants a client's certificate, set ISB_TLS_CERT",
            id="nobody behind a front",
        ),
        pytest.param(
            _silent("ConnectionResetError(104, 'Connection reset by peer')"),
            BusUnreachableError,
            "broke the connection off at the TLS handshake; if it wants a client's certificate, set ISB_TLS_CERT",
            id="reset before the alert was read",
        ),
        pytest.param(
            ssl.SSLError(1, "[SSL: RECORD_LAYER_FAILURE] record layer failure"),
            BusRefusedError,
            "does not use TLS there: check mesh_port in MESH_CONFIG, or set no ISB_TLS_* variable",
            id="plain port, newer OpenSSL",
        ),
        pytest.param(
            _not_accepted(9, "certificate is not yet valid"),
            BusRefusedError,
            "cannot be trusted: its certificate is not valid yet, or the clock of this host is wrong",
            id="not valid yet",
        ),
        pytest.param(
            _not_accepted(24, "invalid CA certificate"),
            BusRefusedError,
            "cannot be trusted: its certificate is not accepted: invalid CA certificate (ISB_TLS_CA)",
            id="anything else",
        ),
    ],
)
def test_what_the_node_of_the_tests_does_not_say_is_understood(
    certificates: Certificates, error: BaseException, kind: type[BusError], expected: str
) -> None:
    """
    Other versions of TLS and OpenSSL use other messages for the same problem, and proxies add their own.
    """
    settings = DKISTProcessingCoreConfiguration(isb_tls_ca=certificates.client.ca)

    explained = explain(error, settings)

    assert type(explained) is kind
    assert str(explained) == f"RabbitMQ at localhost:5672 {expected}"


def test_the_document_explains_words_that_are_used() -> None:
    """
    Each message that the how-to explains is a message of the library.
    """
    document = (ROOT / "docs" / "how-to" / "rabbitmq.md").read_text()
    explained = re.findall(r"(?m)^\| `(.*?)` \|", document.partition("| text in the warning")[2].partition("\n\n")[0])
    said = "".join(path.read_text() for path in (ROOT / "dkist_processing_core" / "bus").rglob("*.py"))

    unknown = [words for words in explained if words not in said]

    assert explained
    assert unknown == []
