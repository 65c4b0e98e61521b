"""
The decoded reports that a store keeps in memory between their arrival and their folds.
"""

from contextlib import closing

from dkist_processing_core.collect.reports.decoding import DecodedReports
from dkist_processing_core.collect.reports.packing import unpacked_reports
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import PACKS
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import encode
from dkist_processing_core.inbox import Database
from tests.facts import NOON, started


def test_a_report_is_decoded_once_while_there_is_room() -> None:
    """
    The room is that of the last bodies; those before are decoded again.
    """
    events = [started(f"T{number:02}") for number in range(30)]
    bodies = [encode(event) for event in events]
    decoded = DecodedReports(most_bytes=len(bodies[0]) * 5)
    for body, event in zip(bodies, events, strict=True):
        decoded.note(body, event)

    kept = [decoded.event_in(body) is event for body, event in reversed(list(zip(bodies, events, strict=True)))]
    assert all(kept[:5])
    assert not any(kept[10:])
    assert decoded.event_in(bodies[0]) == events[0]


def test_what_this_release_cannot_read_is_none_each_time() -> None:
    """
    It is no event, and takes no room.
    """
    decoded = DecodedReports()
    assert [decoded.event_in(b"{}"), decoded.event_in(b"{}")] == [None, None]


def test_a_repetition_after_a_fold_is_not_packed_again(state_dir: object) -> None:
    """
    Its event is the same object as that of the packed report.
    """
    store = Store(clock=NOON.timestamp)
    opened = Database.open(f"sqlite:///{state_dir}/inbox.db", DKISTProcessingCoreConfiguration())
    with closing(opened) as database:
        for _ in range(3):
            with database.transaction() as connection:
                store.add(connection, started("A"))
                store.fold(connection, 10)
        with database.reading() as connection:
            packs = connection.execute(PACKS.select()).all()
    assert [len(unpacked_reports(pack.body)) for pack in packs] == [1]
