"""
One HTTP connection of the dashboard, which ends when its client neither sends nor reads.

Uvicorn limits the time of an idle connection only. Here a request must be complete some seconds after its first byte,
and an answer must be read, however slowly: what a client does not read is kept in the memory of this process. Not here:
the server (server).
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0
"""The longest time of a request."""
READING_SECONDS = 10.0
"""The longest time in which a client receives nothing of an answer."""
MOST_OPEN = 900
"""The largest number of connections, below the usual limit of 1,024 open files; further ones are closed at once."""
_SEND_BUFFER_BYTES = 128 * 1024
_INT = struct.Struct("i")


class Connection(H11Protocol):
    """A connection with limits of time."""

    def __init__(self, *given: Any, dropped: Callable[[], object], **options: Any) -> None:
        """Store what is called when the client is given up since it does not read; the rest is uvicorn's."""
        super().__init__(*given, **options)
        self._dropped = dropped

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        self._request = Limit(REQUEST_SECONDS, transport.abort, lambda: 0)
        self._reading = Limit(READING_SECONDS, self._drop, partial(unread_bytes, transport))
        # Linux would keep up to some megabytes for a client that does not read.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # Also the last part of an answer is waited for, without which the transport does not close.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if len(self.connections) > MOST_OPEN:
            transport.abort()
        else:
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

    def _drop(self) -> None:
        self._dropped()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._request.end()
        self._reading.end()


class Limit:
    """Ends a connection some seconds after a beginning that is not followed by an end, or by progress."""

    def __init__(self, seconds: float, abort: Callable[[], None], left: Callable[[], int]) -> None:
        """
        Store the limit. It does not run yet.

        Args:
            seconds: The longest time without progress.
            abort: Ends the connection.
            left: Returns what is left to do, which progress makes smaller.
        """
        self._seconds = seconds
        self._abort = abort
        self._left = left
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Let the time run, if it does not run already."""
        if self._timer is None:
            self._wait(self._left())

    def end(self) -> None:
        """Stop the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, left: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look, left)

    def _look(self, before: int) -> None:
        left = self._left()
        if left < before:
            self._wait(left)
        else:
            self._abort()


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the client has not received: those that wait here, and in the kernel."""
    in_kernel = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_INT.size))
    waiting: int = _INT.unpack(in_kernel)[0]
    return transport.get_write_buffer_size() + waiting
