"""Functions shared by the asyncio peers: a number of publishes that wait for their confirms at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")


async def publish_in_window(
    publish: Callable[[_Item], Awaitable[object]], messages: Iterable[_Item], size: int
) -> None:
    """Publish messages, `size` of them at a time, and return when all are confirmed."""
    # One iterator for all: a publish that has its confirm takes the next message.
    left = iter(messages)

    async def publish_what_is_left() -> None:
        for message in left:
            await publish(message)

    await asyncio.gather(*(publish_what_is_left() for _ in range(size)))
