"""
One connection with one channel, for one thread with blocking calls; the base class of all operations.

The callbacks and the calls that wait for them share the state of one connection, so they stay in one module. Not here:
the requests on the channel (publishing, consuming, declaring), and pika's private names (pika_connection).
"""

import contextlib
import errno
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, cast

import pika
import pika.channel
import pika.frame
import pika.spec
from pika.exceptions import ChannelClosedByClient

from dkist_processing_core.bus.amqp.connection_parameters import parameters
from dkist_processing_core.bus.amqp.errors import CLOSED_HERE, LOST, PIKA_ERRORS, explain
from dkist_processing_core.bus.amqp.pika_connection import CLOSING_SECONDS, Connection
from dkist_processing_core.bus.amqp.pika_logs import filter_pika, pika_silenced
from dkist_processing_core.errors import BusError, BusUnreachableError
from dkist_processing_core.settings.interface import Settings

CLOSE_SECONDS = 1.0
RPC_SECONDS = 10.0


class _Waking(threading.local):
    """Whether a thread is waking the owner of a session, and whether it must do so once more."""

    def __init__(self) -> None:
        self.is_busy = False
        self.is_wanted = False


class Session:
    """
    One connection to the configured broker, with one channel in use.

    One thread uses it, one call at a time; callers pass no callbacks. Only `wake` may be called from other threads.
    Every failure is a `BusError` with a message for operators.
    """

    def __init__(self, settings: Settings, *, deadline: float = math.inf) -> None:
        """Store the settings and the deadline (`time.monotonic`) of all waits. No connection is opened."""
        service = settings.isb_mesh_service
        self.where = f"RabbitMQ at {service.host}:{service.port}"
        self.blocked_reason: str | None = None
        """Why the broker blocks publishers; None if it does not."""
        self._pid = os.getpid()
        self._waking = _Waking()
        self._settings = settings
        self._deadline = deadline
        self._failure: BusError | None = None
        self._connection: Connection | None = None
        self._channel: pika.channel.Channel | None = None
        self._is_open = False
        self._woken = False

    @classmethod
    def open(cls, settings: Settings, timeout: float, *, deadline: float = math.inf) -> Self:
        """
        Return a connected session with an open channel.

        Args:
            settings: The broker's address, credentials and virtual host.
            timeout: How many seconds to wait for the connection, and again for the channel.
            deadline: The time (`time.monotonic`) past which none of the session's calls waits.

        Raises:
            BusUnreachableError: The broker does not answer in time.
            BusRefusedError: The broker refuses the credentials or the virtual host.
        """
        session = cls(settings, deadline=deadline)
        session._connect(timeout)
        return session

    def _connect(self, timeout: float) -> None:
        self._failure, self._is_open = None, False
        filter_pika()
        with self._explained():
            self._connection = Connection(
                parameters(self._settings, timeout),
                on_open_callback=self._on_connection_open,
                on_open_error_callback=lambda _, error: self._fail(error),
                on_close_callback=lambda _, error: self._fail(error),
            )
        try:
            # At the timeout, pika itself ends the attempt, and only then closes the socket.
            self._run(lambda: self._is_open, timeout + CLOSING_SECONDS, "does not answer")
            self._open_channel(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """
        Close the connection. If the broker does not answer within about a second, drop it.

        A forked process only drops it, because the parent process still uses it.
        """
        connection, self._connection = self._connection, None
        if connection is None or self._pid != os.getpid():
            return
        if not connection.is_ours:
            connection.abandon()
            return
        # A broker that blocks publishers reads nothing from the connection, so it would not answer the close.
        timeout = 0.0 if self.blocked_reason else CLOSE_SECONDS
        with contextlib.suppress(*PIKA_ERRORS, OSError), pika_silenced():
            connection.shut_down(timeout)

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open. The channel may be closed nevertheless."""
        return self._connection is not None and bool(self._connection.is_open)

    def wake(self) -> None:
        """End a waiting call of the owning thread. Any thread and any signal handler may call this."""
        waking = self._waking
        waking.is_wanted = True
        if waking.is_busy:
            # This thread already holds pika's lock, which is not reentrant: the interrupted call wakes once more.
            return
        while waking.is_wanted:
            waking.is_wanted, waking.is_busy = False, True
            try:
                self._wake()
            finally:
                waking.is_busy = False

    def _wake(self) -> None:
        connection = self._connection
        # In a forked process the lock of pika may never be released, and the loop belongs to the parent process.
        if connection is not None and self._pid == os.getpid() and connection.is_ours:
            with contextlib.suppress(*PIKA_ERRORS, AttributeError, OSError):
                connection.ioloop.add_callback_threadsafe(self._on_wake)

    # For the base classes of operations: the channel, and requests on it

    @property
    def _live_connection(self) -> Connection:
        if self._connection is None:
            raise self._failure or BusUnreachableError(f"{self.where}: the connection is closed")
        return self._connection

    @property
    def _live_channel(self) -> pika.channel.Channel:
        if self._failure is not None:
            raise self._failure
        if self._channel is None:
            msg = f"{self.where}: the connection is closed"
            raise BusUnreachableError(msg)
        return self._channel

    def _open_channel(self, timeout: float) -> None:
        self._channel = self._new_channel(timeout)

    def _new_channel(self, timeout: float) -> pika.channel.Channel:
        opened: list[pika.channel.Channel] = []

        def on_open(channel: pika.channel.Channel) -> None:
            opened.append(channel)
            self._stop_loop()

        connection = self._live_connection
        with self._explained():
            connection.channel(on_open_callback=on_open)
        self._run(lambda: bool(opened), timeout, "does not open a channel")
        opened[0].add_on_close_callback(lambda _, error: self._on_channel_close(error))
        return opened[0]

    def _reopen_channel(self) -> None:
        """
        Open another channel after the broker has closed this one.

        Raises:
            BusUnreachableError: The connection is lost as well.
        """
        if not self.is_connected:
            # A channel failure does not explain a lost connection.
            is_reason = isinstance(self._failure, BusUnreachableError)
            raise cast("BusError", self._failure) if is_reason else BusUnreachableError(f"{self.where} {LOST}")
        self._failure = None
        self._open_channel(RPC_SECONDS)

    def _call(self, request: Callable[[Callable[..., None]], object]) -> tuple[Any, ...]:
        """Call `request` with a callback, wait for the answer, and return the callback's arguments."""
        answers: list[tuple[Any, ...]] = []

        def done(*answer: Any) -> None:
            answers.append(answer)
            self._stop_loop()

        with self._explained():
            request(done)
        self._run(lambda: bool(answers), RPC_SECONDS, "does not answer a request")
        return answers[0]

    def _wait(self, until: Callable[[], bool], timeout: float) -> None:
        """Run the loop until `until()` is True, until a `wake`, or until `timeout` seconds have passed."""
        self._run(lambda: until() or self._woken, timeout)
        self._woken = False

    def _run(self, until: Callable[[], bool], timeout: float, complaint: str | None = None) -> None:
        """
        Run the loop until `until()` is True or `timeout` seconds have passed.

        Raises:
            BusUnreachableError: The time is over, and a `complaint` is given.
        """
        connection = self._live_connection
        self._refuse_foreign_descriptors(connection)
        connection.emit_gathered()
        began = time.monotonic()
        deadline = min(began + timeout, self._deadline)
        timer = connection.ioloop.call_later(max(0.0, deadline - began), connection.ioloop.stop)
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                if until():
                    return
                with self._explained():
                    connection.ioloop.start()
                self._refuse_foreign_descriptors(connection)
                if time.monotonic() >= deadline and not until() and self._failure is None:
                    break
        finally:
            connection.ioloop.remove_timeout(timer)
        if complaint is not None:
            msg = f"{self.where} {complaint} within {max(0.0, deadline - began):.3g} s"
            raise BusUnreachableError(msg)

    def _turn(self) -> None:
        """Send and receive without waiting; the next call raises a failure."""
        connection = self._live_connection
        connection.emit_gathered()
        with self._explained():
            connection.run_for(0.0)

    def _refuse_foreign_descriptors(self, connection: Connection) -> None:
        """Raise a `BusError` if other code of this process has closed the connection's descriptors."""
        if not connection.is_ours:
            self._fail(OSError(errno.EBADF, CLOSED_HERE))
            raise cast("BusError", self._failure)

    def _stop_loop(self) -> None:
        if self._connection is not None:
            self._connection.ioloop.stop()

    # Callbacks: they record an event and stop the loop, so that `_run` checks its condition

    def _on_connection_open(self, connection: Connection) -> None:
        self._is_open = True
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._stop_loop()

    # The annotation is quoted: before pika 1.4 this class is not subscriptable at run time.
    def _on_blocked(self, _: object, frame: "pika.frame.Method[pika.spec.Connection.Blocked]") -> None:
        self.blocked_reason = str(frame.method.reason or "no reason given")
        self._on_wake()

    def _on_unblocked(self, *_: object) -> None:
        self.blocked_reason = None
        self._on_wake()

    def _on_wake(self) -> None:
        self._woken = True
        self._stop_loop()

    def _on_channel_close(self, error: BaseException) -> None:
        is_ours = isinstance(error, ChannelClosedByClient)
        if self._connection is not None and self._connection.is_open and not is_ours:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        # The first failure has the cause; later failures are consequences of it.
        if self._failure is None:
            self._failure = explain(error, self._settings)
        self._stop_loop()

    def _fail_with(self, complaint: str) -> None:
        self._failure = self._failure or BusUnreachableError(f"{self.where}: {complaint}")
        self._stop_loop()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with pika_silenced():
                yield
        except (*PIKA_ERRORS, OSError) as error:
            raise explain(error, self._settings) from error
        except Exception as error:
            # pika takes a file of the author in the place of its socket for a mistake of its caller.
            if self._connection is None or self._connection.is_ours:
                raise
            raise explain(OSError(errno.EBADF, CLOSED_HERE), self._settings) from error
