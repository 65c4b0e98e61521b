"""
A connection of pika, adapted to a process that runs an author's code; the only module that uses pika's private names.

A comment gives the reason for each private name. Not here: channels and requests (session), and explaining errors
(bus.amqp.errors).
"""

import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pika
import pika.adapters.select_connection
import pika.adapters.utils.selector_ioloop_adapter
import pika.connection
import pika.frame
import pika.spec

from dkist_processing_core.bus.amqp import deliveries, tls
from dkist_processing_core.bus.amqp.errors import CLOSED_HERE
from dkist_processing_core.bus.amqp.frames import Frames
from dkist_processing_core.bus.amqp.pika_logs import pika_silenced
from dkist_processing_core.process.descriptors import HeldDescriptors, OwnSockets, move_up

CLOSING_SECONDS = 0.25
# AMQP 0.9.1: a frame begins with type, channel and size; a content header begins with class, weight and body size.
_FRAME_START, _HEADER_START = struct.Struct(">BHL"), struct.Struct(">HHQ")
_READ_BYTES = 64 * 1024
# The arguments of `socket.getaddrinfo` after host and port, by pika's names.
_LOOKED_UP_BY = ("family", "socktype", "proto", "flags")
_log = logging.getLogger(__name__)


class _Poller(pika.adapters.select_connection.PollPoller):  # type: ignore[misc]
    """Waits with poll(2), which needs no extra descriptor, and checks that the descriptors are the connection's."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.is_ours: Callable[[], bool] = lambda: True
        super().__init__(*values, **named)
        # Private to pika: the two sockets by which another thread wakes the loop.
        self.held = HeldDescriptors(each.fileno() for each in (self._r_interrupt, self._w_interrupt))

    @staticmethod
    def _get_interrupt_pair() -> tuple[socket.socket, socket.socket]:
        # Overrides pika, whose pair would have the lowest free numbers, which the author's files get as well.
        reading, writing = socket.socketpair()
        _move_up(reading, writing)
        return reading, writing

    def poll(self) -> None:
        self._check()
        super().poll()
        # Check before pika mistakes a closed descriptor for a silent broker.
        self._check()

    def stop(self) -> None:
        # Overrides pika, which would also write to the interrupting socket, and read that in the next iteration. The
        # loop does not wait now: it is stopped in its own thread alone. Private to pika: whether it is about to stop.
        self._stopping = True

    def wake_threadsafe(self) -> None:
        # pika would send to the number, whatever it is by now; the thread that resolves a name may come that late.
        if self.held.are_ours:
            super().wake_threadsafe()

    def _check(self) -> None:
        if not self.is_ours():
            raise OSError(errno.EBADF, CLOSED_HERE)


class _Loop(pika.adapters.select_connection.IOLoop):  # type: ignore[misc]
    @staticmethod
    def _get_poller(*values: Any, **named: Any) -> _Poller:
        # Overrides pika, which would choose epoll(7): that needs another descriptor.
        return _Poller(*values, **named)


class _Services(pika.adapters.utils.selector_ioloop_adapter.SelectorIOServicesAdapter):  # type: ignore[misc]
    """The loop of one connection, whose descriptors have numbers that the author's files do not get."""

    def __init__(self) -> None:
        loop = _Loop()
        super().__init__(loop)
        # Private to pika: the loop has no public attribute for its poller.
        self.poller: _Poller = loop._poller  # noqa: SLF001
        self.socket = OwnSockets()
        self.connecting: socket.socket | None = None

    def getaddrinfo(self, host: str, port: int, on_done: Callable[[Any], None], **named: Any) -> Any:
        family, kind, protocol, flags = (named.get(each, 0) for each in _LOOKED_UP_BY)
        found: object
        try:
            # An address needs no thread.
            found = socket.getaddrinfo(host, port, family, kind, protocol, flags | socket.AI_NUMERICHOST)
        except OSError:
            try:
                return super().getaddrinfo(host, port, on_done, **named)
            except RuntimeError:
                # pika resolves names in a thread, and the system allows no further thread: resolve the name here.
                try:
                    found = socket.getaddrinfo(host, port, family, kind, protocol, flags)
                except OSError as error:
                    found = error
        return self.call_later(0, lambda: on_done(found))

    def connect_socket(self, sock: socket.socket, resolved_addr: tuple[str, int], on_done: Callable[..., None]) -> Any:
        _move_up(sock)
        self.socket, self.connecting = OwnSockets([sock.fileno()]), sock
        return super().connect_socket(sock, resolved_addr, on_done)

    def create_streaming_connection(self, *values: Any, **named: Any) -> Any:
        # pika would close the number, whatever it is by now, if it is no connected socket.
        if not self.socket.are_ours:
            raise OSError(errno.EBADF, CLOSED_HERE)
        return super().create_streaming_connection(*values, **named)


class Connection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """
    A connection that reads the broker's last answer, and survives message properties that pika cannot decode.

    It gathers the frames of the messages that are published between two iterations of its loop. pika would make one
    system call for each frame, and a message has three frames.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        """Start to connect; the arguments are the same as for `pika.SelectConnection`, without the loop."""
        self.on_deliveries: Callable[[Iterable[deliveries.Delivery]], None] = lambda _: None
        """It is called with messages that consumers on this connection have received."""
        self._gathered: Frames = []
        self._services = _Services()
        super().__init__(*values, **named, custom_ioloop=self._services)
        self._services.poller.is_ours = lambda: self.is_ours

    def channel(self, *values: Any, **named: Any) -> Any:
        """Open a channel that no instrumentor has changed: it would make a span of each message."""
        # An instrumentor replaces this method of pika by one that keeps the original in this attribute.
        opening = pika.connection.Connection.channel
        return getattr(opening, "__wrapped__", opening)(self, *values, **named)

    @property
    def is_ours(self) -> bool:
        """Whether the descriptors are still the connection's: the author's code may close and reuse any number."""
        # A socket that pika has closed has no number. A TLS socket wraps the socket and keeps its number.
        connected = self._connected_socket or self._services.connecting
        is_open = connected is not None and connected.fileno() in self._services.socket.identities
        return self._services.poller.held.are_ours and (not is_open or self._services.socket.are_ours)

    @property
    def _connected_socket(self) -> socket.socket | None:
        # Private to pika: a connection does not show its socket.
        sock: socket.socket | None = getattr(self._transport, "_sock", None)
        return sock

    @property
    def max_body(self) -> int:
        """How many bytes of a body one frame may hold."""
        # Private to pika: the size that the broker and the client have negotiated.
        size: int = self._body_max_length
        return size

    def gather(self, frames: Frames) -> None:
        """Hold the encoded frames of a message until `emit_gathered` is called or other data is sent."""
        self._gathered += frames

    def emit_gathered(self) -> None:
        """Hand the gathered frames to the loop, which sends them in one write."""
        if self._gathered:
            gathered, self._gathered = b"".join(self._gathered), []
            # Private to pika, which has no public way to send frames that are encoded already.
            with pika_silenced():
                self._output_marshaled_frames([gathered])

    def shut_down(self, timeout: float) -> None:
        """
        Close the connection, and drop it if the broker does not answer.

        Args:
            timeout: How many seconds to wait for the broker's answer, and again for the end of the socket.

        Raises:
            AMQPError, OSError: The connection is broken; nothing is left to close.
        """
        try:
            self._end(timeout)
        finally:
            if self.is_ours:
                self.ioloop.close()
            else:
                self.abandon()

    def _end(self, timeout: float) -> None:
        if self.is_open:
            self.add_on_close_callback(lambda *_: self.ioloop.stop())
            self.close()
            self.run_for(timeout)
            # Private to pika, which has no public way to close the socket of a silent broker.
            if self._transport is not None:
                self._transport.abort()
                self.run_for(timeout)
        elif not (self.is_closed or self.is_closing):
            # Closed while it connects: pika closes the socket in an iteration of the loop, and then raises an
            # AssertionError about its own state.
            self.close()
            with contextlib.suppress(AssertionError):
                self.run_for(CLOSING_SECONDS)

    def run_for(self, seconds: float) -> None:
        """Run the loop for some seconds, or until it is stopped; with 0 it only sends and receives without waiting."""
        timer = self.ioloop.call_later(seconds, self.ioloop.stop)
        self.ioloop.start()
        self.ioloop.remove_timeout(timer)

    def abandon(self) -> None:
        """Keep a permanent reference, so that no code closes the descriptors, not even the interpreter's exit."""
        import ctypes  # noqa: PLC0415 - rarely needed

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def _adapter_emit_data(self, data: bytes) -> None:
        # Overrides pika: the gathered frames are older, and are sent first.
        self.emit_gathered()
        super()._adapter_emit_data(data)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        # Overrides pika. In TLS 1.3 a broker refuses our certificate after our side of the handshake is complete. Its
        # reason has arrived, but pika would report that our protocol header can no longer be written.
        if error is not None and not self._opened:
            error = tls.last_alert(self._connected_socket) or error
        super()._proto_connection_lost(error)

    def _proto_connection_made(self, transport: Any) -> None:
        # Overrides pika, which would read 4 KiB at a time: that is two or three messages.
        transport._MAX_RECV_BYTES = _READ_BYTES  # noqa: SLF001 - private to pika, which has no setting for it
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        # Overrides pika, to decode deliveries faster. All other frames are left to pika, one by one.
        self._frame_buffer += data_in
        while self._frame_buffer:
            found, is_partial = deliveries.leading(self._frame_buffer)
            if found:
                self._trim_frame_buffer(found[-1].end)
                self.on_deliveries(filter(self._is_consumed, found))
            if is_partial:
                return
            consumed, frame = self._read_frame()
            if frame is None:
                return
            self._trim_frame_buffer(consumed)
            self._process_frame(frame)

    def _is_consumed(self, found: deliveries.Delivery) -> bool:
        channel = self._channels.get(found.channel)
        # Private to pika: the consumers of a channel that have not ended.
        return channel is not None and found.consumer_tag in channel._consumers  # noqa: SLF001

    def _read_frame(self) -> tuple[int, pika.frame.Frame | None]:
        # Overrides pika, which would close the connection at a content header that it cannot decode.
        try:
            found: tuple[int, pika.frame.Frame | None] = super()._read_frame()
        except Exception as error:
            kind, channel, size = _FRAME_START.unpack_from(self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            _, _, body_size = _HEADER_START.unpack_from(self._frame_buffer, _FRAME_START.size)
            _log.warning("a message's properties cannot be read and are left out: %s", error)
            header = pika.frame.Header(channel, body_size, pika.BasicProperties())
            return _FRAME_START.size + size + 1, header
        return found


def _move_up(*sockets: socket.socket) -> None:
    numbers = [each.detach() for each in sockets]
    if not all(stat.S_ISSOCK(os.fstat(number).st_mode) for number in numbers):
        # The author's code has closed them already, and has opened files.
        raise OSError(errno.EBADF, CLOSED_HERE)
    for each, number in zip(sockets, numbers, strict=True):
        family, kind, protocol = each.family, each.type, each.proto
        each.__init__(family, kind, protocol, fileno=move_up(number))  # type: ignore[misc]
        each.setblocking(False)  # noqa: FBT003 - the standard library's signature
