"""
The table of errors: every exception of pika, and the message for the operator.

Not here: errors of a real broker (test_amqp, test_tls), and those of a network (test_network_faults).
"""

import errno
import inspect
import os
import socket
from pathlib import Path

import pika.exceptions
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from dkist_processing_core.bus.amqp.errors import FAULTS, FAULTS_HERE, Row, explain
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, ConnectionFailedHereError

LOST = "was lost: the broker was stopped, or the network broke"
WRONG_VHOST = "refuses virtual host '/' (ISB_VHOST): it does not exist, or 'guest' has no permissions on it"
# An example for each row of the two tables, in their order.
EXAMPLES: list[tuple[Exception, type[BusError], str]] = [
    (OSError(errno.EBADF, "bad"), ConnectionFailedHereError, "was lost: other code of this process has closed"),
    (
        OSError(errno.EMFILE, "too many"),
        ConnectionFailedHereError,
        "cannot be connected to from this process: too many",
    ),
    (
        pika.exceptions.ProbableAuthenticationError("StreamLostError: reset"),
        BusUnreachableError,
        "broke the connection at the login",
    ),
    (
        pika.exceptions.ProbableAuthenticationError("ConnectionClosedByBroker: (403)"),
        BusRefusedError,
        "refuses the credentials (ISB_USERNAME, ISB_PASSWORD)",
    ),
    (pika.exceptions.ProbableAccessDeniedError("ConnectionClosedByBroker: (530)"), BusRefusedError, WRONG_VHOST),
    (ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost / not found"), BusRefusedError, WRONG_VHOST),
    (
        ChannelClosedByBroker(403, "ACCESS_REFUSED - configure"),
        BusRefusedError,
        "refuses a request: ACCESS_REFUSED - configure (403); grant the user that permission",
    ),
    (
        ChannelClosedByBroker(404, "NOT_FOUND - queue 'q' in vhost '/' has crashed"),
        BusUnreachableError,
        "is not ready: NOT_FOUND - queue 'q' in vhost '/' has crashed (404)",
    ),
    (
        ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"),
        BusUnreachableError,
        "closed the connection: CONNECTION_FORCED - shutdown (320)",
    ),
    (
        pika.exceptions.IncompatibleProtocolError("no answer"),
        BusUnreachableError,
        "broke the connection before it sent any AMQP",
    ),
    (pika.exceptions.StreamLostError("reset"), BusUnreachableError, LOST),
    (socket.gaierror(-2, "unknown"), BusUnreachableError, "has a name that does not resolve"),
    (ConnectionRefusedError(111, "refused"), BusUnreachableError, "refuses the connection: nothing listens there"),
    (AMQPConnectorStackTimeout("15 s"), BusUnreachableError, "does not answer in time"),
    (pika.exceptions.NoFreeChannels(), BusUnreachableError, "broke the connection: NoFreeChannels"),
]


def row_for(error: BaseException) -> Row:
    """Return the row of the tables that applies to an exception."""
    return next(row for row in (*FAULTS_HERE, *FAULTS) if isinstance(error, row.kinds) and row.holds_for(error))


@pytest.fixture
def settings() -> DKISTProcessingCoreConfiguration:
    """
    Settings that name no broker.
    """
    return DKISTProcessingCoreConfiguration()


@pytest.mark.parametrize(("error", "kind", "text"), EXAMPLES, ids=lambda value: getattr(value, "__name__", None))
def test_an_error_names_the_broker_and_the_cause(
    settings: DKISTProcessingCoreConfiguration, error: Exception, kind: type[BusError], text: str
) -> None:
    """
    The message states the cause and, if there is one, the remedy.
    """
    explained = explain(error, settings)

    assert type(explained) is kind
    assert str(explained).startswith(f"RabbitMQ at localhost:5672 {text}")
    assert explained.__cause__ is error


def test_every_row_of_the_table_is_reached() -> None:
    """
    No row is unreachable because of an earlier one.
    """
    assert [row_for(error) for error, _, _ in EXAMPLES] == [*FAULTS_HERE, *FAULTS]


def test_the_innermost_reason_is_found(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Pika wraps the reason of a failed connection in its own exceptions.
    """
    wrapped = pika.exceptions.AMQPConnectionError(RuntimeError("attempt 1"))
    wrapped.args[0].__cause__ = ConnectionRefusedError(111, "refused")

    assert "nothing listens there" in str(explain(wrapped, settings))


def test_every_pika_exception_is_mapped(state_dir: Path) -> None:
    """
    Any exception of pika becomes an error of this library that names the broker.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)
    classes = [
        value for _, value in inspect.getmembers(pika.exceptions, inspect.isclass) if issubclass(value, Exception)
    ]
    assert len(classes) > 20

    for pika_class in classes:
        error = pika_class.__new__(pika_class)
        error.args = (320, "text")
        for name in ("reply_code", "reply_text"):
            if not hasattr(pika_class, name):
                error.__dict__[name] = 320 if name == "reply_code" else "text"
        explained = explain(error, settings)
        assert isinstance(explained, BusError)
        assert str(explained).startswith("RabbitMQ at localhost:5672 ")


@pytest.mark.parametrize(
    "said",
    [
        "NOT_FOUND - home node 'rabbit@a' of durable queue 'q' in vhost '/' is down or inaccessible",
        "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor",
        "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout",
        "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart",
        "NOT_FOUND - failed to perform operation on queue 'q': its leader {q, a@b} may be stopping or being demoted",
    ],
)
def test_a_queue_that_is_about_to_start_ends_nothing(settings: DKISTProcessingCoreConfiguration, said: str) -> None:
    """
    A broker that has just started answers 404 for its durable queues. Unlike a missing queue, they are available soon.
    """
    gone = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q' in vhost '/'")

    assert isinstance(explain(pika.exceptions.ChannelClosedByBroker(404, said), settings), BusUnreachableError)
    assert isinstance(explain(gone, settings), BusRefusedError)


def test_a_stream_that_is_being_created_ends_nothing(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    The broker refuses its first readers for a moment, with the code of a contradiction.
    """
    said = "PRECONDITION_FAILED - queue 'queue 's' in vhost '/'' does not have a replica on the local node"
    created = explain(pika.exceptions.ChannelClosedByBroker(406, said), settings)

    assert isinstance(created, BusUnreachableError)
    assert f"is not ready: {said} (406)" in str(created)


def test_a_name_that_does_not_resolve_is_explained(state_dir: Path) -> None:
    """
    The error names MESH_CONFIG.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)

    explained = explain(socket.gaierror(-2, "Name or service not known"), settings)

    assert "does not resolve; check mesh_address in MESH_CONFIG" in str(explained)


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSOCK, errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_what_fails_in_this_process_says_nothing_of_the_broker(state_dir: Path, number: int) -> None:
    """
    It is a separate kind of error, which does not mark the broker as unreachable for other processes.
    """
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)

    assert type(explain(OSError(number, os.strerror(number)), settings)) is ConnectionFailedHereError
    assert type(explain(OSError(errno.ECONNREFUSED, "refused"), settings)) is BusUnreachableError
