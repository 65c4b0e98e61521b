"""
The inbox of a consumer: the rows of its received messages in SQLite or PostgreSQL, from arrival to outcome.

It needs the extra `consumer`. Not here: the bus that messages are received from (bus), and the threads that receive
and handle them (consumer).
"""

from dkist_processing_core.inbox.arrivals import Arrival, Stored
from dkist_processing_core.inbox.counts import Counts
from dkist_processing_core.inbox.database import Database
from dkist_processing_core.inbox.inbox import Inbox
from dkist_processing_core.inbox.letters import DeadLetters, Group, Letter, Life
from dkist_processing_core.inbox.outcomes import Failed
from dkist_processing_core.inbox.positions import Position
from dkist_processing_core.inbox.rows import Row
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.storing import HandleEvents
from dkist_processing_core.inbox.timers import Timers

__all__ = [
    "Arrival",
    "Counts",
    "Database",
    "DeadLetters",
    "Failed",
    "Group",
    "HandleEvents",
    "Inbox",
    "Letter",
    "Life",
    "Position",
    "Row",
    "Rules",
    "Stored",
    "Timers",
]
