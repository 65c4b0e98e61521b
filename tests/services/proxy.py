"""
A TCP proxy in front of a broker, by which a test breaks the network between the broker and its clients.

Not here: AMQP. The proxy moves bytes and does not interpret them.
"""

import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.services.sockets import LOOPBACK, free_ports

_CHUNK = 65_536
_SECONDS = 10.0
_BROKEN = select.POLLERR | select.POLLHUP
# SO_LINGER with a timeout of zero: the kernel drops unsent data and notifies the peer (RST).
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Flow:
    """
    One direction of a connection: bytes that were read and are not yet written.
    """

    source: socket.socket
    target: socket.socket
    waiting: bytes = b""
    has_ended: bool = False


@dataclass(eq=False)
class _Connection:
    """
    A client's connection and the one to the broker that continues it.
    """

    client: socket.socket
    broker: socket.socket
    questions: _Flow = field(init=False)
    answers: _Flow = field(init=False)
    lacks_answers: bool = False

    def __post_init__(self) -> None:
        for end in (self.client, self.broker):
            end.settimeout(0)
        self.questions = _Flow(self.client, self.broker)
        self.answers = _Flow(self.broker, self.client)

    def close(self, *, reset: bool) -> None:
        for end in (self.client, self.broker):
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


class Proxy:
    """
    Passes bytes between clients and one port, until a method requests a fault; each request is complete when it
    returns.
    """

    def __init__(self, port: int) -> None:
        """
        Choose a port in front of the given one; nothing is passed before the ``with`` begins.
        """
        self.host = LOOPBACK
        (self.port,) = free_ports(1)
        self.accepted = 0
        """How many connections were accepted."""
        self.bytes_sent = 0
        """How many bytes the clients have sent."""
        self.bytes_answered = 0
        """How many bytes the broker has sent, including those that were swallowed."""
        self._target = port
        self._listener: socket.socket | None = None
        self._connections: list[_Connection] = []
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._is_frozen = self._is_swallowing = self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Self:
        """
        Begin to listen.
        """
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Close the port and every connection, and wait for the thread.
        """
        self._order(self._close)
        self._thread.join()
        self._wake_reader.close()
        self._wake_writer.close()

    def cut(self) -> None:
        """
        Reset every connection; new ones are accepted.
        """
        self._order(self._reset_all)

    def refuse(self) -> None:
        """
        Stop listening; existing connections stay.
        """
        self._order(self._stop_listening)

    def accept(self) -> None:
        """
        Listen, again and on the same port.
        """
        self._order(self._listen)

    def freeze(self) -> None:
        """
        Forward nothing in either direction, as a cut network; the kernel still accepts connections.
        """
        self._order(lambda: self._switch(frozen=True))

    def swallow_answers(self) -> None:
        """
        Forward the clients' bytes, and drop the broker's answers.
        """
        self._order(lambda: self._switch(swallowing=True))

    def thaw(self) -> None:
        """
        Forward everything again. A connection with dropped answers is reset, because the bytes after them make no
        sense.
        """
        self._order(self._thaw)

    def wait_for(self, condition: Callable[["Proxy"], bool], timeout: float = _SECONDS) -> None:
        """
        Return when the condition is true; it is checked after every transfer.

        Raises:
            TimeoutError: it did not in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(
                    f"not within {timeout} s; accepted: {self.accepted}, sent: {self.bytes_sent}, "
                    f"answered: {self.bytes_answered}"
                )

    def _order(self, action: Callable[[], None]) -> None:
        is_done = threading.Event()
        self._orders.put((action, is_done))
        self._wake_writer.send(b"!")
        if not is_done.wait(_SECONDS):
            raise TimeoutError(f"the proxy on port {self.port} does not heed an order")

    # The methods below run in the proxy's own thread.

    def _run(self) -> None:
        while not self._is_closing:
            found = self._poll()
            if self._wake_reader.fileno() in found:
                self._heed(len(self._wake_reader.recv(_CHUNK)))
            elif not self._is_frozen:
                self._move(found)
            with self._changed:
                self._changed.notify_all()

    def _poll(self) -> dict[int, int]:
        wanted = {self._wake_reader.fileno(): select.POLLIN}
        if not self._is_frozen:
            if self._listener is not None:
                wanted[self._listener.fileno()] = select.POLLIN
            for flow in self._flows():
                end, event = (flow.target, select.POLLOUT) if flow.waiting else (flow.source, select.POLLIN)
                if flow.waiting or not flow.has_ended:
                    wanted[end.fileno()] = wanted.get(end.fileno(), 0) | event
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        return dict(poll.poll())

    def _flows(self) -> Iterator[_Flow]:
        for connection in self._connections:
            yield from (connection.questions, connection.answers)

    def _heed(self, count: int) -> None:
        for _ in range(count):
            action, is_done = self._orders.get()
            action()
            is_done.set()

    def _move(self, found: dict[int, int]) -> None:
        for connection in list(self._connections):
            try:
                self._pass_on(connection, connection.questions, found)
                self._pass_on(connection, connection.answers, found)
            except OSError:
                self._connections.remove(connection)
                connection.close(reset=True)
                continue
            if connection.questions.has_ended and connection.answers.has_ended:
                self._connections.remove(connection)
                connection.close(reset=False)
        if self._listener is not None and self._listener.fileno() in found:
            self._connect(self._listener.accept()[0])

    def _connect(self, client: socket.socket) -> None:
        self.accepted += 1
        try:
            broker = socket.create_connection((LOOPBACK, self._target), timeout=_SECONDS)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        self._connections.append(_Connection(client, broker))

    def _pass_on(self, connection: _Connection, flow: _Flow, found: dict[int, int]) -> None:
        is_answer = flow is connection.answers
        if not flow.waiting and not flow.has_ended and found.get(flow.source.fileno(), 0) & (select.POLLIN | _BROKEN):
            data = flow.source.recv(_CHUNK)
            if not data:
                flow.has_ended = True
                flow.target.shutdown(socket.SHUT_WR)
            elif is_answer:
                self.bytes_answered += len(data)
            else:
                self.bytes_sent += len(data)
            if is_answer and self._is_swallowing:
                connection.lacks_answers = True
            else:
                flow.waiting = data
        if flow.waiting:
            try:
                flow.waiting = flow.waiting[flow.target.send(flow.waiting) :]
            except BlockingIOError:
                return

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((LOOPBACK, self.port), backlog=128)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _reset_all(self) -> None:
        for connection in self._connections:
            connection.close(reset=True)
        self._connections.clear()

    def _switch(self, *, frozen: bool = False, swallowing: bool = False) -> None:
        self._is_frozen, self._is_swallowing = frozen, swallowing

    def _thaw(self) -> None:
        self._switch()
        for connection in [each for each in self._connections if each.lacks_answers]:
            self._connections.remove(connection)
            connection.close(reset=True)

    def _close(self) -> None:
        self._stop_listening()
        self._reset_all()
        self._is_closing = True
