"""
The embedded bus: one journal file on this host, which also serves as the archive.

Not here: the file format (journal).
"""

from dkist_processing_core.bus.embedded.bus import FILE, KEPT_SECONDS, JournalBus

__all__ = ["FILE", "KEPT_SECONDS", "JournalBus"]
