"""
The embedded bus: one journal file on this host, which is also its own archive.

Not here: the file's format (_journal), and reading from it (_journal_receivers).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus._ages import keep
from dkist_processing_core.bus._journal import BUSY_SECONDS, Journal
from dkist_processing_core.bus._mending import open_mended
from dkist_processing_core.bus._place import open_folder, place
from dkist_processing_core.bus._spare import Spare, adopt
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

if TYPE_CHECKING:
    from dkist_processing_core.bus._journal_receivers import JournalReader, JournalReceiver

FILE = "embedded.db"
KEPT_SECONDS = 7 * 24 * 3600
# On a task's way: what is left over the next process takes.
_ADOPTION_SECONDS = 0.2


class JournalBus:
    """Publish by appending, consume by reading on."""

    is_remote = False

    def __init__(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """Name the file; nothing is opened yet."""
        self._place = place(settings)
        self.journal_path = self._place.folder / FILE
        self.where = f"the embedded journal {self.journal_path}"
        self.event_exchange = settings.isb_event_exchange
        self.failure_exchange = settings.isb_exchange

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the file, without what is older than a week: as long as the broker's archive keeps events."""
        open_folder(self._place)
        journal = open_mended(self.journal_path, synced=synced, destination="embedded", patience=patience)
        adopt(journal, seconds=_ADOPTION_SECONDS)
        keep(journal, KEPT_SECONDS)
        return journal

    def open_spare(self) -> Spare:
        """Make a spare journal beside the file."""
        return Spare.open(open_folder(self._place) / FILE)

    def subscribe(
        self, patterns: Iterable[str], *, name: str | None = None, replay: bool | datetime = False
    ) -> "JournalReader | JournalReceiver":
        """
        Read events from the file; one process at a time reads under a name, others of that name stand by.

        Without a name the file is only looked at: nothing on the disk changes, and it need not be there yet.
        """
        # Here, not above: a task only publishes.
        from dkist_processing_core.bus._journal_receivers import JournalReader, JournalReceiver  # noqa: PLC0415

        wanted = tuple(patterns)
        if name is None:
            return JournalReader(self.journal_path, self.event_exchange, wanted, replay=replay)
        return JournalReceiver(self.open_journal, self.event_exchange, wanted, name=name)
