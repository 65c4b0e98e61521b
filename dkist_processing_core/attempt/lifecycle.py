"""
The life of one attempt of a task: a start, phases, progress, exactly one end.

An error of this package is caught and logged; it never reaches the task. Not here: called and launched tasks
(_reporting), the content of the phases (task), and the work around the task's process (local, launcher).
"""

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.attempt._facts import cpu_seconds, failure_of, plain
from dkist_processing_core.attempt._reporting import Reporting, reporting_of
from dkist_processing_core.attempt.progress import Progress
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Cause, Reporter, TaskEnd, TaskFailed, TaskFinished, TaskProgressed, TaskStarted
from dkist_processing_core.identity import Attempt
from dkist_processing_core.journal.notes import ENDED
from dkist_processing_core.process.default_logging import shown_log
from dkist_processing_core.process.peak_memory import peak_memory_bytes
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.reporter import EventReporter, beside, never_breaking
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text.exception_text import class_name
from dkist_processing_core.tracing import Carrier, Telemetry

if TYPE_CHECKING:
    from opentelemetry.trace import Span

PROGRESS_SECONDS = 1.0
"""The shortest time between two `task.progressed` of one attempt."""
logger = logging.getLogger(__name__)


class Lifecycle:
    """
    A context manager around one attempt: reports the start on entry and the end on exit, inside the attempt's span.

    Exceptions pass through unchanged. The lifecycle opens its own publisher. At the end it waits at most
    `EVENT_FLUSH_TIMEOUT` seconds for publisher and telemetry together.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        settings: Settings | None,
        telemetry: Telemetry,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """
        Take the attempt; nothing is opened yet.

        Args:
            attempt: The attempt.
            settings: The settings; None for an attempt without events.
            telemetry: The telemetry with which the attempt is traced.
            attributes: Attributes of its span and its log records, in addition to those of its identity.
        """
        self.attempt = attempt
        self._settings = None
        self._secrets: list[str] = []
        # Without the list of secrets nothing could be redacted, so then there are no settings either.
        with self._never_breaking("the attempt has no events"):
            self._secrets, self._settings = secrets_in(settings), settings
        self._telemetry = telemetry
        self._attributes = semconv.attempt_attributes(attempt) | (attributes or {})
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._progress = Progress()
        self._span: Span = trace.INVALID_SPAN
        self._stack = contextlib.ExitStack()
        self._shown = contextlib.ExitStack()
        self._reporter = EventReporter(Reporter.TASK, attempt, secrets=self._secrets)
        self._reporting: Reporting = reporting_of(attempt, self._secrets)

    def __enter__(self) -> Self:
        """Open the attempt's span and report its start."""
        # Handlers due at the end of this context run in the first phase: an exception now would leave a start
        # without an end.
        with signals_deferred(delivers=False):
            began_at = datetime.now(UTC)
            self._begin()
            with self._never_breaking("the attempt's start is not reported"):
                start = self._reporting.begin()
                if start is not None:
                    self._reporter.report(TaskStarted, began_at, **start)
        return self

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._cpu_began = 0.0
        with self._never_breaking("the resources that the attempt uses are not fully known"):
            self._cpu_began = self._reporting.cpu_began()
        if self.attempt.run.is_by_hand:
            with self._never_breaking("log records are not shown"):
                self._shown.enter_context(shown_log())
        with self._never_breaking("the attempt is not traced"):
            self._span = self._stack.enter_context(self._reporting.open_span(self._telemetry, self._attributes))
            carrier = self._reporter.carrier = Carrier.of(self._span.get_span_context())
            if not self.attempt.run.is_by_hand:
                self._stack.enter_context(_lent_to_subprocesses(carrier))
            self._stack.enter_context(self._telemetry.log_records(self._attributes))
        if self._settings is not None:
            with self._never_breaking("events are not published"):
                self._reporter.publisher = Publisher.open(
                    self._settings,
                    tracer=self._telemetry.tracer_if_tracing,
                    delivers=self._reporting.delivers,
                    wait_limit=self._reporting.allowance.journal,
                )

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Report the one end of the attempt, end its span, deliver the events and export the telemetry."""
        if os.getpid() != self._pid:
            # A fork of the task that left `run` by an exception: only its parent may end the attempt.
            return
        try:
            with signals_deferred():
                event_class, facts = self._conclude(error)
                with self._never_breaking("the attempt's end is not reported by the task"):
                    if self._reporting.must_report_end(event_class, facts):
                        is_published = self._reporter.report_end(event_class, self._note_of(event_class), **facts)
                        self._reporting.note_end(self._reporter, event_class, facts, is_published=is_published)
                self._release()
        except Exception as late:
            if self._reporting.has_caller:
                raise
            # The end is reported, and there is no caller that could have set a time limit.
            logger.warning("%s has ended; a signal's handler raised %s", self.attempt.task_name, class_name(type(late)))

    def _conclude(self, error: BaseException | None) -> tuple[type[TaskEnd], dict[str, Any]]:
        """Return the end to report, after the last progress; from now on, nothing can terminate the attempt."""
        with self._never_breaking("a termination request may still reach the task"):
            self._reporting.conclude()
        with self._never_breaking("the last progress is not published"):
            if last := self._progress.take_held_back():
                self._report_progress(*last)
        facts: dict[str, Any] = {"duration_seconds": time.monotonic() - self._began, "phases": self._phases}
        with self._never_breaking("the resources that the attempt has used are not fully known"):
            facts["cpu_seconds"] = max(0.0, cpu_seconds() - self._cpu_began)
            facts["peak_memory_bytes"] = peak_memory_bytes()
        if error is not None:
            facts |= {"cause": Cause.EXCEPTION, "final": self.attempt.is_final}
            with self._never_breaking("the cause of the failure is not fully known"):
                facts |= self._failure_of(error)
        with self._never_breaking("the attempt's span does not show its end"):
            self._span.set_attribute(
                semconv.PIPELINE_TASK_RUN_RESULT, semconv.SUCCESS if error is None else semconv.FAILURE
            )
            if error is not None:
                self._telemetry.note_error(self._span, error)
        return (TaskFinished if error is None else TaskFailed), facts

    def _note_of(self, event_class: type[TaskEnd]) -> str | None:
        """Return the note in which a launcher finds the end of a task that has not reported it on the pipe."""
        return f"{ENDED}{self.attempt.start_id}/{event_class.name}" if self.attempt.start_id else None

    def _release(self) -> None:
        """End the attempt's span, deliver the events and export the telemetry."""
        with self._never_breaking("the attempt's span does not end"):
            self._stack.close()
        timeout = 0.0 if self._settings is None else self._settings.event_flush_timeout
        self._reporter.close(self._telemetry, timeout * self._reporting.allowance.bus)
        with self._never_breaking("log records are still shown"):
            self._shown.close()

    def _failure_of(self, error: BaseException) -> dict[str, Any]:
        failure = failure_of(error) | {
            "final": self.attempt.is_final,
            "phase": self._phase,
            "log_url": self.attempt.log_url,
        }
        if self._reporting.is_terminated:
            # Even if the author's code has turned the exception into another one.
            failure |= {"cause": Cause.TERMINATED, "signal": signal.SIGTERM.name}
        return failure

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the duration of one phase of the task, and trace it as a span."""
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
        """Report the attempt's progress; a report too soon after the last one is deferred, at the latest to the end."""
        with signals_deferred():
            # Converted to built-in types now: the last report is published at the end, when an exception may be active.
            facts = {"done": plain(done), "total": plain(total), "unit": plain(unit), "note": plain(note)}
            with self._never_breaking("a progress is not published"):
                sequence = self._progress.admit(facts, PROGRESS_SECONDS)
                if sequence is not None:
                    self._report_progress(sequence, facts)

    def _report_progress(self, sequence: int, facts: dict[str, Any]) -> None:
        self._reporting.await_start()
        self._reporter.report(TaskProgressed, sequence=sequence, **facts)

    def _never_breaking(self, consequence: str) -> contextlib.AbstractContextManager[None]:
        return never_breaking(consequence, secrets=self._secrets)


@contextlib.contextmanager
def _lent_to_subprocesses(carrier: Carrier) -> Iterator[None]:
    """Make the attempt's span the parent of the programs that a launched task starts, instead of the run's span."""
    before = {name: os.environ.pop(name, None) for name in ("TRACEPARENT", "TRACESTATE")}
    os.environ.update(carrier.to_environ())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
