"""
The errors of a connection as a table: from pika's exceptions to errors of this library, with a text for operators.

Not here: errors of TLS (tls), and the reactions to an error (delivery).
"""

import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import (
    AMQPError,
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ChannelClosed,
    ChannelError,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    ConnectionOpenAborted,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    ReentrancyError,
    StreamLostError,
)

from dkist_processing_core.bus.amqp import tls
from dkist_processing_core.errors import BusError, BusRefusedError, BusUnreachableError, ConnectionFailedHereError
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import redact

PIKA_ERRORS = (AMQPError, ChannelError, ReentrancyError)
"""The base classes of all exceptions of pika."""
LOST = "was lost: the broker was stopped, or the network broke"
CLOSED_HERE = "other code of this process has closed the connection's descriptors"
NO_ROUTE, NOT_FOUND, ACCESS_REFUSED, PRECONDITION_FAILED, INTERNAL_ERROR = 312, 404, 403, 406, 541
"""Reply codes of AMQP 0.9.1."""
_RESOURCE_LOCKED, _NOT_ALLOWED = 405, 530
_REFUSALS = (NOT_FOUND, ACCESS_REFUSED, _RESOURCE_LOCKED, PRECONDITION_FAILED, _NOT_ALLOWED)
# Frame error, syntax error, command invalid, unexpected frame, resource error, not implemented, internal error.
_FAULTS_OF_A_SENDER = (501, 502, 503, 505, 506, 540, INTERNAL_ERROR)
_REMEDIES = {
    ACCESS_REFUSED: "; grant the user that permission (`rabbitmqctl set_permissions`)",
    NOT_FOUND: "; create the missing part (`dkist-core topology apply`)",
}
# RabbitMQ's texts for temporary reasons, which it sends with a code for a missing or forbidden resource: a consumer
# that acknowledged too late (`consumer_timeout`), a queue that is about to start or to move (rabbit_amqqueue.erl,
# `priv_absent`, `with`), and a stream that is being created (rabbit_stream_queue.erl, `consume`).
_SIGNS_OF_A_TEMPORARY_REASON = (
    "delivery acknowledgement",
    "is down or inaccessible",
    "is stopped by supervisor",
    "due to timeout",
    "has crashed",
    "may be stopping or being demoted",
    "replica on the local node",
)
# RabbitMQ's text about a routing key that a topic permission refuses. Its text about an exchange is different.
_SIGN_OF_A_KEY = "access to topic "
_ErrorT = TypeVar("_ErrorT", bound=BaseException)


def _holds(_: BaseException) -> bool:
    return True


def _has_number(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda item: getattr(item, "errno", None) in numbers


def _is_guess(item: BaseException) -> bool:
    """Return True if pika only guesses a refusal: a real refusal is reported before the connection is closed."""
    return "StreamLostError" in str(item)


def _is_temporary(item: BaseException) -> bool:
    """Return True if the reason of a refusal is temporary: a new try soon succeeds."""
    return any(sign in str(getattr(item, "reply_text", "")) for sign in _SIGNS_OF_A_TEMPORARY_REASON)


def _is_of_vhost(item: BaseException) -> bool:
    return getattr(item, "reply_code", 0) == _NOT_ALLOWED


def _is_refusal(item: BaseException) -> bool:
    return getattr(item, "reply_code", 0) in _REFUSALS and not _is_temporary(item)


class Row(NamedTuple):
    """A row of the table: the exceptions for which it holds, and the error and the text that explain them."""

    kinds: tuple[type[BaseException], ...]
    error: type[BusError]
    text: str
    """A format; its fields are those of `_fields`."""
    holds_for: Callable[[BaseException], bool] = _holds
    """Whether the row holds for an exception of one of the kinds."""


FAULTS_HERE = (
    Row((OSError,), ConnectionFailedHereError, f"was lost: {CLOSED_HERE}", _has_number(errno.EBADF, errno.ENOTSOCK)),
    Row(
        (OSError,),
        ConnectionFailedHereError,
        "cannot be connected to from this process: {item.strerror}",
        _has_number(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    ),
)
"""Failures inside this process, which the broker did not cause."""
_WRONG_VHOST = "refuses virtual host {vhost!r} (ISB_VHOST): it does not exist, or {user!r} has no permissions on it"
FAULTS = (
    Row(
        (ProbableAuthenticationError, ProbableAccessDeniedError),
        BusUnreachableError,
        "broke the connection at the login",
        _is_guess,
    ),
    # Refusals, which only an operator can change.
    Row(
        (AuthenticationError, ProbableAuthenticationError),
        BusRefusedError,
        "refuses the credentials (ISB_USERNAME, ISB_PASSWORD)",
    ),
    Row((ProbableAccessDeniedError,), BusRefusedError, _WRONG_VHOST),
    Row((ConnectionClosed,), BusRefusedError, _WRONG_VHOST, _is_of_vhost),
    Row(
        (ConnectionClosed, ChannelClosed),
        BusRefusedError,
        "refuses a request: {item.reply_text} ({item.reply_code}){remedy}",
        _is_refusal,
    ),
    # Broken connections, which may recover by themselves.
    Row((ChannelClosed,), BusUnreachableError, "is not ready: {item.reply_text} ({item.reply_code})", _is_temporary),
    Row(
        (ConnectionClosed, ChannelClosed),
        BusUnreachableError,
        "closed the connection: {item.reply_text} ({item.reply_code})",
    ),
    Row(
        (IncompatibleProtocolError,),
        BusUnreachableError,
        "broke the connection before it sent any AMQP; if it requires TLS, set ISB_TLS_CA",
    ),
    Row((StreamLostError,), BusUnreachableError, LOST),
    Row(
        (socket.gaierror,),
        BusUnreachableError,
        "has a name that does not resolve; check mesh_address in MESH_CONFIG",
    ),
    Row(
        (ConnectionRefusedError,),
        BusUnreachableError,
        "refuses the connection: nothing listens there; check that the broker runs, and MESH_CONFIG",
    ),
    Row(
        (
            TimeoutError,
            ConnectionOpenAborted,
            ConnectionBlockedTimeout,
            AMQPHeartbeatTimeout,
            AMQPConnectorStackTimeout,
        ),
        BusUnreachableError,
        "does not answer in time",
    ),
    Row((BaseException,), BusUnreachableError, "broke the connection: {last}"),
)
"""Answers of the broker, and failures of the connection to it; the first row that holds for an exception is used."""


def explain(error: BaseException, settings: Settings) -> BusError:
    """
    Return an error of this library for an exception of pika or of the operating system.

    Args:
        error: The exception; the exceptions inside it are searched as well.
        settings: The broker's address, and the names that the text mentions.

    Returns:
        An error whose message names the broker, the cause and the remedy for an operator.
    """
    chain = list(_nested(error))
    silence = _first(chain, IncompatibleProtocolError)
    kind, text = (
        _looked_up(FAULTS_HERE, chain, settings)
        or tls.fault_of(_first(chain, ssl.SSLError), silence, settings)
        or _looked_up(FAULTS, chain, settings)
        or (BusUnreachableError, LOST)
    )
    service = settings.isb_mesh_service
    explained = kind(f"RabbitMQ at {service.host}:{service.port} {redact(text)}")
    explained.__cause__ = error
    return explained


def _looked_up(
    table: Sequence[Row], chain: Sequence[BaseException], settings: Settings
) -> tuple[type[BusError], str] | None:
    """Return the error type and the text of the first row that holds for an exception; None if there is none."""
    for row in table:
        for item in chain:
            if isinstance(item, row.kinds) and row.holds_for(item):
                return row.error, row.text.format_map(_fields(item, chain[-1], settings))
    return None


def _fields(item: BaseException, last: BaseException, settings: Settings) -> dict[str, Any]:
    return {
        "item": item,
        "last": f"{type(last).__name__} {last}",
        "remedy": _REMEDIES.get(getattr(item, "reply_code", 0), ""),
        "user": settings.isb_username,
        "vhost": settings.isb_vhost,
    }


def code_of(error: BusError) -> int:
    """Return the broker's reply code that an error resulted from; 0 if there is none."""
    return next((int(code) for item in _nested(error) if (code := getattr(item, "reply_code", None))), 0)


def is_about_permissions(error: BusError) -> bool:
    """Return True if the broker refused a request because the user lacks a permission."""
    return code_of(error) == ACCESS_REFUSED


def is_about_destination(error: BusError) -> bool:
    """Return True if a message was refused because of its exchange, not because of itself or its routing key."""
    is_refusal = isinstance(error, BusRefusedError) and code_of(error) in (ACCESS_REFUSED, NOT_FOUND)
    return is_refusal and _SIGN_OF_A_KEY not in str(error)


def is_about_a_message(error: BusError | None) -> bool:
    """Return True if the broker closed the connection because of a message, not for its shutdown or by an operator."""
    return error is not None and code_of(error) in _FAULTS_OF_A_SENDER


def _first(chain: Sequence[BaseException], kind: type[_ErrorT]) -> _ErrorT | None:
    return next((item for item in chain if isinstance(item, kind)), None)


def _nested(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those inside it: pika's connection workflow keeps the reason in attributes."""
    queue, seen = deque([error]), set[int]()
    while queue:
        item = queue.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        inside = [*item.args, getattr(item, "exception", None), *getattr(item, "exceptions", ()), item.__cause__]
        queue.extend(each for each in inside if isinstance(each, BaseException))
