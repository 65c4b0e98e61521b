"""
The only path by which events leave: they become messages in the journal, and the journal is drained to the bus.

Not here: communication with the broker (bus), and when something is published (lifecycle, local, callbacks).
"""

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, cast

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.bus import Bus, open_bus
from dkist_processing_core.delivery.in_memory_queue import Memory
from dkist_processing_core.errors import BusError, JournalDamagedError, JournalError, JournalLostError
from dkist_processing_core.events import Event, RecipeRunFailureMessage
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message, to_failure_message, to_message
from dkist_processing_core.journal.spare import Spare, adopt, noted_on_host
from dkist_processing_core.journal.takeover import take_over
from dkist_processing_core.process.flag import Flag
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redactor
from dkist_processing_core.text.own_errors import log_own_error_once

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.bus import AmqpBus
    from dkist_processing_core.delivery.drainer import Drainer

_POLL_SECONDS = 0.05
_KEEPER_SECONDS = 1.0
_MAX_IN_MEMORY = 10_000
WAIT_LIMIT_SECONDS = 2.0
# The first wait takes at most this share of the time that a journal may cost, so that some is left for `close`.
_SHARE_OF_FIRST_WAIT = 0.5
# A process may run for days: waiting time is regained at this rate, so that it never runs out for good.
_REGAINED_PER_SECOND = 0.001
# A handler may publish faster than the disk takes it; the interrupted call must return all the same.
_FOR_OTHERS_SECONDS = 0.5
_BATCH = 100
_Result = TypeVar("_Result")
# Journals that this process could not write to at its last try: its other publishers do not wait for them.
_unusable: set[Path] = set()
logger = logging.getLogger(__name__)


class _Given(NamedTuple):
    """Messages that a publisher has to append in one transaction, and the method that appends them."""

    append: "Callable[[Sequence[Message], bool, str | None], None]"
    messages: Sequence[Message]
    once: bool = False
    note: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether these messages may be appended in one transaction with others."""
        return not self.once and self.note is None


class _Turn(threading.local):
    """Whether a thread is at work for one of its publishers, and what signal handlers have deferred until then."""

    def __init__(self) -> None:
        self.is_busy = False
        self.deferred: deque[_Given] = deque()


_turn = _Turn()


def _do(action: Callable[[], object]) -> None:
    _turn.is_busy = True
    try:
        action()
    finally:
        # Whatever is raised, this comes first: otherwise everything would be deferred for ever.
        _turn.is_busy = False


def _append_deferred() -> None:
    """Append the first deferred messages, and those that follow for the same publisher, in one transaction."""
    try:
        batch = [_turn.deferred.popleft()]
    except IndexError:
        # Another handler has appended them a moment ago.
        return
    first = batch[0]
    while _turn.deferred and len(batch) < _BATCH and first.is_plain:
        following = _turn.deferred[0]
        if following.append != first.append or not following.is_plain:
            break
        batch.append(_turn.deferred.popleft())
    try:
        first.append([message for given in batch for message in given.messages], first.once, first.note)
    except BaseException:
        _turn.deferred.extendleft(reversed(batch[1:]))
        raise


class Publisher:
    """
    Publishes events: they are on disk when `publish` returns, and are delivered to the bus from then on.

    Safe to use from several threads, and after a fork. The constructor takes a bus; `Publisher.open` creates the bus
    from settings. The code that opens a publisher must close it.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        tracer: trace.Tracer | None = None,
        secrets: Iterable[str] = (),
        flush_timeout: float = 0.0,
        wait_limit: float = WAIT_LIMIT_SECONDS,
        delivers: bool = True,
        poll_seconds: float | None = None,
    ) -> None:
        """
        Open the journal of `bus`, and start to deliver its messages if the bus is remote.

        Without `delivers` another process of this host delivers them, as long as this publisher can write to disk. With
        `poll_seconds` the journal is polled at that interval, and messages that others append are delivered too.

        A journal that another process has locked delays this publisher by at most `wait_limit` seconds in all. Messages
        that it cannot take are kept beside it on disk, and if that fails, in memory; one warning is logged.
        `flush_timeout` is how long, in seconds, `close` waits for the bus by default.
        """
        self.bus = bus
        self._tracer = tracer
        self._secrets = list(secrets)
        self._flush_timeout = flush_timeout
        self._wait_limit = wait_limit
        self._delivers = delivers
        self._poll_seconds = poll_seconds
        self._inherited: list[object] = []
        self._start()

    def _start(self) -> None:
        self._is_closed = False
        # Reentrant, since a signal's handler may interrupt the thread that holds it, and publish too: see `_take_turn`.
        self._lock = threading.RLock()
        self._progress = Flag()
        self._end = Flag()
        self._keeper: threading.Thread | None = None
        self._unsaid: str | None = None
        self._waited, self._counted = 0.0, time.monotonic()
        self._own: tuple[int, int] | None = None
        self._journal: Journal | None = None
        self._spare: Spare | None = None
        self._memory = Memory(_MAX_IN_MEMORY)
        self._told: str | None = None
        self._drainer: Drainer | None = None
        # This does nothing if a signal's handler has interrupted another publisher: then the first event opens it.
        self._take_turn(lambda: self._keep(self._first_wait))
        if self.bus.is_remote and self._delivers:
            self._drainer = self._start_drainer()
        # Set last: another thread of a fork must not mistake a half-started publisher for a complete one.
        self._pid = os.getpid()

    def _start_drainer(self) -> "Drainer":
        # Imported here, since the embedded journal has nothing to drain.
        from dkist_processing_core.delivery.drainer import Drainer  # noqa: PLC0415

        drainer = Drainer(cast("AmqpBus", self.bus), self._notify, memory=self._memory, poll_seconds=self._poll_seconds)
        drainer.start()
        return drainer

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        tracer: trace.Tracer | None = None,
        delivers: bool = True,
        poll_seconds: float | None = None,
        wait_limit: float = WAIT_LIMIT_SECONDS,
    ) -> Self:
        """Return a publisher on the bus that the settings name."""
        return cls(
            open_bus(settings),
            tracer=tracer,
            secrets=secrets_in(settings),
            flush_timeout=settings.event_flush_timeout,
            wait_limit=wait_limit,
            delivers=delivers,
            poll_seconds=poll_seconds,
        )

    def publish(self, *events: Event, note: str | None = None) -> None:
        """
        Publish events, in one transaction: when this returns they are on disk, and will arrive.

        If a signal's handler calls this while it interrupts a publisher's call, the events are on disk when the
        interrupted call returns. Where handlers publish more than the disk takes, that is after one of the next calls.
        A `note` is stored in the same transaction, as by `remember`.

        If the journal cannot be written to at present, the events are kept beside it, and if there is no room on the
        disk either, in memory. One warning is logged, and the events are moved into the journal as soon as possible. A
        failing bus or disk raises nothing.

        Raises:
            BusError: This publisher was closed.
        """
        self._begin()
        blank = redactor(also=self._secrets)
        messages = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        if self._tracer is not None:
            for event, message in zip(events, messages, strict=True):
                # A host application's provider may raise anything; the event is more important than its span.
                with contextlib.suppress(Exception):
                    self._trace(self._tracer, event, message)
        self._append(messages, note=note)

    def _trace(self, tracer: trace.Tracer, event: Event, message: Message) -> None:
        with tracer.start_as_current_span(
            f"publish {message.exchange}",
            kind=trace.SpanKind.PRODUCER,
            attributes=semconv.publish_attributes(
                message.exchange,
                message.routing_key,
                message.properties.message_id,
                message.properties.correlation_id,
                is_remote=self.bus.is_remote,
            )
            | semconv.identity_attributes(event.run, getattr(event, "task_name", None)),
        ):
            pass

    def publish_failure(self, message: RecipeRunFailureMessage, *events: Event) -> None:
        """Publish the established failure message, with events that report it, unless this host has done so before."""
        self._begin()
        blank = redactor(also=self._secrets)
        told = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        failure = to_failure_message(message, self.bus.failure_exchange, blank=blank)
        self._append([*told, failure], once=True)

    def remember(self, note: str) -> None:
        """Store a note on this host, if its journal can be used, for later processes."""
        self._start_in_fork()
        self._append((), note=note)

    def remembers(self, note: str) -> bool:
        """Return True if this note was stored on this host, as far as is known."""
        self._start_in_fork()

        def look() -> bool:
            with contextlib.suppress(JournalError):
                if self._journal is not None:
                    return self._journal.remembers(note)
            return False

        return self._read_in_turn(look, otherwise=False)

    def noted_by(self, process: int, *notes: str) -> str | None:
        """
        Return the first of `notes` that an ended process has stored, in the journal or beside it; None without one.

        Messages beside the journal are moved into it afterwards, as far as possible. All of this counts as waiting.
        """
        self._start_in_fork()

        def look() -> str | None:
            began, left = time.monotonic(), max(_POLL_SECONDS, self._left_to_wait())
            try:
                found = noted_on_host(self.bus.journal_path, notes, process=process, patience=left)
                if self._journal is not None:
                    adopt(self._journal, seconds=left - (time.monotonic() - began))
                return found
            finally:
                self._waited += time.monotonic() - began

        return self._read_in_turn(look, otherwise=None)

    def _begin(self) -> None:
        self._start_in_fork()
        if self._is_closed:
            msg = "the publisher is closed: open another"
            raise BusError(msg)

    def _append(self, messages: Sequence[Message], *, once: bool = False, note: str | None = None) -> None:
        if self._take_turn(lambda: self._append_now(messages, once, note)):
            self._after_turn()
        else:
            _turn.deferred.append(_Given(self._append_now, messages, once, note))

    def _take_turn(self, action: Callable[[], object], *, seconds: float = _FOR_OTHERS_SECONDS) -> bool:
        """
        Call `action` while no other thread uses the journal, then append deferred messages for at most `seconds`.

        Return True if `action` was called. A signal's handler interrupts the main thread between any two lines. If that
        thread is using a journal then, the handler cannot wait for it, since the wait would never end: this returns
        False, and the handler's messages are left to the interrupted call.
        """
        # One flag for all publishers of the thread: one could wait for a lock that the thread holds for another.
        if _turn.is_busy:
            return False
        until = time.monotonic() + seconds

        def locked() -> None:
            with self._lock:
                action()

        _do(locked)
        while _turn.deferred and time.monotonic() < until:
            _do(_append_deferred)
        return True

    def _read_in_turn(self, look: Callable[[], _Result], *, otherwise: _Result) -> _Result:
        """Return the result of `look` at the journal; `otherwise` in a handler that has interrupted its use."""
        found = [otherwise]
        self._take_turn(lambda: found.append(look()))
        return found[-1]

    def _after_turn(self) -> None:
        self._speak()
        if self._drainer is None and self.bus.is_remote and not self.is_on_disk:
            # No other process can deliver messages from this process's memory.
            with self._lock:
                self._drainer = self._drainer or self._start_drainer()
        if self._drainer is not None:
            self._drainer.wake()

    def _start_in_fork(self) -> None:
        if self._pid != os.getpid():
            # SQLite's connections, threads and locks do not survive a fork; the parent's must not even be closed.
            # The parent appends the messages that a handler deferred before the fork.
            _turn.deferred.clear()
            self._inherited += [self._journal, self._spare, self._drainer]
            self._start()

    def _append_now(self, messages: Sequence[Message], once: bool, note: str | None) -> None:  # noqa: FBT001 - by place
        with self._lock:
            self._append_locked(messages, once=once, note=note)

    def _append_locked(self, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        if self._spare is not None and self._keeper is not None and not self._spare.is_lost:
            # Appended to the spare; the keeper's thread moves it all into the journal, so that no publish waits again.
            self._keep_beside(None, messages, once=once, note=note)
        else:
            self._keep(self._first_wait, messages, once=once, note=note)
        if self._is_closed:
            # A handler has deferred these messages and then closed the publisher.
            self._close_files()
        elif self._is_displaced and self._keeper is None:
            keeper = threading.Thread(target=self._keep_trying, name="dkist-core-keeper", daemon=True)
            # Without a thread, the next publish and `close` try it.
            with contextlib.suppress(RuntimeError):
                keeper.start()
                self._keeper = keeper

    def _keep_trying(self) -> None:
        """Move displaced messages into the journal as soon as possible, even if nothing else is published."""
        while not self._end.wait(_KEEPER_SECONDS):
            with self._lock:
                if self._is_displaced and not self._is_closed:
                    self._keep(0.0)
                if not self._is_displaced or self._is_closed:
                    self._keeper = None
                    break
        if self._drainer is not None:
            self._drainer.wake()

    def _speak(self) -> None:
        """Log the pending warning, outside of the lock: the author's log handler may publish."""
        unsaid, self._unsaid = self._unsaid, None
        if unsaid is not None:
            logger.warning("%s", unsaid)

    @property
    def _is_displaced(self) -> bool:
        """Whether some published messages are not in the journal yet."""
        return self._spare is not None or len(self._memory) > 0

    @property
    def _first_wait(self) -> float:
        """For how many seconds to wait for the journal before messages are kept beside it."""
        if self._is_displaced or self.bus.journal_path in _unusable:
            return 0.0
        return self._wait_limit * _SHARE_OF_FIRST_WAIT - self._waited

    def _keep(
        self, patience: float, messages: Sequence[Message] = (), *, once: bool = False, note: str | None = None
    ) -> None:
        """Move displaced messages into the journal, in order, and append `messages`; else keep these beside it."""
        patience, waited = max(0.0, min(patience, self._left_to_wait())), self._waited
        is_written_to = self._is_displaced or bool(messages) or note is not None
        try:
            try:
                self._keep_in_journal(patience, messages, once=once, note=note)
            except JournalError as error:
                # It may work after it is opened again; nothing of these messages was kept yet.
                patience = max(0.0, patience - (self._waited - waited))
                self._open_anew_after(error, patience)
                self._keep_in_journal(patience, messages, once=once, note=note)
        except Exception as error:  # noqa: BLE001 - an error of this package costs no event either
            if not isinstance(error, JournalError):
                log_own_error_once(f"the journal {self.bus.journal_path} is not used", error)
            _unusable.add(self.bus.journal_path)
            if messages or len(self._memory):
                self._keep_beside(error, messages, once=once, note=note)
        else:
            self._told = None
            if is_written_to:
                _unusable.discard(self.bus.journal_path)

    def _left_to_wait(self) -> float:
        """Return for how many more seconds this process may wait for its journal."""
        now = time.monotonic()
        self._waited = max(0.0, self._waited - _REGAINED_PER_SECOND * (now - self._counted))
        self._counted = now
        return self._wait_limit - self._waited

    def _open_anew_after(self, error: JournalError, patience: float) -> None:
        """Prepare to open the journal again if that helps against the error; otherwise raise the error."""
        # Before anything is closed: if the journal's log was removed, only its open connection has the contents.
        if self._journal is not None and not isinstance(error, JournalLostError) and not self._journal.is_there:
            self._reopen(patience)
        elif isinstance(error, JournalDamagedError):
            if self._journal is not None:
                # Opening it again creates a new one, and the damaged file is set aside then.
                self._journal.close()
                self._journal = None
        elif not isinstance(error, JournalLostError):
            raise error

    def _keep_in_journal(self, patience: float, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        had_waited = self._waited
        if self._journal is not None and self._journal.was_lost:
            self._journal = None
        if self._spare is not None and self._spare.is_lost:
            self._spare = None
        # An append checks this itself, by several system calls: a second check would slow down each publish.
        if self._journal is None or (self._is_displaced and not self._journal.is_there):
            self._reopen(patience)
        journal = cast("Journal", self._journal)
        waited = journal.waited
        # One limit for all steps together.
        journal.patience = max(0.0, patience - (self._waited - had_waited))
        journal.limit_waits(journal.patience)
        try:
            if self._spare is not None:
                before = journal.last()
                self._spare.give_to(journal, until=time.monotonic() + max(journal.patience, _POLL_SECONDS))
                self._spare = None
                self._own = (self._own[0] if self._own else before + 1, journal.last())
            for was_once, entries in self._memory.groups():
                self._append_to(journal, [entry.message for entry in entries], once=was_once)
                self._memory.remove_confirmed(entry.seq for entry in entries)
            if messages or note is not None:
                self._append_to(journal, messages, once=once, note=note)
        finally:
            self._waited += journal.waited - waited
            # A read waits only briefly for a journal that could not be written to.
            journal.patience = _POLL_SECONDS
            journal.limit_waits()

    def _reopen(self, patience: float) -> None:
        began = time.monotonic()
        try:
            self._open_again(patience)
        except JournalError:
            self._waited += min(patience, time.monotonic() - began)
            raise

    def _open_again(self, patience: float) -> None:
        journal = self.bus.open_journal(patience=patience)
        journal.limit_waits(max(0.0, patience - journal.waited))
        self._go_on_in(journal)
        self._waited += journal.waited
        self._journal = journal

    def _go_on_in(self, journal: Journal) -> None:
        """Make a journal continue the one that was open before, if there was one."""
        if self._journal is not None and journal.continues(self._journal.file):
            self._journal.close()
        elif self._journal is not None and self._journal.is_nameless:
            self._unsaid = f"the journal {journal.path} was removed while it was in use, and is made anew"
            # A removed file exists as long as a process has it open.
            take_over(journal, self._journal)
            self._journal.close()
            self._own = (1, journal.last())
        elif self._journal is not None:
            # The old file was moved, or another file system covers it, and other processes may use it: its rows stay
            # there.
            self._unsaid = f"the journal {journal.path} is another file now; the one before keeps what it holds"
            self._journal.close()
            self._own = None

    def _append_to(self, journal: Journal, messages: Sequence[Message], *, once: bool, note: str | None = None) -> None:
        seqs = journal.append(messages, once=once, note=note)
        if seqs:
            self._own = (self._own[0] if self._own else seqs[0], seqs[-1])

    def _keep_beside(
        self, reason: Exception | None, messages: Sequence[Message], *, once: bool, note: str | None
    ) -> None:
        """Keep messages that the journal does not take in this process's spare journal on disk, else in memory."""
        where = "memory"
        try:
            if self._spare is not None and self._spare.is_lost:
                self._spare = None
            if self._spare is None and self._told != where:
                self._spare = self.bus.open_spare()
            if self._spare is not None:
                for was_once, entries in self._memory.groups():
                    self._spare.journal.append([entry.message for entry in entries], once=was_once)
                    self._memory.remove_confirmed(entry.seq for entry in entries)
                self._spare.journal.append(messages, once=once, note=note)
                where, messages = str(self._spare.journal.path), ()
        except Exception as error:  # noqa: BLE001 - as above
            if not isinstance(error, JournalError):
                log_own_error_once("no journal beside the shared one is used", error)
            where = "memory"
        # Only messages that no disk takes: the drainer sends them from memory, and the journal does not count them.
        self._memory.add(messages, once=once)
        if self._told is None and reason is not None:
            is_known = isinstance(reason, JournalError)
            found = reason if is_known else f"the journal {self.bus.journal_path} is not used: {type(reason).__name__}"
            self._unsaid = f"{found}. Events are kept in {where} until it can be used."
        self._told = where

    def _has_kept(self, patience: float) -> bool:
        if self._is_displaced:
            self._take_turn(lambda: self._keep(patience))
            self._speak()
            if self._drainer is not None:
                self._drainer.wake()
        return not self._is_displaced

    def flush(self, timeout: float) -> bool:
        """
        Wait until the bus has everything that was published here, for at most `timeout` seconds.

        Return True if it has. Return at once if the bus is known not to answer. Undelivered messages stay in the
        journal.
        """
        deadline = time.monotonic() + timeout
        if self._drainer is not None and not self._drainer.is_running and self.is_pending:
            # No thread could be started for it.
            self._has_kept(_POLL_SECONDS)
            # As a turn: a handler on the same thread could not append while this is in a transaction.
            drainer = self._drainer
            self._take_turn(lambda: drainer.deliver_here(deadline))
        while self.is_pending:
            remaining = deadline - time.monotonic()
            # Messages beside the journal are on disk already, so a wait is not worth while.
            patience = remaining if len(self._memory) and self._drainer is None else min(remaining, _POLL_SECONDS)
            if not self._has_kept(patience) and (self._drainer is None or self._spare is not None):
                return False
            if remaining <= 0 or (self._drainer is not None and self._drainer.failure is not None):
                return False
            # Another process may deliver the messages, and it cannot notify this one.
            self._progress.wait(min(remaining, _POLL_SECONDS))
            self._progress.lower()
        return True

    @property
    def waited(self) -> float:
        """How many seconds calls have waited for a locked journal."""
        return self._waited

    @property
    def is_on_disk(self) -> bool:
        """Whether all published messages are on disk, in the journal or beside it."""
        return not len(self._memory)

    def answer_for_others(self) -> None:
        """Make `flush` also wait for the messages that other processes have put into the journal by now."""
        self._start_in_fork()

        def include() -> None:
            with contextlib.suppress(JournalError):
                if self._journal is not None:
                    self._own = (self._own[0] if self._own else 1, self._journal.last())

        self._take_turn(include)
        if self._drainer is not None:
            self._drainer.wake()

    @property
    def is_pending(self) -> bool:
        """Whether the bus still lacks messages of this publisher, as far as is known."""
        if self._is_closed or self._pid != os.getpid():
            # Closed, or a fork that has published nothing: there is nothing to wait for.
            return False
        if self._is_displaced:
            return True
        if self._own is None or self._drainer is None or self._journal is None:
            return False
        return self._read_in_turn(self._holds_own, otherwise=True)

    def _holds_own(self) -> bool:
        try:
            return self._journal is not None and self._own is not None and self._journal.holds(*self._own)
        except JournalError:
            return True

    def close(self, timeout: float | None = None) -> None:
        """
        Flush for at most `timeout` seconds, including earlier waits for the disk, then close the publisher.

        The default is `flush_timeout`; with 0 there is no wait. Undelivered messages stay in the journal for the next
        publisher. A second call does nothing.
        """
        if self._is_closed or self._pid != os.getpid():
            # A fork does not close its parent's publisher.
            return
        timeout = self._flush_timeout if timeout is None else timeout
        deadline = time.monotonic() + max(0.0, timeout - self._waited)
        try:
            # Append deferred messages that are left because an exception ended the interrupted call.
            self._take_turn(lambda: None)
            if len(self._memory):
                # Otherwise these messages would be lost. The disk has its own time limit: `timeout` is for the network.
                self._has_kept(self._wait_limit)
            is_delivered = self.flush(max(0.0, deadline - time.monotonic()))
            drainer = self._drainer
            is_told = drainer is not None and (timeout > 0 or drainer.failure is not None)
            # Messages beside the journal wait for the journal and not for the bus, and that is logged already.
            is_told = is_told and not self._is_displaced
            if not is_delivered and drainer is not None and is_told and (waiting := self._waiting()):
                drainer.tell_of(waiting)
        finally:
            self._is_closed = True
            self._end.raise_()
            if self._drainer is not None:
                self._drainer.stop(max(_POLL_SECONDS, deadline - time.monotonic()))
            # From now on only a signal's handler can publish, to another publisher, so this cannot go on for ever.
            self._take_turn(lambda: None, seconds=max(_FOR_OTHERS_SECONDS, self._wait_limit))
            # In turn, so not while the keeper moves these messages into the journal.
            lost = self._read_in_turn(self._memory.clear, otherwise=0)
            if lost:
                logger.warning("events are lost, since %s could not be written to: %s", self.bus.journal_path, lost)
            self._take_turn(self._close_files)

    def _close_files(self) -> None:
        for journal in (self._spare, self._journal):
            if journal is not None:
                journal.close()
        self._spare = self._journal = None

    def _waiting(self) -> int:
        """Return how many messages of this process and others are on disk and wait for the bus."""
        return self._read_in_turn(self._count_waiting, otherwise=0)

    def _count_waiting(self) -> int:
        journals = [self._journal, self._spare.journal if self._spare is not None else None]
        waiting = 0
        for journal in journals:
            with contextlib.suppress(JournalError):
                waiting += 0 if journal is None else journal.books().pending
        return waiting

    def __enter__(self) -> Self:
        """Return the publisher itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the publisher."""
        self.close()

    def _notify(self) -> None:
        self._progress.raise_()
        drainer = self._drainer
        if drainer is None or drainer.is_running:
            return
        # Without a drainer thread, this is called by the thread whose turn it is.
        if drainer.failure is not None or not (self._is_displaced or self._holds_own()):
            drainer.end_here()
