"""
The life of one attempt of a task: a start, phases, progress, exactly one end.

An error of this package is caught and logged; it never reaches the task. Not here: called and launched tasks
(_mode), the content of the phases (task), and the work around the task's process (local, launcher).
"""

import contextlib
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import trace

from dkist_processing_core import semconv
from dkist_processing_core.attempt._facts import failure_of, measurements, plain
from dkist_processing_core.attempt._mode import Mode, mode_of
from dkist_processing_core.attempt.progress import Progress, problem_of
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter, context_errors_logged, errors_logged
from dkist_processing_core.events import Cause, Reporter, TaskEnd, TaskFailed, TaskFinished, TaskProgressed, TaskStarted
from dkist_processing_core.identity import Attempt
from dkist_processing_core.journal.notes import ENDED
from dkist_processing_core.logs.by_hand import shown_log
from dkist_processing_core.process import sources
from dkist_processing_core.process.signals import signals_deferred
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
    A context manager around one attempt: it reports the start and the end, except for what the launcher reports.

    Exceptions pass through unchanged. The lifecycle opens its own publisher. At the end it waits at most
    `EVENT_FLUSH_TIMEOUT` seconds for the network (bus and telemetry together). A locked journal may add up to two
    seconds.
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
        Store the attempt. No file or connection is opened.

        Args:
            attempt: The attempt.
            settings: The settings; None for an attempt without events.
            telemetry: The telemetry with which the attempt is traced.
            attributes: Attributes of its span and its log records, in addition to those of its identity.
        """
        self.attempt = attempt
        self._settings = None
        self._secrets: list[str] = []
        # If the secrets cannot be read, text cannot be redacted. Then `_settings` is None: no event is published.
        with self._errors_logged("the attempt has no events"):
            self._secrets, self._settings = secrets_in(settings), settings
        self._telemetry = telemetry
        self._attributes = semconv.attempt_attributes(attempt) | (attributes or {})
        self._counted_attributes = attributes or semconv.identity_attributes(attempt.run, attempt.task_name)
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._progress = Progress()
        self._span: Span = trace.INVALID_SPAN
        self._stack = contextlib.ExitStack()
        self.libraries: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        """The context in which the libraries that the author uses are instrumented, or are not."""
        self._shown = contextlib.ExitStack()
        self._reporter = EventReporter(Reporter.TASK, attempt, secrets=self._secrets)
        self._mode: Mode = mode_of(attempt, self._secrets)
        self.overdue_after_seconds: float | None = None
        """The duration after which the attempt counts as overdue, in seconds; None for no limit of the author."""

    def __enter__(self) -> Self:
        """Open the attempt's span, and report its start unless the launcher does."""
        # Run due signal handlers only in the first phase. If one raised here, the start would have no end event.
        with signals_deferred(delivers=False):
            began_at = sources.now()
            self._begin()
            with self._errors_logged("the attempt's start is not reported"):
                # Last, since nothing needs closing before that.
                self._mode.handle_termination()
                start = self._mode.start_facts()
                if start is not None:
                    start["overdue_after_seconds"] = self.overdue_after_seconds
                    self._reporter.report(TaskStarted, began_at, **start)
        return self

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._began = self._mode.began()
        self._used_before: dict[str, float] = {}
        with self._errors_logged("the resources that the attempt uses are not fully known"):
            self._used_before = self._mode.used_before()
        if self.attempt.run.is_by_hand:
            with self._errors_logged("log records are not shown"):
                self._shown.enter_context(shown_log())
        with self._errors_logged("the attempt is not traced"):
            is_outermost = not trace.get_current_span().get_span_context().is_valid
            self._span = self._stack.enter_context(self._mode.open_span(self._telemetry, self._attributes))
            carrier = self._reporter.carrier = Carrier.of(self._span.get_span_context())
            if not self.attempt.run.is_by_hand:
                self._stack.enter_context(_lent_to_subprocesses(carrier))
            if self._telemetry.is_tracing and is_outermost:
                # Not on each line, to keep them readable. Not exported, since an exported record has the ids anyway.
                name, number, run_id = self.attempt.task_name, self.attempt.attempt, self.attempt.run.run_id
                ids = carrier.traceparent.split("-")[1:3]
                logger.info("%s, attempt %d of run %s: trace_id=%s span_id=%s", name, number, run_id, *ids)
            self._stack.enter_context(
                self._telemetry.scope(self.attempt, self._attributes, self._span.get_span_context())
            )
            self._telemetry.count_executed(self._attributes[semconv.PIPELINE_TASK_RUN_ID], self._counted_attributes)
        with self._errors_logged("libraries are not instrumented"):
            # Not before the author's module is loaded: the libraries that it has imported are known then.
            self._stack.enter_context(self.libraries)
        if self._settings is not None:
            with self._errors_logged("events are not published"):
                self._reporter.publisher = Publisher.open(
                    self._settings,
                    tracer=self._telemetry.tracer_if_tracing,
                    delivers=self._mode.delivers,
                    wait_limit=self._mode.allowance.journal,
                )

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Report the end unless the launcher does, end the span, deliver the events and export the telemetry."""
        if os.getpid() != self._pid:
            # This is a forked child that left `run` by an exception. Only the parent process reports the end.
            return
        try:
            with signals_deferred():
                event_class, facts = self._conclude(error)
                with self._errors_logged("the attempt's end is not reported by the task"):
                    own = self._mode.facts_to_report(event_class, facts)
                    if own is not None:
                        is_published = self._reporter.report_end(event_class, self._note_of(event_class), **own)
                        self._mode.send_end_to_launcher(self._reporter, event_class, own, is_published=is_published)
                self._release()
        except Exception as late:
            if self._mode.has_caller:
                raise
            # The end is reported. No caller exists that could have set a time limit by a signal.
            logger.warning("%s has ended; a signal handler raised %s", self.attempt.task_name, class_name(type(late)))

    def _conclude(self, error: BaseException | None) -> tuple[type[TaskEnd], dict[str, Any]]:
        """Publish the last progress, and return the end to report; termination requests have no effect from now on."""
        with self._errors_logged("a termination request may still reach the task"):
            self._mode.ignore_termination()
        with self._errors_logged("the last progress is not published"):
            if last := self._progress.take_held_back():
                self._report_progress(*last)
        facts = self._facts_of_end()
        if error is None:
            with self._errors_logged("the measurements of the success are not fully known"):
                facts |= self._facts_of_success()
        else:
            facts |= self._facts_of_failure(error)
        with self._errors_logged("the attempt's span does not show its end"):
            self._span.set_attribute(
                semconv.PIPELINE_TASK_RUN_RESULT, semconv.SUCCESS if error is None else semconv.FAILURE
            )
            if error is not None:
                self._telemetry.record_error(self._span, error)
        return (TaskFinished if error is None else TaskFailed), facts

    def _facts_of_end(self) -> dict[str, Any]:
        """Return the facts of each end: fields of `TaskEnd`."""
        facts: dict[str, Any] = {"duration_seconds": time.monotonic() - self._began, "phases": self._phases}
        with self._errors_logged("the resources that the attempt has used are not fully known"):
            facts |= measurements(self._used_before, self._mode.samples())
        return facts

    def _facts_of_success(self) -> dict[str, Any]:
        """Return the facts of a success alone: fields of `TaskFinished`, which has none yet."""
        return {}

    def _facts_of_failure(self, error: BaseException) -> dict[str, Any]:
        """Return the facts of a failure alone: fields of `TaskFailed`."""
        facts: dict[str, Any] = {"cause": Cause.EXCEPTION, "final": self.attempt.is_final}
        with self._errors_logged("the cause of the failure is not fully known"):
            facts |= self._failure_of(error)
        return facts

    def _note_of(self, event_class: type[TaskEnd]) -> str | None:
        """Return the note in which a launcher finds the end of a task that has not reported it on the pipe."""
        return f"{ENDED}{self.attempt.start_id}/{event_class.name}" if self.attempt.start_id else None

    def _release(self) -> None:
        """End the attempt's span, deliver the events and export the telemetry."""
        with self._errors_logged("the attempt's span does not end"):
            self._stack.close()
        timeout = 0.0 if self._settings is None else self._settings.event_flush_timeout
        self._reporter.close(self._telemetry, timeout * self._mode.allowance.bus)
        self._mode.send_loss_to_launcher(self._reporter)
        with self._errors_logged("log records are still shown"):
            self._shown.close()

    def _failure_of(self, error: BaseException) -> dict[str, Any]:
        failure = failure_of(error) | {
            "final": self.attempt.is_final,
            "phase": self._phase,
            "log_url": self.attempt.log_url,
        }
        if self._mode.is_terminated:
            # This holds even if the task's code replaced the exception.
            failure |= {"cause": Cause.TERMINATED, "signal": signal.SIGTERM.name}
        return failure

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the duration of one phase of the task, and trace it as a span."""
        began = time.monotonic()
        try:
            self._enter(name)
            span = functools.partial(self._telemetry.span, semconv.PHASE_SPANS[name])
            with context_errors_logged(span, "the phase is not traced", self._secrets):
                yield
        finally:
            self._phases[name] = time.monotonic() - began
        self._enter(None)

    def _enter(self, phase: str | None) -> None:
        self._phase = phase
        with self._errors_logged("the phase is not recorded"):
            self._mode.record_phase(phase)

    def progress(self, done: float, total: float | None, unit: str | None, note: str | None) -> None:
        """
        Report the attempt's progress.

        A report within one second of the last one is held back. It is published at the end, unless a newer one replaces
        it.
        """
        with signals_deferred():
            # Converted to built-in types now: the last report is published at the end, when an exception may be active.
            facts = {"done": plain(done), "total": plain(total), "unit": plain(unit), "note": plain(note)}
            with self._errors_logged("a progress is not recorded"):
                self._mode.record_progress(facts)
            with self._errors_logged("a progress is not published"):
                sequence = self._progress.admit(facts, PROGRESS_SECONDS)
                if sequence is not None:
                    # Frame 1 is that of TaskBase.progress, called by the author's.
                    caller = sys._getframe(1).f_back  # noqa: SLF001 - inspect.currentframe has no depth
                    self._report_progress(sequence, facts, caller)

    def _report_progress(self, sequence: int, facts: dict[str, Any], caller: FrameType | None = None) -> None:
        if (problem := problem_of(facts)) is not None:
            place = f" ({Path(caller.f_code.co_filename).name}, line {caller.f_lineno})" if caller else ""
            logger.warning("task.progressed of %s is not published: %s%s", self.attempt.task_name, problem, place)
            return
        self._mode.await_start()
        self._reporter.report(TaskProgressed, sequence=sequence, **facts)

    def _errors_logged(self, consequence: str) -> contextlib.AbstractContextManager[None]:
        return errors_logged(consequence, secrets=self._secrets)


@contextlib.contextmanager
def _lent_to_subprocesses(carrier: Carrier) -> Iterator[None]:
    """Make the attempt's span the parent of the programs that the task starts, instead of the run's span."""
    before = {name: os.environ.pop(name, None) for name in ("TRACEPARENT", "TRACESTATE")}
    os.environ.update(carrier.to_environ())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
