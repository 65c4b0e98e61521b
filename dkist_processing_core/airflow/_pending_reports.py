"""
The reports of a run that wait on this host for the broker: they will reach the bus, although it is unknown when.

Not here: the reports on the bus (_bus_reader).
"""

import contextlib
import time

from dkist_processing_core.airflow._waiting_time import at_most
from dkist_processing_core.budget import LOOK, RUN_CALLBACK
from dkist_processing_core.bus import open_bus
from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import Event, decode
from dkist_processing_core.identity import Run
from dkist_processing_core.settings.reading import read_leniently

# A broker that was away for days leaves many messages.
_READING_SECONDS = 2.0
_PAGE = 200


def pending_reports(run: Run) -> list[Event]:
    """
    Return the reports of a run that this host has not delivered yet.

    A launcher waits only briefly for the broker of a busy host. Then its reports stay here until another process
    delivers them.

    Raises:
        JournalError: The journal of this host cannot be read.
    """
    settings, _ = read_leniently()
    bus = open_bus(settings)
    reports: list[Event] = []
    if not bus.is_remote:
        # Its journal is the bus.
        return reports
    with at_most(_READING_SECONDS, LOOK) as seconds, bus.open_journal(patience=RUN_CALLBACK.journal) as journal:
        until, after = time.monotonic() + seconds, 0
        # The first page takes only milliseconds, so it is read although the time is used up.
        while (entries := journal.pending(after, _PAGE)) and (not after or time.monotonic() < until):
            after = entries[-1].seq
            for message in (entry.message for entry in entries):
                # A long run id is cut there.
                about = message.properties.correlation_id
                if about and run.run_id.startswith(about) and message.exchange == bus.event_exchange:
                    with contextlib.suppress(DecodeError):
                        reports.append(decode(message.body, message.properties.content_type))
    return reports
