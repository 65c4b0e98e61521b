"""
Live pages: the changing parts of each page that is being viewed, rendered once per change for all its viewers.

A viewer requests `/live?of=ADDRESS` and receives server-sent events. The data of `parts` is a JSON object: the HTML of
each part that has changed by its id, at first of all parts. The data of `away` is a sentence: why nothing can be
rendered now, for example since the store that is built again has no such run yet; the next `parts`, which may be empty,
ends that. The data of `gone` is a sentence: why the page cannot be
shown any more; it is the last event. A stream ends after some minutes by `again`, and the viewer requests another one.
Not here: the rendering (viewing), and viewers that do not read (http.connection).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dkist_processing_core.dashboard.asked import PageError
from dkist_processing_core.dashboard.http.access import Role, role_of
from dkist_processing_core.dashboard.http.problems import ProblemResponse
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.text.internal_errors import log_internal_error_once

Render = Callable[[str, Role], dict[str, str]]
"""Returns the live parts of the page at an address, for a role."""
MOST_VIEWERS = 500
"""The largest number of viewers; further ones are refused."""
MOST_ADDRESSES = 200
"""The largest number of pages that they follow, each of which is rendered after each change."""
_MOST_RENDERINGS = 3
_LOOK_SECONDS = 0.25
# Durations grow, and attempts become late, without a report.
_TIME_SECONDS = 10.0
# Who may view is checked at each request.
STREAM_SECONDS = 600.0
"""The longest time of one stream."""
_RECONNECT_MILLISECONDS = 1000
_PING_SECONDS = 15
_NOT_FOUND, _UNAVAILABLE = 404, 503
# A later rendering of the same address may succeed.
_MAY_PASS = (_NOT_FOUND, _UNAVAILABLE)


class Live:
    """The ASGI application of live pages. Its methods belong to the thread of its event loop."""

    def __init__(self, render: Render, revision: Callable[[], object]) -> None:
        """
        Store what renders. Nothing is read while there are no viewers.

        Args:
            render: Returns the live parts of a page. It is called in another thread.
            revision: Returns a value that differs after each change of what pages show. It is called in another thread.
        """
        self._render = render
        self._revision = revision
        self._channels: dict[tuple[str, Role], _Channel] = {}
        self._watching: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(_MOST_RENDERINGS)
        self._is_ending = False

    @property
    def viewers(self) -> int:
        """The number of viewers. Any thread may ask for it."""
        return sum(channel.viewers for channel in list(self._channels.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts of a page as long as the viewer reads them."""
        key = Request(scope).query_params.get("of", ""), role_of(scope)
        found = None
        if self.viewers >= MOST_VIEWERS:
            found = f"{MOST_VIEWERS} viewers follow pages"
        elif key not in self._channels and len(self._channels) >= MOST_ADDRESSES:
            found = f"viewers follow {MOST_ADDRESSES} pages"
        if found is not None:
            text = f"{found} already; load the page again to see later changes"
            await ProblemResponse(_UNAVAILABLE, text, {"Retry-After": "30"})(scope, receive, send)
            return
        with self._viewing(key) as channel:
            await EventSourceResponse(self._events(channel), ping=_PING_SECONDS)(scope, receive, send)

    def end(self) -> None:
        """End all streams."""
        self._is_ending = True
        for channel in self._channels.values():
            channel.wake()

    @contextmanager
    def _viewing(self, key: tuple[str, Role]) -> Iterator["_Channel"]:
        """Count a viewer of a page during the block."""
        channel = self._channels.setdefault(key, _Channel())
        channel.viewers += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield channel
        finally:
            channel.viewers -= 1
            if not channel.viewers:
                del self._channels[key]

    async def _events(self, channel: "_Channel") -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        until, seen = clock() + STREAM_SECONDS, 0
        yield ServerSentEvent(retry=_RECONNECT_MILLISECONDS).encode()
        while not self._is_ending and clock() < until:
            has_changed = channel.has_changed
            if channel.version > seen:
                message, seen = channel.since(seen), channel.version
                yield message
                if channel.is_gone:
                    return
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await has_changed.wait()
        if not self._is_ending:
            yield ServerSentEvent("a stream ends after some minutes", event="again").encode()

    async def _watch(self) -> None:
        """Render what is viewed after each change, and from time to time, until there are no viewers."""
        clock = asyncio.get_running_loop().time
        while self._channels:
            began = clock()
            try:
                found = await run_in_threadpool(self._revision)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                reason = _reason(error)
                for channel in self._channels.values():
                    channel.interrupt(reason)
            else:
                for (address, role), channel in self._channels.items():
                    if channel.begin(found, clock()):
                        channel.rendering = asyncio.create_task(self._update(channel, address, role))
            await asyncio.sleep(max(_LOOK_SECONDS, clock() - began))
        self._watching = None

    async def _update(self, channel: "_Channel", address: str, role: Role) -> None:
        """Render one page; a slow one does not hold up the others."""
        async with self._room:
            clock = asyncio.get_running_loop().time
            began = clock()
            await self._render_into(channel, address, role)
            # Rendering takes at most half of the time.
            channel.rests_until = 2 * clock() - began

    async def _render_into(self, channel: "_Channel", address: str, role: Role) -> None:
        try:
            channel.update(await run_in_threadpool(self._encoded, address, role))
        except PageError as error:
            if error.status in _MAY_PASS:
                channel.interrupt(str(error))
            else:
                channel.close(str(error))
        except Exception as error:  # noqa: BLE001 - of one page, and the next rendering may succeed
            channel.interrupt(_reason(error))

    def _encoded(self, address: str, role: Role) -> dict[str, bytes]:
        """Render the parts as members of a JSON object, which takes long for large ones: it is called in a thread."""
        parts = self._render(address, role)
        return {name: f"{json.dumps(name)}:{json.dumps(html)}".encode() for name, html in parts.items()}


class _Channel:
    """The parts of one page for one role, and the messages about them."""

    def __init__(self) -> None:
        self.viewers = 0
        self.version = 0
        """It grows with each message to the viewers; 0 before the first one."""
        self.is_gone = False
        self.has_changed = asyncio.Event()
        """The event of the next change; each change has another one."""
        self.rendering: asyncio.Task[None] | None = None
        self.rests_until = 0.0
        """The time of the event loop before which it is not rendered again."""
        self._revision: object = None
        self._due = 0.0
        self._reason: str | None = None
        # As members of a JSON object.
        self._parts: dict[str, bytes] = {}
        self._changed_in: dict[str, int] = {}
        # Viewers that have seen the same version get the same message.
        self._messages: dict[int, bytes] = {}

    def begin(self, revision: object, now: float) -> bool:
        """Return True if it is to be rendered now, for a revision of what pages show and a time of the event loop."""
        if now < self.rests_until or (self.rendering is not None and not self.rendering.done()):
            return False
        if revision == self._revision and now < self._due:
            return False
        self._revision, self._due = revision, now + _TIME_SECONDS
        return True

    def update(self, parts: dict[str, bytes]) -> None:
        """Take over the rendered parts."""
        changed = [name for name, part in parts.items() if self._parts.get(name) != part]
        if changed or self._reason is not None or not self.version:
            self._reason = None
            self._advance()
            self._parts = parts
            self._changed_in |= dict.fromkeys(changed, self.version)

    def interrupt(self, reason: str) -> None:
        """Note why nothing can be rendered now."""
        if reason != self._reason:
            self._reason = reason
            self._advance()

    def close(self, reason: str) -> None:
        """Note why the page cannot be shown any more."""
        self._reason, self.is_gone = reason, True
        self._advance()

    def since(self, seen: int) -> bytes:
        """Return the message for viewers that have seen this version."""
        if seen not in self._messages:
            self._messages[seen] = self._message(seen)
        return self._messages[seen]

    def _message(self, seen: int) -> bytes:
        if self._reason is not None:
            return ServerSentEvent(self._reason, event="gone" if self.is_gone else "away").encode()
        parts = [part for name, part in self._parts.items() if self._changed_in[name] > seen]
        # Encoded JSON has no line break.
        return b"event: parts\r\ndata: {" + b",".join(parts) + b"}\r\n\r\n"

    def _advance(self) -> None:
        self.version += 1
        self._messages.clear()
        self.wake()

    def wake(self) -> None:
        """Let all viewers look at the channel."""
        self.has_changed.set()
        self.has_changed = asyncio.Event()


def _reason(error: Exception) -> str:
    """Return why a page cannot be rendered now, as a sentence for its viewers."""
    if isinstance(error, DKISTProcessingCoreError):
        return str(error)
    log_internal_error_once("a live page is not rendered", error)
    return "an error of this package, which the log of the dashboard has"
