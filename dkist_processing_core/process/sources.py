"""
The sources of the times of events and of the random parts of run ids. A test gives others.

Not here: the ids of events, which are derived from their facts (events).
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_RANDOM_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Sources:
    now: Callable[[], datetime]
    random_hex: Callable[[], str]


_current = _Sources(lambda: datetime.now(UTC), lambda: secrets.token_hex(_RANDOM_BYTES))


def now() -> datetime:
    """Return the current time, in UTC."""
    return _current.now()


def random_hex() -> str:
    """Return 8 random hexadecimal digits."""
    return _current.random_hex()


@contextlib.contextmanager
def sources_in_use(
    *, now: Callable[[], datetime] | None = None, random_hex: Callable[[], str] | None = None
) -> Iterator[None]:
    """Use other sources in this process; a source that is not given stays as it is."""
    global _current  # noqa: PLW0603 - a task takes neither a clock nor an id
    before = _current
    _current = _Sources(now or before.now, random_hex or before.random_hex)
    try:
        yield
    finally:
        _current = before
