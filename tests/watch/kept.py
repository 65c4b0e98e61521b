"""
The stores that watchers keep: in a database as they are, or in memory, where a thousand histories take a minute.

In memory, the rows of a run are derived by the functions of the real store, and kept in a dict. The spans in which the
store was complete follow the rules of `collect.listening`, restated here. In a database, both are the real ones.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from dkist_processing_core.collect.folding.rows import rows_of
from dkist_processing_core.collect.folding.signs import Key, Signs, signs_of
from dkist_processing_core.collect.listening import LONGEST_GAP_SECONDS, spans
from dkist_processing_core.collect.listening import Listening as StoredListening
from dkist_processing_core.collect.questions.watched import _attempt as watched_attempt
from dkist_processing_core.collect.questions.watched import _run as watched_run
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import METADATA
from dkist_processing_core.consumer.caught_up import SETTLING_SECONDS, Moment
from dkist_processing_core.events import Event, encode
from dkist_processing_core.inbox import tables as inbox_tables
from dkist_processing_core.runs import Alarm, State, Window, kept_reports, run_view
from dkist_processing_core.watch.facts import Facts
from dkist_processing_core.watch.listening import Listening
from dkist_processing_core.watch.overdue import OverdueReports
from dkist_processing_core.watch.reading import FactsReader

BUS = "the bus"
_CONSUMER = "the collector"
_CLOCKS_AGREE_SECONDS = 1.0
# Between two reports, the rows of the store do not change, and every fifth look reads them.
_READ_EACH = 5


class RecordingPublisher:
    """
    Keeps what a watcher publishes until it is taken.
    """

    def __init__(self) -> None:
        """
        Start without events.
        """
        self._events: list[Event] = []

    def publish(self, *events: Event, note: str | None = None) -> None:
        """
        Keep events.
        """
        assert note is None
        self._events += events

    def take(self) -> list[Event]:
        """
        Return the events, and forget them.
        """
        taken, self._events = self._events, []
        return taken


class Kept(ABC):
    """
    The store of one watcher, and the process that judges by it. Times are those of its clock.
    """

    def __init__(self, idle_after: float) -> None:
        """
        Start with an empty store.
        """
        self.idle_after = idle_after
        self.disturbed_at = float("-inf")
        self.start(0.0)

    def start(self, monotonic: float) -> None:
        """
        Begin with another process.
        """
        self._published = RecordingPublisher()
        # It is used for nothing but `publish`.
        self._reports = OverdueReports(cast("Any", self._published), idle_after=self.idle_after)
        self.began(monotonic)

    def look(self, time: float, monotonic: float, *, has_caught_up: bool) -> list[Event]:
        """
        Fold, note that the store is complete if it is, and return what the watcher publishes.
        """
        self.fold(time)
        if has_caught_up:
            self.extend(Moment(time, monotonic))
        return self.judge(time)

    def judge(self, time: float) -> list[Event]:
        """
        Return what the watcher publishes.
        """
        self._reports.publish(self.facts(), time)
        return self._published.take()

    @abstractmethod
    def began(self, monotonic: float) -> None:
        """
        Note that the process is a new one.
        """

    @abstractmethod
    def add(self, event: Event, time: float) -> None:
        """
        Add a report.
        """

    @abstractmethod
    def fold(self, time: float) -> None:
        """
        Derive the rows of all runs with new reports.
        """

    @abstractmethod
    def extend(self, at: Moment) -> None:
        """
        Note that all reports that were on the bus are in the rows.
        """

    @abstractmethod
    def facts(self) -> Facts:
        """
        Return the facts by which the watcher judges.
        """


class KeptInDatabase(Kept):
    """
    A store on SQLite.
    """

    def __init__(self, idle_after: float) -> None:
        """
        Make the tables.
        """
        self._engine = create_engine("sqlite://", poolclass=StaticPool)
        for metadata in (inbox_tables.metadata, METADATA):
            metadata.create_all(self._engine)
        self.connection = self._engine.connect()
        self._time = 0.0
        self._store = Store(clock=lambda: self._time)
        self._is_new = True
        self._looks = 0
        self._facts = Facts()
        super().__init__(idle_after)

    def began(self, monotonic: float) -> None:
        """
        Begin with other learnt limits, and without a proof that the store is complete.
        """
        self._reader = FactsReader(BUS, idle_after=self.idle_after)
        self._listening = StoredListening(_CONSUMER, BUS, monotonic=lambda: monotonic)

    def add(self, event: Event, time: float) -> None:
        """
        Add a report.
        """
        self._time = time
        self._store.add(self.connection, event)
        self._is_new = True

    def fold(self, time: float) -> None:
        """
        Derive the rows of all runs with new reports.
        """
        self._time = time
        while self._is_new and self._store.fold(self.connection, 100):
            pass

    def extend(self, at: Moment) -> None:
        """
        Extend the span, or begin one.
        """
        self._listening.extend(self.connection, at, self.disturbed_at)

    def facts(self) -> Facts:
        """
        Return the facts, of which only the listening clock is new if no report has arrived.
        """
        if self._is_new or self._looks % _READ_EACH == 0:
            self._facts = self._reader.read(self.connection)
        self._is_new = False
        self._looks += 1
        return replace(self._facts, listening=Listening(spans(self.connection, BUS)))

    def close(self) -> None:
        """
        Close the database.
        """
        self.connection.close()
        self._engine.dispose()


@dataclass(slots=True)
class _Run:
    """
    The reports on a run, each with the time of its receipt, and what was derived from them.
    """

    reports: dict[bytes, tuple[Event, float]] = field(default_factory=dict)
    signs: dict[Key, Signs] = field(default_factory=dict)
    received_at: float | None = None
    facts: Facts = field(default_factory=Facts)


class KeptInMemory(Kept):
    """
    A store in dicts.
    """

    def __init__(self, idle_after: float) -> None:
        """
        Start without runs.
        """
        self._runs: dict[str, _Run] = defaultdict(_Run)
        self._new: set[str] = set()
        self._spans: list[tuple[float, float]] = []
        self._last: Moment | None = None
        super().__init__(idle_after)

    def began(self, monotonic: float) -> None:
        """
        Listen no earlier than a minute later.
        """
        self.disturbed_at = max(self.disturbed_at, monotonic)

    def add(self, event: Event, time: float) -> None:
        """
        Add a report, unless it is there.
        """
        self._runs[event.run_id].reports.setdefault(encode(event), (event, time))
        self._new.add(event.run_id)

    def fold(self, time: float) -> None:
        """
        Derive the rows of the runs with new reports as `Store.fold` does.
        """
        for run_id in self._new:
            self._fold(self._runs[run_id], time)
        self._new.clear()

    @staticmethod
    def _fold(run: _Run, time: float) -> None:
        kept = {id(each) for each in kept_reports(event for event, _ in run.reports.values())}
        everything = [(event, at, id(event) in kept) for event, at in run.reports.values()]
        run.reports = {body: each for body, each in run.reports.items() if id(each[0]) in kept}
        received = list(run.reports.values())
        moment = datetime.fromtimestamp(time, UTC)
        run.signs = signs_of(everything, Window.around(moment), run.signs)
        times = [at for event, at in received if not isinstance(event, Alarm)]
        run.received_at = max([*times, *([] if run.received_at is None else [run.received_at])], default=None)
        reports = [event for event, _ in received]
        view = run_view(reports, received_at=moment)
        rows = rows_of(view, reports, moment, run.signs)
        run.facts = _facts_of(view.run, rows.run | {"sign_received_at": run.received_at}, rows.attempts)

    def extend(self, at: Moment) -> None:
        """
        Extend the span, or begin one.
        """
        last = self._last
        continues = (
            last is not None
            and bool(self._spans)
            and self.disturbed_at <= last.monotonic
            and at.monotonic - last.monotonic <= LONGEST_GAP_SECONDS
            and abs(at.time - last.time - (at.monotonic - last.monotonic)) <= _CLOCKS_AGREE_SECONDS
        )
        if continues:
            self._spans[-1] = (self._spans[-1][0], at.time)
        elif at.monotonic >= self.disturbed_at + SETTLING_SECONDS:
            self._spans.append((at.time, at.time))
        else:
            return
        self._last = at

    def facts(self) -> Facts:
        """
        Return the facts about all runs.
        """
        runs = [each.facts for each in self._runs.values()]
        return Facts(
            [attempt for facts in runs for attempt in facts.attempts],
            [run for facts in runs for run in facts.runs],
            Listening(self._spans),
        )


def _facts_of(identity: Any, run: dict[str, Any], attempts: Iterable[dict[str, Any]]) -> Facts:
    """
    Return the facts in the rows of a run, as the queries of `collect.questions.watched` select them.
    """
    names = {name: getattr(identity, name) for name in ("workflow_name", "workflow_version", "run_id", "recipe_run_id")}
    rows = list(attempts)
    watched = [
        watched_attempt(cast("Any", SimpleNamespace(**row | names)))
        for row in rows
        if row["is_open"] or row["is_alarmed"]
    ]
    runs_one = any(row["is_open"] and row["state"] == State.RUNNING for row in rows)
    found = watched_run(cast("Any", SimpleNamespace(**run | names, runs_one=runs_one)))
    return Facts(watched, [found] if found.is_idle or run["has_alarm"] else [])
