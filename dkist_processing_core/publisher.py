"""
The one way out: events become messages in the journal, and the journal is drained to the bus.

Not here: how the broker is spoken to (bus), and when something is published (lifecycle, local, callbacks).
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
from dkist_processing_core.bus import (
    Bus,
    Journal,
    Memory,
    Message,
    Spare,
    adopt,
    noted_on_host,
    open_bus,
    to_failure_message,
    to_message,
)
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, secrets_in
from dkist_processing_core.errors import BusError, JournalDamagedError, JournalError, JournalLostError
from dkist_processing_core.events import Event, RecipeRunFailureMessage
from dkist_processing_core.flag import Flag
from dkist_processing_core.own_errors import log_own_error_once
from dkist_processing_core.text import redactor

if TYPE_CHECKING:
    from dkist_processing_core.bus._amqp_bus import AmqpBus
    from dkist_processing_core.drain import Drainer

_POLL_SECONDS = 0.05
_KEEPER_SECONDS = 1.0
_MAX_IN_MEMORY = 10_000
WAIT_LIMIT_SECONDS = 2.0
# Of the time that a journal may cost this much goes into the first wait, so that some is left when closing.
_SHARE_OF_FIRST_WAIT = 0.5
# A process may run for days, and then has some left all the same.
_REGAINED_PER_SECOND = 0.001
# A handler may publish faster than the disk takes it: the call that it interrupts has to return all the same.
_FOR_OTHERS_SECONDS = 0.5
_BATCH = 100
_Result = TypeVar("_Result")
# Journals that the last try of this process could not write to: no other publisher of it waits for them.
_unusable: set[Path] = set()
logger = logging.getLogger(__name__)


class _Given(NamedTuple):
    """What a publisher was given to append in one transaction, and what appends it."""

    append: "Callable[[Sequence[Message], bool, str | None], None]"
    messages: Sequence[Message]
    once: bool = False
    note: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it may be appended together with others."""
        return not self.once and self.note is None


class _Turn(threading.local):
    """What a thread does for its publishers, and what a signal's handler has deferred until that is done."""

    def __init__(self) -> None:
        self.is_busy = False
        self.deferred: deque[_Given] = deque()


_turn = _Turn()


def _do(action: Callable[[], object]) -> None:
    _turn.is_busy = True
    try:
        action()
    finally:
        # First of all, whatever is raised here: else everything would be deferred for ever.
        _turn.is_busy = False


def _append_deferred() -> None:
    """Append what a handler has deferred first, with what follows for the same publisher, in one transaction."""
    try:
        batch = [_turn.deferred.popleft()]
    except IndexError:
        # Another handler has seen to it a moment ago.
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
    Publishes events: on disk when `publish` returns, on their way to the bus from then on.

    Safe to use from several threads, and after a fork. It takes the bus it is given; `Publisher.open` makes one from
    settings. Whoever opens a publisher closes it.
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
        Open the journal of `bus`, and start to deliver what it holds where the bus is remote.

        Without `delivers` that is left to another process of this host, as long as the disk takes what is published.
        With `poll_seconds` the journal is looked at so often for what others append, which is then delivered too.

        A journal that another process has locked delays this publisher by at most `wait_limit` seconds in all. What it
        cannot take is kept beside it on disk, and where that cannot be, in memory; one warning says so. In seconds,
        `flush_timeout` is what `close` waits for the bus, unless it is told otherwise.
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
        # Reentrant, for a signal's handler may interrupt who holds it, and publish too: see `_in_turn`.
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
        # Not where a signal's handler has interrupted another publisher: then its first event has it opened.
        self._take_turn(lambda: self._keep(self._first_wait))
        if self.bus.is_remote and self._delivers:
            self._drainer = self._start_drainer()
        # Last: another thread of a fork must not take half of this for the whole.
        self._pid = os.getpid()

    def _start_drainer(self) -> "Drainer":
        # Here, not above: the embedded journal has nothing to drain.
        from dkist_processing_core import drain  # noqa: PLC0415

        drainer = drain.Drainer(
            cast("AmqpBus", self.bus), self._notify, memory=self._memory, poll_seconds=self._poll_seconds
        )
        drainer.start()
        return drainer

    @classmethod
    def open(
        cls,
        settings: DKISTProcessingCoreConfiguration,
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

        From the handler of a signal that has interrupted a publisher's call, they are on disk when that one returns, or
        where handlers publish more than the disk takes, after one of the next calls.
        With a `note` that is noted in the same transaction, as by `remember`.

        Raises nothing for a bus or a disk that fails, but `BusError` where this publisher was closed.

        Where the journal cannot be written to just now they are kept beside it; where there is no room on the disk
        either, in memory. One warning says so, and the journal gets them as soon as it can.
        """
        self._begin()
        blank = redactor(also=self._secrets)
        messages = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        if self._tracer is not None:
            for event, message in zip(events, messages, strict=True):
                # A host application's provider may raise anything; the event matters more than its span.
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
        """Publish the established failure message, with events that say so, unless this host has done so before."""
        self._begin()
        blank = redactor(also=self._secrets)
        told = [to_message(event, self.bus.event_exchange, blank=blank) for event in events]
        failure = to_failure_message(message, self.bus.failure_exchange, blank=blank)
        self._append([*told, failure], once=True)

    def remember(self, note: str) -> None:
        """Note something on this host, where its journal can be used, for who comes later."""
        self._start_in_fork()
        self._append((), note=note)

    def remembers(self, note: str) -> bool:
        """Return True if something was noted on this host, as far as is known."""
        self._start_in_fork()

        def look() -> bool:
            with contextlib.suppress(JournalError):
                if self._journal is not None:
                    return self._journal.remembers(note)
            return False

        return self._read_in_turn(look, otherwise=False)

    def noted_by(self, process: int, *notes: str) -> str | None:
        """
        Return the first of some notes of a process that has ended, from the journal or beside it; None for none.

        What is beside the journal is put into it afterwards, as far as that can be. All of it counts as a wait.
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
        Do what uses the journal while no other thread does, and then what was deferred meanwhile, for some `seconds`.

        A signal's handler interrupts the main thread between any two lines. What it wants to do while that thread is
        at such work is left to the interrupted call: to wait for it would take for ever. Then this returns False.
        """
        # Of all publishers of the thread: one could wait for what the thread holds for another.
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
        """Return what a look at the journal finds; what to assume `otherwise`, in a handler that has interrupted it."""
        found = [otherwise]
        self._take_turn(lambda: found.append(look()))
        return found[-1]

    def _after_turn(self) -> None:
        self._speak()
        if self._drainer is None and self.bus.is_remote and not self.is_on_disk:
            # What is in memory no other process can deliver.
            with self._lock:
                self._drainer = self._drainer or self._start_drainer()
        if self._drainer is not None:
            self._drainer.wake()

    def _start_in_fork(self) -> None:
        if self._pid != os.getpid():
            # Neither SQLite's connections nor threads nor locks survive a fork; the parent's must not even be closed.
            # What a handler has deferred before is its parent's to append.
            _turn.deferred.clear()
            self._inherited += [self._journal, self._spare, self._drainer]
            self._start()

    def _append_now(self, messages: Sequence[Message], once: bool, note: str | None) -> None:  # noqa: FBT001 - by place
        with self._lock:
            self._append_locked(messages, once=once, note=note)

    def _append_locked(self, messages: Sequence[Message], *, once: bool, note: str | None) -> None:
        if self._spare is not None and self._keeper is not None and not self._spare.is_lost:
            # Behind what is there; the keeper's thread puts all of it into the journal, and no publish waits again.
            self._keep_beside(None, messages, once=once, note=note)
        else:
            self._keep(self._first_wait, messages, once=once, note=note)
        if self._is_closed:
            # Deferred by a handler that has closed it since then.
            self._close_files()
        elif self._is_displaced and self._keeper is None:
            keeper = threading.Thread(target=self._keep_trying, name="dkist-core-keeper", daemon=True)
            # Without a thread the next publish tries it, and the end.
            with contextlib.suppress(RuntimeError):
                keeper.start()
                self._keeper = keeper

    def _keep_trying(self) -> None:
        """Put what is displaced into the journal as soon as that can be, though nothing else is published."""
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
        """Log what is to be said, outside of the lock: a handler of the author's may publish."""
        unsaid, self._unsaid = self._unsaid, None
        if unsaid is not None:
            logger.warning("%s", unsaid)

    @property
    def _is_displaced(self) -> bool:
        """Whether something that was published is not in the journal yet."""
        return self._spare is not None or len(self._memory) > 0

    @property
    def _first_wait(self) -> float:
        """For how many seconds to wait for the journal before anything is kept beside it."""
        if self._is_displaced or self.bus.journal_path in _unusable:
            return 0.0
        return self._wait_limit * _SHARE_OF_FIRST_WAIT - self._waited

    def _keep(
        self, patience: float, messages: Sequence[Message] = (), *, once: bool = False, note: str | None = None
    ) -> None:
        """Put what is displaced into the journal, in order, and `messages` behind it; else keep them beside it."""
        patience, waited = max(0.0, min(patience, self._left_to_wait())), self._waited
        is_written_to = self._is_displaced or bool(messages) or note is not None
        try:
            try:
                self._keep_in_journal(patience, messages, once=once, note=note)
            except JournalError as error:
                # Opened anew, it may work again; nothing of this was kept yet.
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
        """Return for how many seconds more this process may wait for its journal."""
        now = time.monotonic()
        self._waited = max(0.0, self._waited - _REGAINED_PER_SECOND * (now - self._counted))
        self._counted = now
        return self._wait_limit - self._waited

    def _open_anew_after(self, error: JournalError, patience: float) -> None:
        """Have the journal opened again where that helps against an error, which is raised otherwise."""
        # Before anything is closed: where its log was removed, its connection alone has what is in it.
        if self._journal is not None and not isinstance(error, JournalLostError) and not self._journal.is_there:
            self._reopen(patience)
        elif isinstance(error, JournalDamagedError):
            if self._journal is not None:
                # Opened again, it is another one: the damaged file is set aside then.
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
        # An append checks this itself, by several calls of the system: twice would slow down each publish.
        if self._journal is None or (self._is_displaced and not self._journal.is_there):
            self._reopen(patience)
        journal = cast("Journal", self._journal)
        waited = journal.waited
        # Of all steps together.
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
            # A look does not wait for what could not be written.
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
        """Have a journal continue the one that was open before, if any."""
        if self._journal is not None and journal.continues(self._journal.file):
            self._journal.close()
        elif self._journal is not None and self._journal.is_nameless:
            self._unsaid = f"the journal {journal.path} was removed while it was in use, and is made anew"
            # What was removed is there as long as a process has it open.
            journal.take_over(self._journal)
            self._journal.close()
            self._own = (1, journal.last())
        elif self._journal is not None:
            # It was moved, or another file system covers it, and other processes may use it: its rows stay there.
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
        """Keep what the journal does not take on disk all the same, in a spare one of this process's own."""
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
        # Only what no disk takes: the drainer sends it from there, past the journal and its books.
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
        Wait until the bus has everything that this publisher was given, for at most `timeout` seconds.

        Returns whether it has; at once where the bus is known not to answer. What it has not got stays in the journal.
        """
        deadline = time.monotonic() + timeout
        if self._drainer is not None and not self._drainer.is_running and self.is_pending:
            # There was no thread to be had for it.
            self._has_kept(_POLL_SECONDS)
            # In turn: on the same thread no handler could append while this is at a transaction.
            drainer = self._drainer
            self._take_turn(lambda: drainer.deliver_here(deadline))
        while self.is_pending:
            remaining = deadline - time.monotonic()
            # What is beside the journal is on disk already, and worth no wait.
            patience = remaining if len(self._memory) and self._drainer is None else min(remaining, _POLL_SECONDS)
            if not self._has_kept(patience) and (self._drainer is None or self._spare is not None):
                return False
            if remaining <= 0 or (self._drainer is not None and self._drainer.failure is not None):
                return False
            # Another process may be the one that delivers, and cannot notify this one.
            self._progress.wait(min(remaining, _POLL_SECONDS))
            self._progress.lower()
        return True

    @property
    def waited(self) -> float:
        """For how many seconds calls have waited for a locked journal."""
        return self._waited

    @property
    def is_on_disk(self) -> bool:
        """Whether all that was published is on a disk, in the journal or beside it."""
        return not len(self._memory)

    def answer_for_others(self) -> None:
        """Have `flush` wait for what other processes have put into the journal by now, too."""
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
        """Whether the bus still lacks something that this publisher was given, as far as can be told."""
        if self._is_closed or self._pid != os.getpid():
            # Closed, or a fork that has published nothing: nobody is to wait.
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
        Flush for at most `timeout` seconds, of which the waits for the disk so far are a part, then let go.

        By default that is the `flush_timeout`; with 0 nothing is waited for. What the bus has not got by then stays in
        the journal, for the next publisher. Again it does nothing.
        """
        if self._is_closed or self._pid != os.getpid():
            # What a fork was given is its parent's to close.
            return
        timeout = self._flush_timeout if timeout is None else timeout
        deadline = time.monotonic() + max(0.0, timeout - self._waited)
        try:
            # What was deferred when an exception ended the call that was to do it.
            self._take_turn(lambda: None)
            if len(self._memory):
                # Nothing else can save it: the disk has a limit of its own, and is not the network of `timeout`.
                self._has_kept(self._wait_limit)
            is_delivered = self.flush(max(0.0, deadline - time.monotonic()))
            drainer = self._drainer
            is_told = drainer is not None and (timeout > 0 or drainer.failure is not None)
            # What is beside the journal does not wait for the bus, and the log has already what it waits for.
            is_told = is_told and not self._is_displaced
            if not is_delivered and drainer is not None and is_told and (waiting := self._waiting()):
                drainer.tell_of(waiting)
        finally:
            self._is_closed = True
            self._end.raise_()
            if self._drainer is not None:
                self._drainer.stop(max(_POLL_SECONDS, deadline - time.monotonic()))
            # Nothing more can be published that would keep this from its end, but by a handler, to another publisher.
            self._take_turn(lambda: None, seconds=max(_FOR_OTHERS_SECONDS, self._wait_limit))
            # Not while the keeper moves it into the journal.
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
        """Return how many messages wait on disk for the bus, of this process or others."""
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
        # This is called by the thread whose turn it is, since no other delivers.
        if drainer.failure is not None or not (self._is_displaced or self._holds_own()):
            drainer.end_here()
