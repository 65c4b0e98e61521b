"""
One HTTP connection of the dashboard, which ends when its client neither sends nor reads.

Uvicorn limits the time of an idle connection only. Here a request must be complete some seconds after its first byte,
and an answer must be read: what a client does not read is kept in the memory of this process. Not here: the server
(server).
"""

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0
READING_SECONDS = 10.0
_SEND_BUFFER_BYTES = 128 * 1024


class Connection(H11Protocol):
    """A connection with limits of time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        self._request = _Limit(REQUEST_SECONDS, transport)
        self._reading = _Limit(READING_SECONDS, transport)
        # Linux would keep up to some megabytes for a client that does not read.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        super().connection_made(transport)
        self._request.begin()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY}:
            self._request.begin()
        else:
            self._request.end()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._reading.begin()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._reading.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._request.end()
        self._reading.end()


class _Limit:
    """Aborts a connection some seconds after a beginning that is not followed by an end."""

    def __init__(self, seconds: float, transport: asyncio.Transport) -> None:
        self._seconds = seconds
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
