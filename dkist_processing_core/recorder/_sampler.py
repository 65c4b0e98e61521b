"""
The stacks of a process's threads, taken again and again by a separate thread.

It reads where each thread is, and no variable's value. The thread ends before each fork, and another one goes on after
it: a fork beside a thread may inherit locked locks, and newer Pythons warn of it. Not here: the memory for the stacks
(region), and the watch for forks (writing).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # as in process.signals
import contextlib
import functools
import gc
import os
import resource
import sys
import threading
import time

# Not by `threading`, whose threads are counted, listed and traced for the author; and by name, since a library may
# replace what the module has.
from _thread import allocate_lock, get_ident, get_native_id, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

_PERIOD_SECONDS, _SHORTEST_SECONDS, _SHARE_OF_AGE = 0.5, 0.05, 0.2
_LARGEST_SHARE = 0.002
"""The largest share of the time that samples take."""
_END_SECONDS, _TURN_SECONDS = 1.0, 0.0001
_ADDRESSES = 72 * 1024 * 1024
"""The addresses that a thread takes: its stack, and glibc's memory for it, nearly all of which is never used."""
_SHARE_OF_ADDRESSES = 0.01
"""The largest share of a limit on addresses (`ulimit -v`) that is taken from the task."""
_MOST_FRAMES, _MOST_OF_THREAD = 2000, 100
_MOST_CHARACTERS = 32 * 1024
_MOST_OF_NAME = 100
_MOST_PARTS = 4
_OWN = "dkist-core-"
_LOADERS = "<frozen importlib."
_PACKAGE, _PROGRAM = f"{__file__.rpartition('/recorder/')[0]}/", "<string>"
# All others are for the author's threads; these are of the thread that makes the error.
_NOT_BLOCKED = {_signal.SIGSEGV, _signal.SIGABRT, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL}


class Sampler:
    """A thread that takes the stacks: often in a young process, and each half second later."""

    def __init__(self, keep: Callable[[str], None], redacted: Callable[[], Callable[[str], str]]) -> None:
        """
        Store what is done with the stacks. No thread is started.

        Args:
            keep: Receives the text of the stacks.
            redacted: Returns a function that redacts.
        """
        self._keep = keep
        self._redacted = redacted
        self._began = time.monotonic()
        self._due = self._began + _SHORTEST_SECONDS
        self._running: tuple[LockType, LockType] | None = None
        self._native_id = 0

    def start(self) -> None:
        """Start the thread. Without one, if it has no room or cannot be started, the last stacks grow older."""
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit * _SHARE_OF_ADDRESSES < _ADDRESSES:
            return
        stop, ended = allocate_lock(), allocate_lock()
        stop.acquire()
        ended.acquire()
        with contextlib.suppress(RuntimeError):
            start_new_thread(self._sample_repeatedly, (stop, ended))
            self._running = stop, ended

    def stop(self) -> None:
        """End the thread. When this returns, the kernel does not count it any more, unless it is blocked."""
        running, self._running = self._running, None
        if running is None:
            return
        stop, ended = running
        stop.release()
        until = time.monotonic() + _END_SECONDS
        if ended.acquire(timeout=_END_SECONDS):
            while os.path.exists(f"/proc/self/task/{self._native_id}") and time.monotonic() < until:  # noqa: PTH110 - pathlib costs its import
                time.sleep(_TURN_SECONDS)

    def _sample_repeatedly(self, stop: LockType, ended: LockType) -> None:
        try:
            self._native_id = get_native_id()
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals() - _NOT_BLOCKED)
            # Neither `max` nor a keyword, which make objects that the collector counts.
            while not stop.acquire(True, wait if (wait := self._due - time.monotonic()) > 0 else 0):  # noqa: FBT003
                # The cyclic collector would run the author's destructors in this thread.
                is_on = gc.isenabled()
                gc.disable()
                try:
                    self._sample()
                finally:
                    if is_on:
                        gc.enable()
        finally:
            ended.release()

    def _sample(self) -> None:
        used = time.thread_time()
        with contextlib.suppress(Exception):
            self._keep(stacks(self._redacted()))
        now, used = time.monotonic(), time.thread_time() - used
        period = min(_PERIOD_SECONDS, (now - self._began) * _SHARE_OF_AGE)
        self._due = now + max(_SHORTEST_SECONDS, period, used / _LARGEST_SHARE)


def stacks(redacted: Callable[[str], str]) -> str:
    """
    Return the stacks of the threads of this process, redacted: the main thread's first, the deepest frame first.

    The calling thread and those of this package are left out, and what is beyond a limit of the text.
    """
    parts: list[str] = []
    characters = 0
    # One list, since the collector counts no text, no number and no code object.
    found, end = _lines_of_threads(), -1
    while end + 1 < len(found):
        ident, start = found[end + 1], end + 2
        end = found.index(None, start)
        name = _name_of(ident)
        if name.startswith(_OWN):
            continue
        if len(name) > _MOST_OF_NAME:
            # Redacted before it is cut, as any text.
            name = redacted(name)[:_MOST_OF_NAME]
        part = f'Thread "{name}":\n{_shown(found[start:end])}'
        characters += len(part) + 1
        if characters > _MOST_CHARACTERS and parts:
            break
        parts.append(part)
    return redacted("\n".join(parts))[:_MOST_CHARACTERS]


def _lines_of_threads() -> list[Any]:
    """Return for each thread its number, the code and the line of each of its frames in turn, and None."""
    own, main = get_ident(), threading.main_thread().ident
    # A frame keeps the variables of its function alive, whose destructors would then run in this thread. So all are
    # given back at once: before other threads get the interpreter, which needs 5 ms (sys.setswitchinterval).
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    found: list[Any] = []
    left = _MOST_FRAMES
    for ident in sorted(frames, key=lambda ident: ident != main):
        frame = frames.pop(ident)
        start = len(found)
        found.append(ident)
        while ident != own and frame is not None and len(found) - start <= 2 * _MOST_OF_THREAD + 1 and left > 0:
            # As in a traceback of Python's.
            if not frame.f_code.co_filename.startswith(_LOADERS):
                found += frame.f_code, frame.f_lineno
            left -= 1
            frame = frame.f_back  # type: ignore[assignment]
        found.append(None)
        if len(found) == start + 2:
            del found[start:]
    return found


def _shown(frames: list[Any]) -> str:
    """Return the lines of a thread, without the frames of this package by which the author's code was called."""
    is_whole = len(frames) <= 2 * _MOST_OF_THREAD
    end = len(frames)
    while is_whole and end and frames[end - 2].co_filename.startswith((_PACKAGE, _PROGRAM)):
        end -= 2
    # A thread may have no other frames.
    shown = frames[: min(end or len(frames), 2 * _MOST_OF_THREAD)]
    lines = (
        f"  {_place(code.co_filename)}:{line} in {code.co_name}\n"
        for code, line in zip(*[iter(shown)] * 2, strict=True)
    )
    return "".join(lines) + ("" if is_whole else "  ...\n")


@functools.lru_cache(maxsize=512)
def _place(file: str) -> str:
    """Return the path of a file from where it is imported; its name if that is unknown."""
    roots = [f"{each.rstrip('/')}/" for each in sys.path if type(each) is str and each]
    root = max((each for each in roots if file.startswith(each)), key=len, default="")
    parts = file[len(root) :].split("/") if root else file.split("/")[-2 if file.endswith("/__init__.py") else -1 :]
    return "/".join(parts if len(parts) <= _MOST_PARTS else [parts[0], "...", *parts[2 - _MOST_PARTS :]])


def _name_of(ident: int) -> str:
    """Return the name of a thread without any of the author's code, such as a property."""
    thread = threading._active.get(ident)  # type: ignore[attr-defined] # noqa: SLF001 - enumerate() takes a lock
    name = None if thread is None else vars(thread).get("_name")
    return " ".join(name.split()) if type(name) is str else str(ident)
