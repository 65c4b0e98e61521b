"""
The job that a side reads on its standard input, and its report; the same for the library and its peers.

Not here: anything beyond the standard library, since it is imported in both environments.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Prepared:
    """A message as every side has it in memory before its clock starts."""

    routing_key: str
    body: bytes
    message_id: str
    type: str
    content_type: str
    correlation_id: str
    timestamp: int


@dataclass(frozen=True)
class Job:
    """One side's part in one round."""

    host: str
    port: int
    vhost: str
    username: str
    password: str = field(repr=False)
    exchange: str
    queue: str
    queue_arguments: dict[str, Any]
    messages: str
    """The file that holds the messages, a JSON array per line."""
    state_dir: str
    """The state folder of the library."""
    count: int
    warm_up: int = 50
    """How many messages are published before the clock starts, so that no measured time includes connecting."""
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Self:
        """Return the job in the first line of standard input."""
        return cls(**json.loads(sys.stdin.readline()))

    def to_line(self) -> str:
        """Return the line that `read` reads."""
        return json.dumps(asdict(self)) + "\n"

    def prepared(self) -> tuple[list[Prepared], list[Prepared]]:
        """Return the messages to warm up with, and those to be timed."""
        found = list(self._stored())
        if len(found) < self.warm_up + self.count:
            msg = f"{self.messages} holds {len(found)} messages, {self.warm_up + self.count} are wanted"
            raise ValueError(msg)
        return found[: self.warm_up], found[self.warm_up :]

    def _stored(self) -> Iterator[Prepared]:
        with Path(self.messages).open(encoding="utf-8") as file:
            for line, _ in zip(file, range(self.warm_up + self.count), strict=False):
                key, body, *properties = json.loads(line)
                yield Prepared(key, body.encode(), *properties)


class Watch:
    """A stopwatch."""

    seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the body of the `with` block."""
        began = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began


def wait_for_start() -> None:
    """Report that everything is prepared, and wait for the line to begin."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(**figures: object) -> None:
    """Print the figures as the last line of standard output."""
    print(json.dumps(figures), flush=True)
