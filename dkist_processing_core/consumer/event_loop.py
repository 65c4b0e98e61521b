"""
The event loop on which the `async` functions of a consumer run, beside the threads of its workers.

Not here: what they do (handlers).
"""

import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_END_SECONDS = 5.0


class EventLoop:
    """A loop with a thread of its own, which begins with its first use."""

    def __init__(self) -> None:
        """Create no thread yet."""
        self._beginning = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # A transaction has blocking calls. One that waited on the loop for another one's lock would keep the handler of
        # that one from its end.
        self.transaction_turn = threading.Lock()
        """Held by a worker from the start to the end of a transaction that an `async` function takes part in."""

    def run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the loop, and wait for its end in this thread."""
        import asyncio  # noqa: PLC0415 - takes more time than most of this package, and most consumers have no such function

        with self._beginning:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="dkist-core-async", daemon=True)
                self._thread.start()
            loop = self._loop
        request = asyncio.run_coroutine_threadsafe(_outcome(coroutine), loop).result()
        if request is not None:
            raise request

    def close(self) -> None:
        """End the loop and its thread."""
        with self._beginning:
            if self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            # Without its descriptors the loop does not notice that, and its thread ends with the process.
            self._thread.join(_END_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()
            self._loop = None


async def _outcome(coroutine: Coroutine[Any, Any, object]) -> BaseException | None:
    """Return the request to exit that a coroutine raises: it would end the loop, and leave the caller waiting."""
    try:
        await coroutine
    except (SystemExit, KeyboardInterrupt) as request:
        return request
    return None
