"""
A bus in the memory of this process: for tests of tasks, of consumers and of programs that call `subscribe`.

Not here: its messages (in_memory_journal) and its subscriptions (in_memory_receivers).
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Self, cast

from dkist_processing_core.bus import bus_in_use
from dkist_processing_core.bus.interface import FEWEST_AT_ONCE, MOST_AT_ONCE, Batches, Offset
from dkist_processing_core.errors import JournalError
from dkist_processing_core.events import Event, RecipeRunFailureMessage, decode
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.message import Message, to_failure_message, to_message, topic_matches
from dkist_processing_core.journal.spare import Spare
from dkist_processing_core.testing.in_memory_journal import InMemoryJournal
from dkist_processing_core.testing.in_memory_receivers import (
    DeadLetter,
    InMemoryReceiver,
    NamedInMemoryReceiver,
    NamedPosition,
)

# Nothing can be created below this path. The messages about a journal name it.
_NO_FILE = Path(os.devnull) / "in-memory"


class InMemoryBus:
    """
    A bus without a broker and without a file. It has everything until it is garbage.

    In a `with` block, it is the bus of this process: tasks that are called, `subscribe` and `Consumer` use it, with any
    settings. Processes that these start have their own bus.
    """

    is_remote = False
    where = "the in-memory bus of this process"
    journal_path = _NO_FILE
    event_exchange = "workflow.events.x"
    failure_exchange = "master.direct.x"

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Start without messages; `clock` gives the time at which a message reaches the bus, in seconds since 1970."""
        self._journal = InMemoryJournal(self.journal_path, clock)
        self._named: dict[str, NamedPosition] = {}
        self._stack = contextlib.ExitStack()

    def publish(self, *events: Event) -> None:
        """Put events on the bus, as a publisher does: redacted, cut to size and encoded."""
        self._journal.append([to_message(event, self.event_exchange) for event in events])

    def publish_failure(self, message: RecipeRunFailureMessage) -> None:
        """Put a failure message of release 7.x on the bus."""
        self._journal.append([to_failure_message(message, self.failure_exchange)], once=True)

    def publish_raw(self, *messages: Message) -> None:
        """Put messages on the bus that may be no events."""
        self._journal.append(messages)

    @property
    def events(self) -> list[Event]:
        """
        All reports that were published, oldest first.

        Raises:
            DecodeError: A message on the exchange of events is no event.
        """
        return [
            decode(message.body, message.properties.content_type, message.properties.headers)
            for message in self.messages
            if message.exchange == self.event_exchange
        ]

    @property
    def messages(self) -> list[Message]:
        """All messages that were published, oldest first."""
        return [entry.message for entry in self._journal.read(0, self._journal.last())]

    def dead_letters(self, name: str) -> list[DeadLetter]:
        """Return the messages that the subscription of a name could not use."""
        return list(self._named[name].dead_letters) if name in self._named else []

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:  # noqa: ARG002 - never waits
        """Return the messages in the form of a journal."""
        return cast("Journal", self._journal)

    def open_spare(self) -> Spare:
        """
        Refuse, since there is no folder.

        Raises:
            JournalError: Always.
        """
        raise JournalError(f"{self.where} has no spare journal")

    def subscribe(
        self,
        patterns: Iterable[str],
        *,
        name: str | None = None,
        replay: bool | datetime | Offset = False,
        in_batches: bool = False,  # noqa: ARG002 - reading is the same
        former: Iterable[str] = (),  # noqa: ARG002 - the patterns are compared during the reading
        only_watches: bool = False,  # noqa: ARG002 - there is no connection
    ) -> InMemoryReceiver:
        """Return a receiver of the events whose routing keys match one of the patterns."""
        wanted = tuple(patterns)
        if name is None:
            return InMemoryReceiver(self._journal, self.event_exchange, wanted, replay=replay)
        named = self._named.setdefault(name, NamedPosition(self._journal.last()))
        return NamedInMemoryReceiver(self._journal, self.event_exchange, wanted, named)

    def archive_end(self, name: str, *, after: int | None = None) -> None:
        """Return None: no name loses an event."""

    def read_back(self, patterns: Iterable[str], *, since: datetime | None = None) -> Batches:
        """Yield the messages whose routing keys match one of the patterns, the newest batch first."""
        wanted = tuple(patterns)
        first = 0 if since is None else self._journal.last_before(since.timestamp())
        return self._batches(wanted, first, self._journal.last())

    def _batches(self, patterns: tuple[str, ...], first: int, upper: int) -> Batches:
        size = FEWEST_AT_ONCE
        while upper > first:
            lower = max(first, upper - size)
            yield [
                entry.message
                for entry in self._journal.read(lower, upper - lower)
                if entry.message.exchange == self.event_exchange
                and any(topic_matches(pattern, entry.message.routing_key) for pattern in patterns)
            ]
            upper, size = lower, min(2 * size, MOST_AT_ONCE)

    def __enter__(self) -> Self:
        """Make this the bus of the process."""
        self._stack.enter_context(bus_in_use(self))
        return self

    def __exit__(self, *_: object) -> None:
        """Return to the bus that was in use before."""
        self._stack.close()

    def __repr__(self) -> str:
        """Return a description with the number of messages."""
        return f"<{type(self).__name__}: {self._journal.last()} messages>"
