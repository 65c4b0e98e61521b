"""
The stored reports on runs: those that the rows of their runs are derived from, packed together, and the new ones.

The large parts of a report are stored apart, and are read only if they are requested: no row depends on them. Not here:
the compression (packing), which runs have new reports (waiting), and deriving the rows (folding).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, select

from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.parts import among
from dkist_processing_core.collect.reports.decoding import DecodedReports, event_in
from dkist_processing_core.collect.reports.packing import (
    StoredReport,
    packed,
    packed_reports,
    unpacked,
    unpacked_reports,
)
from dkist_processing_core.collect.tables import DETAILS, PACKS, REPORTS
from dkist_processing_core.events import Event, TaskEnd, encode
from dkist_processing_core.inbox import bulk
from dkist_processing_core.runs import kept_reports

_LARGE = ("stack", "last_stack", "last_log", "profile")
_LARGE_ON_THE_WIRE = ("stack", "lastStack", "lastLog", "profile")
# How many bytes a decoded report takes for a byte of its body, and for one of a pack. Measured: 2.7 and 28.
_DECODED_OF_ENCODED, _DECODED_OF_PACKED = 3, 30
# The values themselves stay encoded.
_values_in = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Key = tuple[str, str]
"""The id of an occurrence, and its reporter: the store keeps one report for each."""


class Received(NamedTuple):
    """A stored report, and when it was received, in seconds since 1970."""

    event: Event
    received_at: float


class Held(NamedTuple):
    """The reports on a run as they are stored."""

    pack: bytes | None
    """The packed ones; None if none is."""
    new: list[StoredReport]
    numbers: list[int]
    """Those of the new ones, in their order."""

    @property
    def packed(self) -> list[StoredReport]:
        """
        The packed ones.

        Raises:
            ReportsUnreadableError: A newer release has packed them, or they are damaged.
        """
        return [] if self.pack is None else unpacked_reports(self.pack)


def key_of(event: Event) -> Key:
    """Return what distinguishes a report from all others that are kept of its run."""
    return event.id, str(event.reported_by)


def held(connection: Connection, runs: Sequence[int]) -> dict[int, Held]:
    """Return the stored reports on each of these runs, without their large parts if they are packed."""
    found = {run: Held(None, [], []) for run in runs}
    for is_packed in among(connection, PACKS.c.run, runs):
        for row in connection.execute(select(PACKS).where(is_packed)):
            found[row.run] = Held(row.body, [], [])
    for is_new in among(connection, REPORTS.c.run, runs):
        new = select(REPORTS.c.number, REPORTS.c.run, REPORTS.c.body, REPORTS.c.received_at).where(is_new)
        for number, run, body, received_at in connection.execute(new.order_by(REPORTS.c.number)).all():
            found[run].new.append(StoredReport(body, received_at))
            found[run].numbers.append(number)
    return found


def details_of(connection: Connection, run: int, keys: Iterable[Key] | None = None) -> dict[Key, Event]:
    """Return the reports on a run that have large parts, whole; only those with these keys if any are given."""
    query = select(DETAILS.c.body).where(DETAILS.c.run == run)
    if keys is not None:
        query = query.where(DETAILS.c.key.in_(list(map(_digest, keys))))
    events = (event_in(unpacked(body)) for body in connection.scalars(query))
    return {key_of(event): event for event in events if event is not None}


def reports_on(connection: Connection, run: int, *, is_whole: bool = True) -> list[Received]:
    """
    Return all stored reports on a run, in the order of their reception.

    Args:
        connection: The connection to the store.
        run: The number of the run.
        is_whole: Whether stacks, logs and profiles are read as well.

    Raises:
        ReportsUnreadableError: A newer release has packed them, or they are damaged.
    """
    return received_in(held(connection, [run])[run], details_of(connection, run) if is_whole else {})


def received_in(stored: Held, details: Mapping[Key, Event] = MappingProxyType({})) -> list[Received]:
    """
    Return stored reports in the order of their reception, those of which the details are known with these.

    Raises:
        ReportsUnreadableError: A newer release has packed them, or they are damaged.
    """
    found = []
    for body, received_at in (*stored.packed, *stored.new):
        if (event := event_in(body)) is not None:
            whole = details.get(key_of(event), event) if details else event
            found.append(Received(whole, received_at))
    return sorted(found, key=lambda each: each.received_at)


def digests_on(connection: Connection, run: int) -> list[bytes]:
    """
    Return the digests of all stored reports on a run, also of those events that this release cannot read.

    Raises:
        ReportsUnreadableError: A newer release has packed them, or they are damaged.
    """
    stored, details = held(connection, [run])[run], details_of(connection, run)
    found = []
    for body, _ in (*stored.packed, *stored.new):
        event = event_in(body)
        whole = None if event is None else details.get(key_of(event))
        found.append(digest_of(body if whole is None else encode(whole)))
    return found


def _has_large_parts(event: Event) -> bool:
    return isinstance(event, TaskEnd) and any(getattr(event, name, None) is not None for name in _LARGE)


def _without_large_parts(body: bytes) -> bytes:
    """Return the body of a report without its large parts. A new event would be checked, which takes long."""
    attributes = _values_in(body)
    data = _values_in(attributes["data"])
    for name in _LARGE_ON_THE_WIRE:
        data.pop(name, None)
    return msgspec.json.encode(attributes | {"data": data})


class Packing(NamedTuple):
    """What a fold of a run stores of the reports on it."""

    body: bytes
    """The kept reports without their large parts."""
    numbers: list[int]
    """Those of the reports that were new."""
    details: dict[bytes, bytes]
    """The whole bodies of the reports with large parts that are to be stored, by their keys."""
    replaced: list[bytes]
    """The keys of the reports whose large parts are no longer those that are stored."""


class Merging:
    """The reports on one run, new ones and packed ones: which of them are kept, and what is stored of them."""

    def __init__(self, connection: Connection, run: int, stored: Held, decoded: DecodedReports) -> None:
        """
        Decode the reports; the large parts are read only of those about which there is a new report.

        Raises:
            ReportsUnreadableError: A newer release has packed the known reports, or they are damaged.
        """
        known = [(each, decoded.event_in(each.body)) for each in stored.packed]
        new = [(each, decoded.event_in(each.body)) for each in stored.new]
        keys = {key_of(event) for _, event in known if event is not None}
        of_new = (key_of(event) for _, event in new if event is not None)
        self._disputed = [key for key in of_new if key in keys] if keys else []
        if self._disputed:
            details = details_of(connection, run, self._disputed)
            known = [_whole(each, event, details) for each, event in known]
        self._numbers = stored.numbers
        everything = [*known, *new]
        self._unread = [each for each, event in everything if event is None]
        read = [(event, each) for each, event in everything if event is not None]
        are_kept = _are_kept([event for event, _ in read])
        self._read = [(event, each, is_kept) for (event, each), is_kept in zip(read, are_kept, strict=True)]
        self.kept = [Received(event, each.received_at) for event, each, is_kept in self._read if is_kept]
        """The reports that have an effect on the state of the run."""
        self.received_at = max(each.received_at for each, _ in everything)
        """When the last report was received."""

    @property
    def everything(self) -> Iterator[tuple[Event, float, bool]]:
        """All reports, with the time of their reception, and whether each is kept."""
        return ((event, each.received_at, is_kept) for event, each, is_kept in self._read)

    def packing(self) -> Packing:
        """Return the reports to store, packed."""
        lines, details = list(self._unread), {}
        for event, each, is_kept in self._read:
            if not is_kept:
                continue
            if _has_large_parts(event):
                lines.append(StoredReport(_without_large_parts(each.body), each.received_at))
                details[_digest(key_of(event))] = packed(each.body)
            else:
                lines.append(each)
        return Packing(packed_reports(lines), self._numbers, details, list(map(_digest, self._disputed)))


def _are_kept(events: Sequence[Event]) -> list[bool]:
    """Return for each event whether it has an effect on the state of its run; an object that repeats has it once."""
    kept = {id(event) for event in kept_reports(events)}
    found = []
    for event in events:
        found.append(id(event) in kept)
        kept.discard(id(event))
    return found


def _whole(
    stored: StoredReport, event: Event | None, details: Mapping[Key, Event]
) -> tuple[StoredReport, Event | None]:
    """Return a packed report with its large parts, if these are known."""
    whole = None if event is None else details.get(key_of(event))
    return (stored, event) if whole is None else (StoredReport(encode(whole), stored.received_at), whole)


def decoded_sizes(connection: Connection, runs: Sequence[int]) -> dict[int, int]:
    """
    Return about how many bytes the reports on each of these runs take in memory, without the packed large parts.

    They are estimated from the stored bytes, since nothing is decoded.
    """
    found = dict.fromkeys(runs, 0)
    packs = select(PACKS.c.run, func.length(PACKS.c.body))
    new = select(REPORTS.c.run, func.sum(func.length(REPORTS.c.body))).group_by(REPORTS.c.run)
    for query, column, factor in ((packs, PACKS.c.run, _DECODED_OF_PACKED), (new, REPORTS.c.run, _DECODED_OF_ENCODED)):
        for condition in among(connection, column, runs):
            for run, size in connection.execute(query.where(condition)):
                found[run] += factor * size
    return found


def store(connection: Connection, packings: Mapping[int, Packing]) -> None:
    """Store the reports on runs, by the numbers of the runs."""
    for is_packed in among(connection, PACKS.c.run, list(packings)):
        connection.execute(delete(PACKS).where(is_packed))
    numbers = [number for each in packings.values() for number in each.numbers]
    for is_new in among(connection, REPORTS.c.number, numbers):
        connection.execute(delete(REPORTS).where(is_new))
    for run, each in packings.items():
        for is_replaced in among(connection, DETAILS.c.key, each.replaced):
            connection.execute(delete(DETAILS).where(DETAILS.c.run == run, is_replaced))
    bulk.insert(connection, PACKS, ("run", "body"), [(run, each.body) for run, each in packings.items()])
    details = [(run, key, body) for run, each in packings.items() for key, body in each.details.items()]
    bulk.insert(connection, DETAILS, ("run", "key", "body"), details)


def _digest(key: Key) -> bytes:
    return digest_of(" ".join(key).encode())
