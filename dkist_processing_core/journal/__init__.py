"""
The journal: SQLite files of messages on this host, their locks, their format, and what happens when one is damaged.

Not here: who appends and delivers (delivery), and the bus for which a journal waits (bus).
"""

from dkist_processing_core.journal._journal import BUSY_SECONDS, POSITION, Books, Entry, Journal, SetAside, versions

__all__ = ["BUSY_SECONDS", "POSITION", "Books", "Entry", "Journal", "SetAside", "versions"]
