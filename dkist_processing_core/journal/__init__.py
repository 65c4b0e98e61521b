"""
The journal: SQLite files of messages on this host, their locks, their format, and their recovery after damage.

Not here: appending and delivering messages (delivery), and the bus that receives them (bus).
"""

from dkist_processing_core.journal._file import BUSY_SECONDS
from dkist_processing_core.journal._journal import Journal
from dkist_processing_core.journal._read_only import versions
from dkist_processing_core.journal._rows import Books, Entry, SetAside

__all__ = ["BUSY_SECONDS", "Books", "Entry", "Journal", "SetAside", "versions"]
