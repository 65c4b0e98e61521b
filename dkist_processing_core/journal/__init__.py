"""
The journal: SQLite files of messages on this host, their locks, their format, and what happens when one is damaged.

Not here: who appends and delivers (delivery), and the bus for which a journal waits (bus).
"""

from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._read_only import versions
from dkist_processing_core.journal._rows import Books, Entry, SetAside

__all__ = ["BUSY_SECONDS", "Books", "Entry", "Journal", "SetAside", "versions"]
