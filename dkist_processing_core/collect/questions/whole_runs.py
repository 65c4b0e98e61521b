"""
Single runs of the store, whole: the view of a run, and the reports on it.

A page that is looked at reads the same run again and again, and a run of thousands of attempts takes a second to read:
the runs that were read last are kept until the store has other reports on them. Their reports are kept as bytes, which
the garbage collector of Python does not visit; those on a run that goes on are kept decoded as well, so that a page
about it decodes only the new ones. Not here: lists of runs (questions).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy import Connection, Engine, func, select

from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.questions.of_rows import known_moment
from dkist_processing_core.collect.reports.decoding import event_in
from dkist_processing_core.collect.reports.packing import StoredReport
from dkist_processing_core.collect.reports.stored import details_of, held, key_of
from dkist_processing_core.collect.tables import REPORTS, RUNS
from dkist_processing_core.events import Event, TaskDispatched, TaskEvent, TaskSampled, TaskStarted, decode, encode
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import RunView, State, Window, kept_reports, run_view

_MOST_KEPT_BYTES = 32 * 1024 * 1024
"""
The most bytes of reports that are kept; with the views they take about three times as much memory.

The run that was read last is kept in any case, since each change of a page about it would read it as a whole again.
"""
_MOST_DECODED_BYTES = 4 * _MOST_KEPT_BYTES
"""A larger run is kept without its decoded reports, which are then decoded again after each change."""
_FEW = 500
_Mark = tuple[int, int, int]
_Attempt = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class WholeRun:
    """A run of the store with all that is known about it."""

    view: RunView
    received_at: datetime
    """When the last report was received, by which the times of all are judged."""
    moments: tuple[datetime, ...]
    """The plausible times of the reports, ascending, each once."""
    changes: tuple[datetime, ...]
    """Those of the reports that are not samples, which change no state."""
    hosts: Mapping[_Attempt, str]
    """The host of each attempt that reported one, by task and number."""
    queues: Mapping[_Attempt, str]
    """The queue of each attempt that reported one."""
    environments: Mapping[_Attempt, str]
    """Whether the environment of an attempt was built or reused, of those that reported it."""
    traceparent: str | None
    """The trace context of a report; None if none has one."""
    bodies: tuple[bytes, ...]
    """The reports in the order in which they arrived, encoded."""
    _places: Mapping[_Attempt, tuple[int, ...]]

    @property
    def reports(self) -> list[Event]:
        """All reports, decoded anew."""
        return list(map(decode, self.bodies))

    def reports_on(self, task_name: str, attempt: int | None) -> list[Event]:
        """Return the reports on an attempt."""
        return [decode(self.bodies[place]) for place in self._places.get((task_name, attempt), ())]


class Report(NamedTuple):
    """A report as pages need it."""

    event: Event
    body: bytes
    """The event, encoded as a whole."""


Reports = Mapping[StoredReport, Report]
"""The reports on a run by what the store has of each, in the order of their reception."""


class _KeptRun(NamedTuple):
    mark: _Mark
    run: WholeRun
    reports: Reports
    """Those on a run that goes on; none of another one."""
    size: int


@dataclass(slots=True)
class _Kept:
    """The runs of one store that were read last, the latest last."""

    runs: OrderedDict[int, _KeptRun] = field(default_factory=OrderedDict)
    room: int = _MOST_KEPT_BYTES
    lock: threading.Lock = field(default_factory=threading.Lock)
    reading: WeakValueDictionary[int, threading.Lock] = field(default_factory=WeakValueDictionary)
    """Held while a run is read: others that want it wait, and then have it."""

    def known(self, number: int, mark: _Mark) -> WholeRun | None:
        """Return a run as of a mark; None if it is not kept."""
        with self.lock:
            known = self.runs.get(number)
            if known is None or known.mark != mark:
                return None
            self.runs.move_to_end(number)
            return known.run

    def reports_on(self, number: int) -> Reports:
        """Return the decoded reports on a run that are kept."""
        with self.lock:
            known = self.runs.get(number)
            return {} if known is None else known.reports


_OF_STORES: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()


def whole_run(
    connection: Connection, run: Run, read: Callable[[Connection, int, Reports], Reports] | None = None
) -> WholeRun | None:
    """
    Return a run; None if the store has no report on it that this release can read.

    Args:
        connection: The connection to the store.
        run: The run, of which the recipe run does not matter.
        read: Reads the reports on a run with a number, of which some are known; None means `read_reports`.
    """
    identity = run_identity(run.workflow_name, run.workflow_version, run.run_id)
    row = connection.execute(select(RUNS.c.number, RUNS.c.revision).where(RUNS.c.identity == identity)).first()
    if row is None:
        return None
    number, mark = row.number, _mark(connection, row.number, row.revision)
    kept = _OF_STORES.setdefault(connection.engine, _Kept())
    with kept.lock:
        reading = kept.reading.setdefault(number, threading.Lock())
    with reading:
        if (known := kept.known(number, mark)) is not None:
            return known
        reports = (read or read_reports)(connection, number, kept.reports_on(number))
        if not reports:
            return None
        found = _whole([report.event for report in reports.values()], tuple(each.body for each in reports.values()))
        with kept.lock:
            _keep(kept, number, mark, found, reports)
    return found


def read_reports(connection: Connection, number: int, known: Reports) -> Reports:
    """Return the reports on a run with a number; those that are known are not decoded again."""
    stored = held(connection, [number])[number]
    in_order = sorted((*stored.packed, *stored.new), key=lambda each: each.received_at)
    events = {each: event_in(each.body) for each in in_order if each not in known}
    keys = [key_of(event) for event in events.values() if event is not None]
    details = details_of(connection, number, keys if len(keys) <= _FEW else None)
    found: dict[StoredReport, Report] = {}
    for each in in_order:
        if each in known:
            found[each] = known[each]
        elif (event := events[each]) is not None:
            whole = details.get(key_of(event), event)
            received = whole.with_acknowledgement(lambda: None, known_moment(each.received_at))
            found[each] = Report(received, encode(whole))
    return found


def _mark(connection: Connection, number: int, revision: int | None) -> _Mark:
    """Return what differs after a report on a run has arrived, and after its rows were derived."""
    new = select(func.count(), func.max(REPORTS.c.number)).where(REPORTS.c.run == number)
    count, last = connection.execute(new).one()
    return revision or 0, count, last or 0


def _whole(reports: list[Event], bodies: tuple[bytes, ...]) -> WholeRun:
    received_at = max(report.received_at for report in reports if report.received_at is not None)
    window = Window.around(received_at)
    places: dict[_Attempt, tuple[int, ...]] = {}
    queues: dict[_Attempt, str] = {}
    environments: dict[_Attempt, str] = {}
    for place, report in enumerate(reports):
        if isinstance(report, TaskEvent):
            key = (report.task_name, report.attempt)
            places[key] = (*places.get(key, ()), place)
            if isinstance(report, TaskStarted) and report.environment is not None:
                environments[key] = report.environment
            if isinstance(report, TaskDispatched) and report.queue is not None:
                queues[key] = report.queue
    return WholeRun(
        view=run_view(kept_reports(reports), received_at=received_at),
        received_at=received_at,
        moments=_times(reports, window),
        changes=_times((report for report in reports if not isinstance(report, TaskSampled)), window),
        hosts=hosts_of(reports),
        queues=queues,
        environments=environments,
        traceparent=next((report.traceparent for report in reports if report.traceparent is not None), None),
        bodies=bodies,
        _places=places,
    )


def _times(reports: Iterable[Event], window: Window) -> tuple[datetime, ...]:
    return tuple(sorted({report.time for report in reports if report.time in window}))


def hosts_of(reports: Iterable[Event]) -> dict[_Attempt, str]:
    """Return the host of each attempt that reported one, by task and number."""
    started = (report for report in reports if isinstance(report, TaskStarted))
    return {(report.task_name, report.attempt): report.host for report in started if report.host is not None}


def _keep(kept: _Kept, number: int, mark: _Mark, run: WholeRun, reports: Reports) -> None:
    if (before := kept.runs.pop(number, None)) is not None:
        kept.room += before.size
    goes_on = run.view.state is State.RUNNING
    # Decoded, a report takes several times as much memory.
    size = sum(map(len, run.bodies)) * (3 if goes_on else 1)
    while kept.room < size and kept.runs:
        _, released = kept.runs.popitem(last=False)
        kept.room += released.size
    is_kept_decoded = goes_on and size <= _MOST_DECODED_BYTES
    kept.runs[number] = _KeptRun(mark, run, reports if is_kept_decoded else {}, size)
    kept.room -= size
