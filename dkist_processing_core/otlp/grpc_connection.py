"""
A connection on which calls of gRPC follow each other, each with one message and one answer.

gRPC's own library starts threads that go on in the forks of a process and end some of them with SIGABRT, and the
handlers of a consumer and the author's code may fork. The protocol
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) needs only a part of HTTP/2, which the library h2
implements without threads. Not here: the meaning of an answer (over_grpc).
"""

import contextlib
import math
import select
import socket
import ssl
import struct
import time
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

_READ_BYTES = 65536
# An answer has a few bytes. The rest of a longer one is not kept.
_LONGEST_ANSWER = 65536
# Whether the message is compressed, and its length.
_PREFIX = struct.Struct("!?I")
# https://www.rfc-editor.org/rfc/rfc9113: sections 4.1 and 6.8, and the longest frame that a client accepts by default.
_FRAME_HEADER, _GOAWAY, _MOST_STREAM = 9, 7, (1 << 31) - 1
_LONGEST_FRAME = _FRAME_HEADER + 16384


class ConnectionLostError(OSError):
    """The server has ended the connection, or does not use the protocol."""

    is_unprocessed = False
    """Whether the server has certainly not processed the call, so that it may be sent again at once."""


@dataclass(slots=True)
class Answer:
    """What a server has answered to a call."""

    headers: dict[str, str] = field(default_factory=dict)
    """The headers and the trailers, with names in lower case."""
    data: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    @property
    def message(self) -> bytes:
        """The message; empty if there is none that can be read."""
        if len(self.data) < _PREFIX.size:
            return b""
        is_compressed, size = _PREFIX.unpack_from(self.data)
        return b"" if is_compressed else bytes(self.data[_PREFIX.size : _PREFIX.size + size])


class GrpcConnection:
    """One connection to a server; it belongs to one thread, except for `cancel`."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, timeout: float) -> None:
        """
        Connect, through a proxy if the environment names one.

        Raises:
            OSError: The server does not accept a connection, or does not use HTTP/2.
        """
        self._socket = _connected(host, port, timeout)
        self._protocol = H2Connection(H2Configuration(header_encoding=None))
        self._unread = b""
        self._last_call: int | None = None
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = secured = tls.wrap_socket(self._socket, server_hostname=host)
                _check_protocol(secured)
            self._protocol.initiate_connection()
            self._flush(time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def is_usable(self) -> bool:
        """Return False if the server has ended the connection, or takes no further call on it."""
        try:
            while self._last_call is None and select.select([self._socket], [], [], 0)[0]:
                self._receive(time.monotonic() + 1.0)
        except (OSError, ValueError):
            return False
        return self._last_call is None

    def call(
        self, headers: Iterable[tuple[str, str]], message: bytes, timeout: float, *, is_compressed: bool
    ) -> Answer:
        """
        Send a message, and return the answer.

        Args:
            headers: The headers of the call; those that begin with a colon first.
            message: The encoded message, compressed if `is_compressed`.
            timeout: The limit in seconds.
            is_compressed: Whether the message is compressed.

        Raises:
            OSError: The connection has failed, or there is no answer in time (TimeoutError).
        """
        until = time.monotonic() + timeout
        stream = self._protocol.get_next_available_stream_id()
        self._protocol.send_headers(stream, [*headers, ("grpc-timeout", f"{math.ceil(timeout * 1000)}m")])
        rest = memoryview(_PREFIX.pack(is_compressed, len(message)) + message)
        answer = Answer()
        # A server that refuses a message answers before it has received all of it.
        while not answer.is_whole:
            room = min(self._protocol.local_flow_control_window(stream), self._protocol.max_outbound_frame_size)
            part, rest = rest[: max(0, room)], rest[max(0, room) :]
            if part:
                self._protocol.send_data(stream, bytes(part), end_stream=not rest)
            self._flush(until)
            if not (part and rest):
                for event in self._receive(until):
                    _add(event, answer, stream)
                self._check_accepted(stream)
        # Whatever fails from here on belongs to the next call.
        with contextlib.suppress(ProtocolError, OSError):
            if rest:
                self._protocol.reset_stream(stream)
            self._flush(until)
        return answer

    def _receive(self, until: float) -> list[Event]:
        self._limit(until)
        data = self._socket.recv(_READ_BYTES)
        if not data:
            msg = "the server has closed the connection"
            raise ConnectionLostError(msg)
        try:
            events = self._protocol.receive_data(self._without_goaway(data))
            for event in events:
                if isinstance(event, DataReceived):
                    self._protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        except ProtocolError as error:
            msg = f"the server does not use HTTP/2 as gRPC does ({type(error).__name__})"
            raise ConnectionLostError(msg) from error
        return events

    def _without_goaway(self, data: bytes) -> bytes:
        """
        Return the whole frames that have arrived, except for the announcement that the server ends the connection.

        After it the server still answers the calls that it has accepted, and h2 would take no further frame.
        """
        self._unread += data
        frames, begin = [], 0
        while len(self._unread) >= begin + _FRAME_HEADER:
            end = begin + _FRAME_HEADER + int.from_bytes(self._unread[begin : begin + 3], "big")
            if end - begin > _LONGEST_FRAME:
                msg = "the server does not use HTTP/2 as gRPC does"
                raise ConnectionLostError(msg)
            if end > len(self._unread):
                break
            if self._unread[begin + 3] == _GOAWAY:
                body = self._unread[begin + _FRAME_HEADER : end]
                self._last_call = int.from_bytes(body[:4], "big") & _MOST_STREAM
            else:
                frames.append(self._unread[begin:end])
            begin = end
        self._unread = self._unread[begin:]
        return b"".join(frames)

    def _check_accepted(self, stream: int) -> None:
        if self._last_call is not None and self._last_call < stream:
            error = ConnectionLostError("the server ends the connection")
            error.is_unprocessed = True
            raise error

    def _flush(self, until: float) -> None:
        data = self._protocol.data_to_send()
        if data:
            self._limit(until)
            self._socket.sendall(data)

    def _limit(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            msg = "timed out"
            raise TimeoutError(msg)
        self._socket.settimeout(left)

    def cancel(self) -> None:
        """End the call of another thread: its descriptor is closed by that thread alone."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _add(event: Event, answer: Answer, stream: int) -> None:
    """
    Add what one event says to the answer.

    Raises:
        ConnectionLostError: There will be no answer.
    """
    match event:
        case StreamReset(stream_id=number) if number == stream and not answer.is_whole:
            msg = f"the server has reset the call (error code {event.error_code})"
            raise ConnectionLostError(msg)
        case ResponseReceived(stream_id=number) | TrailersReceived(stream_id=number) if number == stream:
            answer.headers.update((_decoded(name), _decoded(value)) for name, value in event.headers)
        case DataReceived(stream_id=number) if number == stream and len(answer.data) < _LONGEST_ANSWER:
            answer.data += event.data
        case StreamEnded(stream_id=number) if number == stream:
            answer.is_whole = True


def _decoded(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def _check_protocol(secured: ssl.SSLSocket) -> None:
    if secured.selected_alpn_protocol() != "h2":
        msg = "the server does not offer HTTP/2, which gRPC needs"
        raise ConnectionLostError(msg)


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    """Return a connection to a server, through the proxy that the environment names as for gRPC's own library."""
    proxies = getproxies()
    proxy = proxies.get("grpc") or proxies.get("https") or proxies.get("http")
    if not proxy or proxy_bypass(f"{host}:{port}"):
        return socket.create_connection((host, port), timeout)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    headers = {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"} if parts.username else {}
    tunnel = HTTPConnection(parts.hostname or "localhost", parts.port or 80, timeout=timeout)
    try:
        tunnel.set_tunnel(host, port, headers)
        tunnel.connect()
    except (HTTPException, ValueError) as error:
        msg = f"the proxy does not answer as one: {type(error).__name__}"
        raise ConnectionLostError(msg) from error
    return tunnel.sock
