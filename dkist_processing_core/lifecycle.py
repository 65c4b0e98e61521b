"""
The life of one attempt of a task: a start, phases, progress, exactly one end.

The one place that catches what goes wrong with observing, so that it never reaches the observed. Under a launcher,
start and span of the attempt are the launcher's, and so is the end of a task that was told to end: only it knows by
whom. Not here: what the phases do (task), and what happens around the task's process (local, launcher).
"""

import contextlib
import functools
import logging
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind

from dkist_processing_core import semconv
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, secrets_in
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import (
    Cause,
    Event,
    Reporter,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskStarted,
    describe,
    identity_of,
)
from dkist_processing_core.exception_text import class_name
from dkist_processing_core.identity import Attempt
from dkist_processing_core.last_resort import shown_log
from dkist_processing_core.launcher_line import LauncherLine
from dkist_processing_core.memory import peak_memory_bytes
from dkist_processing_core.notes import ENDED
from dkist_processing_core.origin import handed_variables
from dkist_processing_core.own_errors import log_own_error
from dkist_processing_core.progress import Progress
from dkist_processing_core.publisher import WAIT_LIMIT_SECONDS, Publisher
from dkist_processing_core.signals import held_back
from dkist_processing_core.termination import TaskTermination, TerminationError
from dkist_processing_core.text import redact, show, whole_number
from dkist_processing_core.trace_context import derived_attempt_span_id, derived_trace_id
from dkist_processing_core.tracing import Carrier, Telemetry, run_parent, sampled

# Of the time that observing may cost at the end, this much goes into waiting; the rest it takes to let go.
_SHARE_OF_WAITING = 0.8
# Launcher and engine wait after a launched task, for the same two seconds.
_SHARE_OF_LAUNCHED = 0.3
# And for a journal that is locked as long, of which what it takes is not there for the bus.
_DISK_SECONDS = 0.6
# What is told to a launcher fits the pipe to it, whatever it is doing.
_MAX_TOLD_MESSAGE, _MAX_TOLD_STACK = 2_000, 6_000
PROGRESS_SECONDS = 1.0
"""The shortest time between two `task.progressed` of one attempt."""
logger = logging.getLogger(__name__)


class Lifecycle:
    """
    A context manager around one attempt: publishes the start on entry and the end on exit, inside the attempt's span.

    Exceptions pass through unchanged. The lifecycle opens a publisher of its own, and gives it at most
    `EVENT_FLUSH_TIMEOUT` seconds at the end, telemetry included.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        settings: DKISTProcessingCoreConfiguration | None,
        telemetry: Telemetry,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Name the attempt; without `settings` nothing is published."""
        self.attempt = attempt
        self._settings = None
        self._secrets: list[str] = []
        # Without its secrets nothing could be redacted.
        with self._never_breaking("the attempt has no events"):
            self._secrets, self._settings = secrets_in(settings), settings
        self._telemetry = telemetry
        self._publisher: Publisher | None = None
        self._attributes = semconv.attempt_attributes(attempt) | (attributes or {})
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._progress = Progress()
        self._carrier: Carrier | None = None
        self._span: Span = trace.INVALID_SPAN
        self._stack = contextlib.ExitStack()
        self._shown = contextlib.ExitStack()
        self._termination = TaskTermination()
        self._launcher = None if attempt.report_fd is None else LauncherLine(attempt.report_fd, attempt.started_fd)

    def __enter__(self) -> Self:
        """Open the attempt's span and publish `task.started`; under a launcher, stand in the span that is its."""
        # What is due at the end of this comes with the first phase: an exception now would leave the start alone.
        with held_back(delivers=False):
            self._begin()
        return self

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._began, began_at = time.monotonic(), datetime.now(UTC)
        # A launched process is there for this alone, from its first instruction.
        self._cpu_began = 0.0
        with self._never_breaking("what the attempt uses is not known in full"):
            self._cpu_began = 0.0 if self._launcher is not None else _cpu_seconds()
        if self.attempt.run.is_by_hand:
            with self._never_breaking("what is logged is not shown"):
                self._shown.enter_context(shown_log())
        with self._never_breaking("the attempt is not traced"):
            self._span = self._stack.enter_context(self._open_span())
            self._carrier = Carrier.of(self._span.get_span_context())
            if not self.attempt.run.is_by_hand:
                self._stack.enter_context(_lent_to_subprocesses(self._carrier))
            self._stack.enter_context(self._telemetry.log_records(self._attributes))
        if self._settings is not None:
            with self._never_breaking("events are not published"):
                # A launcher has a connection already, and delivers what is put into the journal.
                is_launched = self._launcher is not None
                self._publisher = Publisher.open(
                    self._settings,
                    tracer=self._telemetry.tracer_if_tracing,
                    delivers=not is_launched,
                    wait_limit=_DISK_SECONDS if is_launched else WAIT_LIMIT_SECONDS,
                )
        if self._launcher is not None:
            # Last: until now there is nothing to let go.
            with self._never_breaking("a termination request cannot end the task by an exception"):
                self._termination.begin()
        else:
            self._publish(TaskStarted, began_at, host=platform.node(), pid=os.getpid())

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish the one end of the attempt, end its span, and let both go out."""
        if os.getpid() != self._pid:
            # A fork of the task that left `run` by an exception: the attempt is its parent's to end.
            return
        try:
            with held_back():
                self._conclude(error)
        except Exception as late:
            if self._launcher is None:
                raise
            # Its end is reported, and there is no caller that a time limit could have been meant for.
            logger.warning("%s has ended; a signal's handler raised %s", self.attempt.task_name, class_name(type(late)))

    def _conclude(self, error: BaseException | None) -> None:
        with self._never_breaking("a termination request may still reach the task"):
            self._termination.conclude()
        with self._never_breaking("the last progress is not published"):
            if held_back := self._progress.take_held_back():
                self._publish(TaskProgressed, sequence=held_back[0], **held_back[1])
        facts: dict[str, Any] = {"duration_seconds": time.monotonic() - self._began, "phases": self._phases}
        with self._never_breaking("what the attempt has used is not known in full"):
            facts["cpu_seconds"] = max(0.0, _cpu_seconds() - self._cpu_began)
            facts["peak_memory_bytes"] = peak_memory_bytes()
        if error is not None:
            facts |= {"cause": Cause.EXCEPTION, "final": self.attempt.is_final}
            with self._never_breaking("why the attempt failed is not known in full"):
                facts |= self._failure_of(error)
        with self._never_breaking("the attempt's span does not tell its end"):
            self._span.set_attribute(
                semconv.PIPELINE_TASK_RUN_RESULT, semconv.SUCCESS if error is None else semconv.FAILURE
            )
            if error is not None:
                self._telemetry.note_error(self._span, error)
        with self._never_breaking("the attempt's end is not reported by the task"):
            self._report_end(TaskFinished if error is None else TaskFailed, facts)
        with self._never_breaking("the attempt's span does not end"):
            self._stack.close()
        self._let_go()
        with self._never_breaking("what is logged is still shown"):
            self._shown.close()

    def _failure_of(self, error: BaseException) -> dict[str, Any]:
        failure = _failure_of(error) | {
            "final": self.attempt.is_final,
            "phase": self._phase,
            "log_url": self.attempt.log_url,
        }
        if self._was_told:
            # Whatever the author has made of it.
            failure |= {"cause": Cause.TERMINATED, "signal": signal.SIGTERM.name}
        return failure

    @property
    def _was_told(self) -> bool:
        """Whether the task was told to end, by what it has heard, or, with a handler of its own, by the launcher's."""
        return self._termination.was_told or (self._launcher is not None and self._launcher.has_passed_on_an_order)

    def _report_end(self, event_class: type[Event], facts: dict[str, Any]) -> None:
        """Publish the end, and tell the launcher; of a task that was told to end, leave the end to the launcher."""
        if event_class is TaskFailed and self._was_told:
            is_heard = self._tell_launcher(event_class, facts, is_published=False)
            if is_heard and self._launcher is not None and self._launcher.lives_on():
                return
            facts |= {"cause": Cause.LOST, "message": "its launcher died"}
        noted = f"{ENDED}{self.attempt.start_id}/{event_class.name}" if self.attempt.start_id else None
        # Only of an end that was published without an error: the launcher reports any other.
        is_published = self._publish(event_class, None, noted, **facts)
        if self._launcher is not None:
            is_published = is_published and self._publisher is not None and self._publisher.is_on_disk
            self._tell_launcher(event_class, facts, is_published=is_published)

    def _tell_launcher(self, event_class: type[Event], facts: dict[str, Any], *, is_published: bool) -> bool:
        """Tell the launcher of the end, and return whether there is one that could hear it: a pipe tells when not."""
        with self._never_breaking("the launcher is not told of the end"):
            told = dict(facts)
            for name, cut in (("message", slice(_MAX_TOLD_MESSAGE)), ("stack", slice(-_MAX_TOLD_STACK, None))):
                if told.get(name):
                    told[name] = redact(told[name], also=self._secrets)[cut]
            if self._launcher is not None:
                return self._launcher.tell({"end": event_class.name, "is_published": is_published, "facts": told})
        return False

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase of the task, in a span of its own."""
        began = time.monotonic()
        self._phase = name
        try:
            span = functools.partial(self._telemetry.span, semconv.PHASE_SPANS[name])
            with beside(span, "the phase is not traced", self._secrets):
                yield
        finally:
            self._phases[name] = time.monotonic() - began
        self._phase = None

    def progress(self, done: float, total: float | None, unit: str | None, note: str | None) -> None:
        """Publish how far the attempt is; what comes too soon after the last is held back, and not lost at the end."""
        with held_back():
            # As values of Python's own, now: the last report leaves with the end, while an exception may be under way.
            facts = {"done": _plain(done), "total": _plain(total), "unit": _plain(unit), "note": _plain(note)}
            with self._never_breaking("a progress is not published"):
                sequence = self._progress.admit(facts, PROGRESS_SECONDS)
                if sequence is not None:
                    self._publish(TaskProgressed, sequence=sequence, **facts)

    def _open_span(self) -> contextlib.AbstractContextManager[Span]:
        attempt = self.attempt
        if self._launcher is not None:
            return trace.use_span(NonRecordingSpan(run_parent(attempt.run, handed_variables() or os.environ)))
        current = trace.get_current_span().get_span_context()
        parent: SpanContext | None
        if attempt.run.is_by_hand and current.is_valid:
            # Called by what the current span is about, as a task that is made inside a task.
            outer = parent = sampled(current)
        else:
            outer = run_parent(attempt.run, os.environ)
            # Nobody will ever end a run by hand, so it has no root span to hang from.
            is_orphan = attempt.run.is_by_hand and outer.trace_id == derived_trace_id(attempt.run)
            parent = None if is_orphan else outer
        own = SpanContext(
            outer.trace_id,
            derived_attempt_span_id(attempt),
            is_remote=False,
            trace_flags=outer.trace_flags,
            trace_state=outer.trace_state,
        )
        return self._telemetry.root_span(attempt.task_name, parent, own, SpanKind.INTERNAL, self._attributes)

    def _publish(
        self, event_class: type[Event], at: datetime | None = None, noted: str | None = None, /, **facts: Any
    ) -> bool:
        """Publish an event, and return whether that went without an error."""
        if self._publisher is None:
            return False
        if self._launcher is not None:
            self._launcher.await_start()
        with self._never_breaking(f"{event_class.name} of {self.attempt.task_name} is not published"):
            carrier = self._carrier
            self._publisher.publish(
                event_class(
                    time=at or datetime.now(UTC),
                    reported_by=Reporter.TASK,
                    traceparent=carrier.traceparent if carrier else None,
                    tracestate=carrier.tracestate if carrier else None,
                    **identity_of(self.attempt),
                    **facts,
                ),
                note=noted,
            )
            return True
        return False

    def _let_go(self) -> None:
        """Give publisher and telemetry the same few seconds, side by side."""
        share = _SHARE_OF_LAUNCHED if self._launcher is not None else _SHARE_OF_WAITING
        timeout = 0.0 if self._settings is None else self._settings.event_flush_timeout * share
        # What the journal has cost is not there for the collector either.
        left = timeout if self._publisher is None else max(0.0, timeout - self._publisher.waited)
        with self._never_breaking("events and telemetry did not end well"), self._telemetry.flushing(left):
            if self._publisher is not None:
                self._publisher.close(timeout)

    def _never_breaking(self, consequence: str) -> contextlib.AbstractContextManager[None]:
        return never_breaking(consequence, secrets=self._secrets)


@contextlib.contextmanager
def beside(
    observing: Callable[[], contextlib.AbstractContextManager[object]], consequence: str, secrets: Iterable[str] = ()
) -> Iterator[None]:
    """Have a context of observing around a block: what goes wrong as it begins or ends changes nothing of the block."""
    stack = contextlib.ExitStack()
    with never_breaking(consequence, secrets=secrets):
        stack.enter_context(observing())
    try:
        yield
    finally:
        error = sys.exc_info()
        with never_breaking(consequence, secrets=secrets):
            stack.__exit__(*error)


@contextlib.contextmanager
def never_breaking(consequence: str, *, secrets: Iterable[str] = ()) -> Iterator[None]:
    """
    Keep what goes wrong with observing from the observed, and log it with its consequence, redacted.

    What a handler of signals raises meanwhile is none of it, and leaves at the end.
    """
    with held_back():
        try:
            yield
        except (DKISTProcessingCoreError, ValueError) as error:
            # The author's handler of logs may raise what it likes.
            with contextlib.suppress(Exception):
                logger.warning("%s: %s", consequence, redact(str(error), also=secrets))
        except Exception as error:  # noqa: BLE001 - the one place that catches it
            with contextlib.suppress(Exception):
                log_own_error(consequence, error, secrets=secrets)


@contextlib.contextmanager
def _lent_to_subprocesses(carrier: Carrier) -> Iterator[None]:
    """Let the programs that a launched task starts hang from its attempt, and not from its run."""
    before = {name: os.environ.pop(name, None) for name in ("TRACEPARENT", "TRACESTATE")}
    os.environ.update(carrier.to_environ())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _failure_of(error: BaseException) -> dict[str, Any]:
    failure: dict[str, Any] = {**describe(error)}
    # By the type, and by the slot of SystemExit: properties of these names are the author's code.
    if issubclass(type(error), TerminationError):
        failure |= {"cause": Cause.TERMINATED, "signal": vars(error)["signal"].name}
    elif issubclass(type(error), SystemExit):
        code = vars(SystemExit)["code"].__get__(error)
        # As the interpreter and the system do: None is 0, what is no number is printed and exits 1, and of a number
        # the lowest eight bits are left.
        number = int.__and__(code, 0xFF) if issubclass(type(code), int) else int(code is not None)
        failure |= {"cause": Cause.EXIT_CODE, "exit_code": number}
    elif issubclass(type(error), KeyboardInterrupt):
        failure |= {"cause": Cause.SIGNAL, "signal": signal.SIGINT.name}
    return failure


def _plain(value: Any) -> Any:
    """Return a number or text as a value of Python's own; what is neither as a text that no event takes for one."""
    if value is None or type(value) in (int, float, str, bool):
        return value
    if issubclass(type(value), str):
        return str.__str__(value)
    number = whole_number(value)
    try:
        return float(value) if number is None else number
    except Exception:  # noqa: BLE001 - an author's value may raise anything
        return show(value)


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
