"""
The event loop on which the `async` functions of a consumer run, beside the threads of its workers.

Not here: what they do (handlers).
"""

import ctypes
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

_END_SECONDS = 5.0


class EventLoop:
    """A loop with a thread of its own, which begins with its first use."""

    def __init__(self, on_exit: Callable[[BaseException], None]) -> None:
        """
        Create no thread yet.

        Args:
            on_exit: It is called with each `SystemExit` or `KeyboardInterrupt` that is raised on the loop, also in a
                task that nothing awaits: as `asyncio.run` does, a consumer ends then.
        """
        self._on_exit = on_exit
        self._is_closing = False
        self._beginning = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failed: Future[object]
        # A transaction has blocking calls. One that waited on the loop for another one's lock would keep the handler of
        # that one from its end.
        self.transaction_turn = threading.Lock()
        """Held by a worker from the start to the end of a transaction that an `async` function takes part in."""

    def run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the loop, and wait for its end in this thread."""
        # They take more time than most of this package, and most consumers have no such function.
        import asyncio  # noqa: PLC0415
        from concurrent.futures import FIRST_COMPLETED, Future, wait  # noqa: PLC0415

        with self._beginning:
            if self._loop is None:
                self._loop, self._failed = asyncio.new_event_loop(), Future()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop, self._failed), name="dkist-core-async", daemon=True
                )
                self._thread.start()
            loop, failed = self._loop, self._failed
        work = asyncio.run_coroutine_threadsafe(coroutine, loop)
        wait((work, failed), return_when=FIRST_COMPLETED)
        (work if work.done() else failed).result()

    def _serve(self, loop: "asyncio.AbstractEventLoop", failed: "Future[object]") -> None:
        """Run the loop until it is closed: a request to exit also ends it, and a function that stops it."""
        while not self._is_closing and not failed.done():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as request:
                # asyncio raises them here, and where the task is awaited. A caller of `run` waits for that.
                self._on_exit(request)
            except Exception as error:  # noqa: BLE001 - other code may have closed its descriptors: the callers raise it
                failed.set_exception(error)

    def close(self) -> None:
        """End the loop and its thread."""
        with self._beginning:
            if self._loop is None or self._thread is None:
                return
            self._is_closing = True
            if self._failed.done():
                # Its end would close descriptors that may now belong to other files, also at the exit of Python.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._loop))
            else:
                self._loop.call_soon_threadsafe(self._loop.stop)
                # Without its descriptors the loop does not notice that, and its thread ends with the process.
                self._thread.join(_END_SECONDS)
                if not self._thread.is_alive():
                    self._loop.close()
            self._loop = None
