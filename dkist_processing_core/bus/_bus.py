"""
What a bus is, whichever transport carries it: the interface that publishers and consumers see.

Not here: either transport (_journal_bus, _amqp_bus).
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

from dkist_processing_core.bus._journal import BUSY_SECONDS, Journal
from dkist_processing_core.bus._message import Message
from dkist_processing_core.bus._spare import Spare

MAX_UNREAD = 100_000
"""How many events a bus keeps for a name that does not read them."""


class Delivery(Protocol):
    """A message in a consumer's hand, until it is settled one way or the other."""

    @property
    def message(self) -> Message:
        """The message."""

    @property
    def is_new(self) -> bool:
        """Whether it reached the bus after its receiver began, as all does but what a replay reads of the past."""

    def acknowledge(self, wait: float = 0.0) -> None:
        """
        Be done with it. Once is enough; again does nothing, nor does it after the receiver was closed.

        Up to `wait` seconds are spent on seeing to it that the bus knows.
        """

    def bury(self, reason: str) -> None:
        """Put it among the dead letters with a reason, and be done with it."""


class Receiver(Protocol):
    """
    An open subscription: what is delivered and not acknowledged when it closes is delivered again.

    It closes by itself when nobody holds it any more, whatever deliveries of it are still held.
    """

    @property
    def missed(self) -> int:
        """How many events are known to be lost to the name of a subscription: the bus dropped them unread."""

    def has_caught_up(self, asked_since: float) -> bool:
        """
        Say whether all that the bus held for a replay when it began was received, or waits for `receive`.

        Silence of the bus counts only from `asked_since`, by `time.monotonic`: before, nobody wanted anything of it.
        """

    def receive(self, timeout: float) -> Delivery | None:
        """Return the next message, or None where there is none within `timeout` seconds."""

    def close(self) -> None:
        """End the subscription."""

    def __enter__(self) -> Self:
        """Return the receiver itself."""

    def __exit__(self, *_: object) -> None:
        """End the subscription."""


class Bus(Protocol):
    """Where messages go, and where they come from."""

    @property
    def is_remote(self) -> bool:
        """Whether the journal is an outbox, which has yet to be drained to the bus."""

    @property
    def where(self) -> str:
        """The bus in an operator's words."""

    @property
    def journal_path(self) -> Path:
        """The journal that every message of this bus is appended to before anything else happens to it."""

    @property
    def event_exchange(self) -> str:
        """The exchange that events go to."""

    @property
    def failure_exchange(self) -> str:
        """The exchange that the established failure message goes to."""

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the journal of this bus."""

    def open_spare(self) -> Spare:
        """Make a spare journal beside it, in the same folder, which has to be one of ours."""

    def subscribe(
        self, patterns: Iterable[str], *, name: str | None = None, replay: bool | datetime = False
    ) -> Receiver:
        """
        Receive the events whose routing keys match one of the patterns (AMQP's topic patterns: `*`, `#`).

        A named subscription remembers its place: what arrives while nobody listens is kept for it. Without a name
        it begins now, or with `replay` at the oldest event that the bus still has; where `replay` is a time, at the
        oldest that came after it, or a little before.
        """


def topic_matches(pattern: str, key: str) -> bool:
    """
    Say whether a routing key matches a topic pattern: `*` stands for one word, `#` for any number.

    >>> topic_matches("task.*.W.#", "task.failed.W.A"), topic_matches("task.*", "task.failed.W")
    (True, False)
    """
    reachable = {0}
    words = key.split(".")
    for part in pattern.split("."):
        if part == "#":
            reachable = set(range(min(reachable), len(words) + 1)) if reachable else set()
        else:
            reachable = {at + 1 for at in reachable if at < len(words) and part in ("*", words[at])}
    return len(words) in reachable
