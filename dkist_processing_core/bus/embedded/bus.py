"""
The embedded bus: one journal file on this host, which also serves as the archive.

Not here: the file format (journal), and reading from the file (unnamed_receiver, named_receiver).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dkist_processing_core.bus.interface import Batches, Offset
from dkist_processing_core.journal import BUSY_SECONDS, Journal
from dkist_processing_core.journal.opening import open_recovered
from dkist_processing_core.journal.place import open_folder, place
from dkist_processing_core.journal.retention import keep
from dkist_processing_core.journal.spare import Spare, take_over_spares
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.bus.embedded.named_receiver import NamedReceiver
    from dkist_processing_core.bus.embedded.unnamed_receiver import UnnamedReceiver

FILE = "embedded.db"
KEPT_SECONDS = 7 * 24 * 3600
# A task waits for this. The next process takes over the remaining messages.
_TAKE_OVER_SECONDS = 0.2


class JournalBus:
    """Publish by appending to the file; consume by reading from it."""

    is_remote = False

    def __init__(self, settings: Settings) -> None:
        """Store the path of the file. No file is opened."""
        self._place = place(settings)
        self.journal_path = self._place.folder / FILE
        self.where = f"the embedded journal {self.journal_path}"
        self.event_exchange = settings.isb_event_exchange
        self.failure_exchange = settings.isb_exchange

    def open_journal(self, *, synced: bool = True, patience: float = BUSY_SECONDS) -> Journal:
        """Open the file and remove events older than a week, the period for which the broker's archive keeps events."""
        open_folder(self._place)
        journal = open_recovered(self.journal_path, synced=synced, destination="embedded", patience=patience)
        take_over_spares(journal, seconds=_TAKE_OVER_SECONDS)
        keep(journal, KEPT_SECONDS)
        return journal

    def open_spare(self) -> Spare:
        """Create a spare journal in the folder of the file."""
        return Spare.open(open_folder(self._place) / FILE)

    def subscribe(
        self,
        patterns: Iterable[str],
        *,
        name: str | None = None,
        replay: bool | datetime | Offset = False,
        in_batches: bool = False,  # noqa: ARG002 - reading the file is the same
        former: Iterable[str] = (),  # noqa: ARG002 - the patterns are compared during the reading
        only_watches: bool = False,  # noqa: ARG002 - there is no connection
    ) -> "UnnamedReceiver | NamedReceiver":
        """
        Return a receiver of events from the file. Only one process at a time reads under a name; others wait.

        Without a name the file is only read: nothing on the disk changes, and the file need not exist yet.
        """
        # Imported here, because a task publishes only and does not need them.
        from dkist_processing_core.bus.embedded.named_receiver import NamedReceiver  # noqa: PLC0415
        from dkist_processing_core.bus.embedded.unnamed_receiver import UnnamedReceiver  # noqa: PLC0415

        wanted = tuple(patterns)
        if name is None:
            start = replay if isinstance(replay, datetime) else bool(replay)
            return UnnamedReceiver(self.journal_path, self.event_exchange, wanted, replay=start)
        return NamedReceiver(self.open_journal, self.event_exchange, wanted, name=name)

    def archive_end(self, name: str, *, after: int | None = None) -> None:
        """Return None: the file counts what it removes before a name has read it."""

    def read_back(self, patterns: Iterable[str], *, since: datetime | None = None) -> Batches:
        """Yield the events of the file in batches, the newest batch first. The file is only read."""
        from dkist_processing_core.bus.embedded.backward_reader import BackwardReader  # noqa: PLC0415 - as above

        return BackwardReader(self.journal_path, self.event_exchange, tuple(patterns), since=since).batches()
