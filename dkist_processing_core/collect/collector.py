"""
The consumer that keeps the store of runs: as a service, or by a command that needs the store now.

It is long because the service and a command that catches up take the same steps, under locks that exclude each other.
Not here: the store (collect.store), and the commands (cli.store).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import Connection, delete, func, select

from dkist_processing_core.bus import open_bus
from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.listening import Listening, spans
from dkist_processing_core.collect.measurements import measurements_of
from dkist_processing_core.collect.prompt import PromptFolding
from dkist_processing_core.collect.questions.answers import Choice, Family
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.reading import snapshot
from dkist_processing_core.collect.reports.decoding import event_in
from dkist_processing_core.collect.reports.stored import digests_on
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import MISSED_STARTS, RUNS
from dkist_processing_core.consumer import Consumer, subscribe
from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.consumer.caught_up import SETTLING_SECONDS, Moment, OnCaughtUp
from dkist_processing_core.consumer.completeness import archive_of
from dkist_processing_core.consumer.member import Member
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.errors import BusError, DKISTProcessingCoreError, InboxMissingError
from dkist_processing_core.events import Event, encode
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.faults import explained
from dkist_processing_core.inbox.locks import named_lock
from dkist_processing_core.inbox.tables import consumers, inbox
from dkist_processing_core.metrics.measurement import Measurement
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import counted

NAME = "dkist-core.collect"
"""The name of the consumer on the bus and in the inbox."""
_BATCH = 500
_RUNS_AT_ONCE = 100
# How often in turn a fold may find that others have written all its runs.
_MOST_IN_VAIN = 3
_FOLD_SECONDS, _PRUNE_SECONDS = 1.0, 3600.0
_POLL_SECONDS = 0.1
_QUIET_SECONDS = 1.0
_LISTED = 5
logger = logging.getLogger("dkist_processing_core.collect")


class Collector:
    """The store of the settings, open in this process."""

    def __init__(
        self, settings: Settings, *, remark: Callable[[str], None] = logger.info, migrates: bool = True
    ) -> None:
        """
        Open the store, which is made if there is none.

        Args:
            settings: The settings of this process.
            remark: Called with a text if the caller has to wait.
            migrates: Whether tables of an earlier release are migrated, which its processes may use now.

        Raises:
            InboxVersionError: The tables are those of a newer release, or of another one and not to be migrated.
        """
        self.settings = settings
        self.bus = open_bus(settings)
        self._remark = remark
        self._database = _opened(settings, migrates=migrates)
        self._store = Store()
        self._arrived, self._folding = Bell(), threading.Lock()
        # How many runs were derived.
        self._folded = 0
        # Held by a service, and by a process that catches up.
        self._service = named_lock(self._database, f"{NAME} service")
        self.complete_until: datetime | None = None
        """Until when the store has all reports, by the last `catch_up`; None if that is not known."""
        self._catching_up = named_lock(self._database, f"{NAME} catching up")

    @property
    def where(self) -> str:
        """The address of the store, without a password."""
        return self._database.where

    def run(self, *, health: str | None = None, listen: str | None = None) -> None:
        """Keep the store up to date until SIGTERM or SIGINT; `health` and `listen` are those of a consumer."""
        with self.service() as member:
            member.consumer.run(since=member.since, health=health, listen=listen)

    @contextmanager
    def service(self) -> Iterator[Member]:
        """Yield the consumer that keeps the store up to date, for this process to run meanwhile."""
        is_complete, noted = self.completed_at() is not None, 0
        prompt = PromptFolding(self._arrived, self.fold, is_behind=not is_complete, secrets=self._database.secrets)
        consumer = self._consumer(prompt.note_added)
        is_service = self._service.acquire()

        # The thread also derives what another process has added, what failed, and ends that are counted after a while.
        @consumer.every(_FOLD_SECONDS)
        def fold() -> None:
            nonlocal is_complete, is_service, noted
            # A command that looks for a service holds its lock for a moment.
            is_service = self._service.acquire()
            self._arrived.ring()
            if (self._folded != noted or not is_complete) and consumer.has_caught_up:
                noted = self._folded
                self._note_complete()
                is_complete = True

        @consumer.every(_PRUNE_SECONDS)
        def prune() -> None:
            self._prune()

        consumer.on_caught_up = self._listening(prompt)
        consumer.fault = lambda: prompt.failure
        consumer.shared_metrics.append(self.measurements)
        # Of several processes that share a store, one sends the metrics of the store to a collector.
        consumer.sends_shared_metrics = lambda: is_service
        try:
            with prompt.running():
                yield Member(consumer, self._since())
        finally:
            self._service.release()

    def _listening(self, prompt: PromptFolding) -> OnCaughtUp:
        """Return what extends the time in which the store is known to be complete."""
        settling = SETTLING_SECONDS if self.bus.is_remote else 0.0
        left_out = self._store.left_out
        listening = Listening(NAME, archive_of(self.bus), settling=settling, left_out=left_out)

        def extend(complete_at: Moment, disturbed_at: float) -> None:
            prompt.note_caught_up()
            with explained(self._database.where), self._database.transaction() as transaction:
                listening.extend(transaction, complete_at, disturbed_at)

        return extend

    def catch_up(self) -> BusError | None:
        """
        Take in all reports on the bus, unless a service does that all the time.

        Returns:
            The error if the broker cannot be reached or refuses the consumer: the store is as it was.
        """
        began = datetime.now(UTC)
        with self._turn() as is_ours:
            if not is_ours:
                self.complete_until = self._proven_until()
                return None
            try:
                if self.bus.is_remote:
                    # A consumer would wait for the broker.
                    subscribe(timeout=0.0, connect="fail", settings=self.settings).close()
                self._take_in()
            except BusError as error:
                self.fold()
                return error
        self.complete_until = began
        return None

    def _proven_until(self) -> datetime | None:
        with self.connection() as connection:
            known = spans(connection, archive_of(self.bus))
        return datetime.fromtimestamp(known[-1][1], UTC) if known else None

    def _take_in(self) -> None:
        _run_until_idle(self._consumer(self._arrived.ring), self._since())
        self.fold()
        self._prune()
        self._note_complete()

    def rebuild(self, *, forget: bool) -> int:
        """
        Build the store again from the reports that the bus still has, and return the number of its runs.

        A process that is killed meanwhile leaves a store that the next one completes.

        Args:
            forget: Whether runs are given up of which only the store has a report.

        Raises:
            DKISTProcessingCoreError: Such runs would be lost, or a service keeps the store.
        """
        with self._turn() as is_ours:
            if not is_ours:
                msg = f"another process collects into {self.where}; end it, and rebuild the store again"
                raise DKISTProcessingCoreError(msg)
            if not forget and (lost := self._only_here()):
                known = ", ".join(lost[:_LISTED]) + (", …" if len(lost) > _LISTED else "")
                msg = (
                    f"{counted(len(lost), 'run')} would lose reports that the bus no longer has: {known}; "
                    "nothing was changed, and --forget gives them up"
                )
                raise DKISTProcessingCoreError(msg)
            with self._database.transaction() as transaction:
                self._store.clear(transaction)
                # Otherwise the keys of handled reports would keep them out.
                transaction.execute(delete(inbox).where(inbox.c.consumer == NAME))
                transaction.execute(delete(consumers).where(consumers.c.name == NAME))
            self._take_in()
        with self.connection() as connection:
            return connection.scalar(select(func.count()).select_from(RUNS)) or 0

    def _only_here(self) -> list[str]:
        """Return the ids of the runs with a report that the bus no longer has, and the runs that were expected."""
        on_the_bus = {digest_of(encode(event)) for event in replayed(self.settings, every_report=True)}
        lost: dict[str, None] = {}
        with self.connection() as connection:
            for number, run_id in connection.execute(select(RUNS.c.number, RUNS.c.run_id).order_by(RUNS.c.number)):
                # Reports that cannot be read are lost if the bus does not have them.
                with suppress(ValueError):
                    if on_the_bus.issuperset(digests_on(connection, number)):
                        continue
                lost[run_id] = None
            for body in connection.scalars(select(MISSED_STARTS.c.body).order_by(MISSED_STARTS.c.expected_at)):
                if digest_of(body) not in on_the_bus and (missed := event_in(body)) is not None:
                    lost[f"the run of {missed.workflow_name} expected at {missed.number}"] = None
        return list(lost)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Read one state of the store."""
        with snapshot(self._database) as connection:
            yield connection

    @contextmanager
    def questions(self) -> Iterator[Questions]:
        """Ask about one state of the store."""
        with self.connection() as connection:
            yield Questions(connection)

    def measurements(self) -> list[Measurement]:
        """Return the metrics of attempts and runs, from one state of the store."""
        with self.connection() as connection:
            return measurements_of(connection)

    def dump(self) -> Iterator[str]:
        """Yield the lines of the store's dump."""
        with self.connection() as connection:
            yield from dump(connection)

    def completed_at(self) -> datetime | None:
        """Return when the store last had all reports of the bus; None if it never had."""
        with self.connection() as connection:
            return self._store.completed_at(connection, archive_of(self.bus))

    def _consumer(self, note_added: Callable[[], None]) -> Consumer:
        consumer = Consumer(NAME, every_report=True, provisional=True, batch_size=_BATCH, settings=self.settings)
        consumer.has_spans = False

        def add(events: Sequence[Event], transaction: Connection) -> None:
            self._store.add(transaction, *events)
            note_added()

        consumer.take_batches(add)
        return consumer

    def _since(self) -> str | None:
        """Return the beginning of the reports to take in: as long as the store was never complete, the first one."""
        return "first" if self.completed_at() is None else None

    def _note_complete(self) -> None:
        with self._database.transaction() as transaction:
            self._store.note_complete(transaction, archive_of(self.bus))

    def fold(
        self, is_ending: Callable[[], bool] = lambda: False, shortest_wait: Callable[[], float] = lambda: 0.0
    ) -> None:
        """
        Derive the rows of all runs with new reports; one thread at a time does that.

        Runs that another process is writing again and again are left to it.

        Args:
            is_ending: Whether to leave the rest to the next fold; it is asked between transactions.
            shortest_wait: How long a new report on a run must have waited; it is asked as often, and returns seconds.

        Raises:
            InboxError: The database cannot be used now, or has refused a statement.
        """
        with self._folding:
            is_all, in_vain = False, 0
            while not is_all and in_vain < _MOST_IN_VAIN and not is_ending():
                written = 0
                with explained(self._database.where):
                    with snapshot(self._database) as connection:
                        derived = self._store.derive(connection, _RUNS_AT_ONCE, shortest_wait=shortest_wait())
                    if derived.runs:
                        with self._database.transaction() as transaction:
                            written = self._store.write(transaction, derived)
                self._folded += written
                is_all = derived.is_all and written == len(derived.runs)
                in_vain = 0 if written or not derived.runs else in_vain + 1

    def _prune(self) -> None:
        count = _RUNS_AT_ONCE
        while count:
            with self._database.transaction() as transaction:
                count = self._store.prune(transaction, _RUNS_AT_ONCE)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Wait for other commands that catch up, and yield True; or yield False if a service keeps the store."""
        asked_at, is_remarked = time.monotonic(), False
        while True:
            if not self._service.acquire():
                yield False
                return
            self._service.release()
            if self._catching_up.acquire():
                break
            if time.monotonic() - asked_at > _QUIET_SECONDS and not is_remarked:
                self._remark("another command takes in the events of the bus; this one waits for it")
                is_remarked = True
            time.sleep(_POLL_SECONDS)
        try:
            yield True
        finally:
            self._catching_up.release()

    def close(self) -> None:
        """Close the store."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()


def _opened(settings: Settings, *, migrates: bool) -> Database:
    if not migrates:
        with suppress(InboxMissingError):
            return Database.open_existing(None, settings)
    return Database.open(None, settings)


def _run_until_idle(consumer: Consumer, since: str | None) -> None:
    """Run a consumer in a separate thread, so that Ctrl-C ends the command, and not only the consumer."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run(since=since, until_idle=True)
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="dkist-core-collect", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        consumer.stop()
        thread.join()
        raise
    if errors:
        raise errors[0]


def latest_runs(settings: Settings, limit: int) -> list[Run]:
    """Return the runs of the store with the latest reports; it is neither made nor caught up."""
    with _as_it_is(settings) as questions:
        return [] if questions is None else [row.run for row in questions.runs(Choice(), limit)]


def latest_families(settings: Settings, limit: int) -> list[Family]:
    """Return the families of failures of the store that occurred last; it is neither made nor caught up."""
    with _as_it_is(settings) as questions:
        return [] if questions is None else questions.families(Choice(), limit)


@contextmanager
def _as_it_is(settings: Settings) -> Iterator[Questions | None]:
    """Yield the questions to the store; None if there is none."""
    try:
        database = Database.open_existing(None, settings)
    except InboxMissingError:
        yield None
        return
    with closing(database), snapshot(database) as connection:
        yield Questions(connection)
