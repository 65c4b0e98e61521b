"""
A consumer as one of several in a process.

It imports no database. Not here: running them (group).
"""

from typing import NamedTuple

from dkist_processing_core.consumer._consumer import Consumer


class Member(NamedTuple):
    """A consumer, and what it takes in first."""

    consumer: Consumer
    since: str | None = None
    """The start of past events to take in, as for `Consumer.run`."""
