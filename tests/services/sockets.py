"""
Loopback ports: free ones, refusing ones, and one that accepts and never sends.

Not here: servers that answer.
"""

import random
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"

_LOWEST = 10_240
_HIGHEST = 65_535


def _ephemeral_range() -> range:
    """
    Return the ports that the kernel gives to outgoing connections.
    """
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    return range(int(low), int(high) + 1)


def free_ports(count: int) -> list[int]:
    """
    Return that many different ports on which nothing listens.

    They lie outside the range of outgoing connections. A server may stop and come back later on such a port: no
    connection of any process takes it in between, and a client that keeps trying never connects to itself.
    """
    ephemeral = _ephemeral_range()
    candidates = [port for port in range(_LOWEST, _HIGHEST + 1) if port not in ephemeral]
    random.SystemRandom().shuffle(candidates)  # pytest-randomly seeds the module's own generator: parallel runs collide
    ports: list[int] = []
    for port in [*candidates, *([0] * count)]:  # the kernel's choice, if every port is in that range
        if len(ports) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            ports.append(probe.getsockname()[1])
    return ports


@contextmanager
def closed_port() -> Iterator[int]:
    """
    Yield a port that refuses connections; no other process can take it during the block.
    """
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        # Bound, never listening: the kernel answers every SYN with RST.
        yield holder.getsockname()[1]


class BlackHole:
    """
    A loopback port that accepts connections and never sends a byte.
    """

    def __init__(self) -> None:
        """
        Open the port.
        """
        self.host = LOOPBACK
        self._accepted: list[socket.socket] = []
        # The kernel completes the handshakes, so a client is connected without a call of accept.
        self._listener = socket.create_server((LOOPBACK, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """
        Return the open port.
        """
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Close the port and every connection.
        """
        self.close()

    def wait_for_connection(self, timeout: float = 100.0) -> None:
        """
        Return when one more client has connected.

        Raises:
            TimeoutError: no client connected in time.
        """
        readable, _, _ = select.select([self._listener], [], [], timeout)
        if not readable:
            raise TimeoutError(f"nobody connected to the black hole on port {self.port} within {timeout} s")
        self._accepted.append(self._listener.accept()[0])

    def close(self) -> None:
        """
        Close the port and every connection; a second call has no effect.
        """
        for connection in self._accepted:
            connection.close()
        self._accepted.clear()
        self._listener.close()
