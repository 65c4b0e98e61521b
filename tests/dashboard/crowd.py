"""
Many viewers of one live page, some of which never read.

Not here: what they must get, and when (test_viewers).
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

from tests.waiting import SECONDS, wait_until

_LONGEST_LINE = 64 * 1024 * 1024


class Crowd:
    """Viewers that read, each of which counts the events that it got, and viewers that do not."""

    def __init__(self, host: str, port: int, of: str) -> None:
        """Store what they follow."""
        self.received: list[int] = []
        """The number of events that each viewer has got."""
        self.last: list[bytes] = []
        """The data of the last event of each."""
        self.sizes: list[int] = []
        """The size of all events of each, in bytes."""
        self.ended = 0
        """The number of readers of which the stream has ended."""
        self._address = host, port
        self._request = f"GET /live?{urlencode({'of': of})} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._silent: list[socket.socket] = []

    @contextmanager
    def following(self, readers: int, silent: int) -> Iterator[None]:
        """Follow the page during the block, which begins when each reader has got the first event."""
        self.received, self.sizes, self.last = [0] * readers, [0] * readers, [b""] * readers
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(self._read(number)) for number in range(readers)]
        thread = threading.Thread(
            target=loop.run_until_complete, args=(asyncio.gather(*tasks, return_exceptions=True),)
        )
        with ExitStack() as stack:
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda: [loop.call_soon_threadsafe(task.cancel) for task in tasks])
            for _ in range(silent):
                client = socket.socket()
                # Otherwise the kernel would read on for it.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(self._address)
                client.sendall(self._request)
                self._silent.append(stack.enter_context(client))
            wait_until(lambda: all(self.received), every=0.1)
            yield
        loop.close()

    async def _read(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(*self._address, limit=_LONGEST_LINE)
        try:
            writer.write(self._request)
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    self.received[number] += 1
                    self.sizes[number] += len(line)
                    self.last[number] = line
            self.ended += 1
        finally:
            writer.close()

    def silent_were_dropped(self) -> bool:
        """Read what the silent viewers were sent, and return True if the stream of each has an end."""
        return all(_ends(client) for client in self._silent)


def _ends(client: socket.socket) -> bool:
    client.settimeout(SECONDS)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True
