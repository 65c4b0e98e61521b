"""
The reports of a launcher: two events at the start, one at the end if necessary, and the attempt's span.

This module is imported after the start of the task, because its import takes long. Not here: the verdict that is
reported (_verdict).
"""

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from dkist_processing_core import budget, semconv
from dkist_processing_core.delivery.lost_runs import report_lost_runs
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter, errors_logged
from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.events import (
    Cause,
    Reporter,
    Resources,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskSampled,
    TaskStarted,
)
from dkist_processing_core.journal.notes import ENDED, SUCCEEDED, TERMINATION_REQUESTED
from dkist_processing_core.launcher._verdict import Verdict
from dkist_processing_core.launcher.assignment import Assignment
from dkist_processing_core.otlp.drainer import TelemetryDrainer, start_delivery
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_leniently, secrets_in
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.tracing import (
    Carrier,
    Telemetry,
    derived_span,
    end_open_spans,
    open_telemetry,
    run_parent,
)

_POLL_SECONDS = 0.5
logger = logging.getLogger(__name__)


class Reports:
    """The publisher and the span of one attempt, from its dispatch to its end."""

    def __init__(self, assignment: Assignment, began_ns: int) -> None:
        """Open both, unless the settings disable them; `began_ns` is the attempt's start, in nanoseconds since 1970."""
        self._assignment = assignment
        self._attempt = assignment.attempt
        self._began_ns = began_ns
        self._is_started = False
        self._samples = 0
        self._stack = contextlib.ExitStack()
        self._span: Span = trace.INVALID_SPAN
        self._settings = _settings()
        self._secrets = secrets_in(self._settings)
        self._reporter = EventReporter(Reporter.LAUNCHER, self._attempt, secrets=self._secrets)
        self._telemetry = Telemetry() if self._settings is None else open_telemetry(self._settings)
        attributes = semconv.attempt_attributes(self._attempt) | semconv.nomad_attributes(os.environ)
        with self._errors_logged("the attempt is not traced"):
            self._span = self._stack.enter_context(self._open_span(attributes))
            self._reporter.carrier = Carrier.of(self._span.get_span_context())
            self._stack.enter_context(self._telemetry.scope(self._attempt, attributes, self._span.get_span_context()))
        self._open_publisher()
        self._telemetry_drainer = self._start_delivery()

    def _start_delivery(self) -> TelemetryDrainer | None:
        """Deliver the telemetry of this host, unless the process of the run does."""
        if self._settings is not None and not self._assignment.is_delivered:
            with self._errors_logged("telemetry is not delivered"):
                return start_delivery(
                    self._settings, poll_seconds=_POLL_SECONDS, patience=budget.SILENT_COLLECTOR_SECONDS
                )
        return None

    def _open_publisher(self) -> None:
        if self._settings is not None and self._reporter.publisher is None:
            with self._errors_logged("events are not published"):
                self._reporter.publisher = Publisher.open(
                    self._settings,
                    tracer=self._telemetry.tracer_if_tracing,
                    delivers=not self._assignment.is_delivered,
                    poll_seconds=_POLL_SECONDS,
                    wait_limit=budget.LAUNCHER.journal,
                )

    def _open_span(self, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        outer = run_parent(self._attempt.run, os.environ)
        own = derived_span(outer, self._attempt)
        return self._telemetry.root_span(
            self._attempt.task_name, outer, own, SpanKind.INTERNAL, attributes, start_time=self._began_ns
        )

    @property
    def environ(self) -> dict[str, str] | None:
        """The variables by which a process continues the trace below the attempt's span; None without a span."""
        return None if self._reporter.carrier is None else self._reporter.carrier.to_environ()

    def dispatched(self) -> None:
        """Publish that the attempt has reached its launcher."""
        self._reporter.report(
            TaskDispatched,
            _moment(self._began_ns),
            queue=self._assignment.queue,
            worker=platform.node(),
            queued_seconds=self._assignment.queued_seconds,
        )

    def prepared(self, began_ns: int, ended_ns: int, state: str, error: BaseException | None = None) -> None:
        """Export the preparation of the environment as a separate span; `state` is its result."""
        with self._errors_logged("the environment's preparation is not traced"):
            span = self._telemetry.tracer.start_span(
                semconv.PREPARATION_SPAN,
                start_time=began_ns,
                attributes=semconv.environment_attributes(str(self._assignment.requirement), state),
            )
            if error is not None:
                self._telemetry.record_error(span, error)
            span.end(ended_ns)

    def started(self, pid: int, at_ns: int, environment: str | None, environment_seconds: float | None) -> None:
        """Publish the start of the task's process, once even if a second process follows in a rebuilt environment."""
        if self._is_started:
            return
        self._is_started = True
        self._reporter.report(
            TaskStarted,
            _moment(at_ns),
            host=platform.node(),
            pid=pid,
            environment=environment,
            environment_seconds=environment_seconds,
            sample_seconds=self.sample_seconds,
            overdue_after_seconds=self._assignment.overdue_after_seconds,
        )

    @property
    def sample_seconds(self) -> float | None:
        """The time between two samples in the beginning, in seconds; None without samples."""
        return None if self._settings is None else self._settings.dkist_core_sample_seconds or None

    def sampled(self, interval_seconds: float, resources: Mapping[str, Any], top_frame: str | None) -> None:
        """Publish that the task lives; `interval_seconds` is the time until the next of these events."""
        with self._errors_logged("a sample is not published"):
            self._reporter.report(
                TaskSampled,
                sequence=self._samples,
                host=platform.node(),
                interval_seconds=interval_seconds,
                resources=Resources(**resources),
                top_frame=top_frame,
            )
            self._samples += 1

    def noted_end(self, start_id: str, pid: int) -> dict[str, Any]:
        """Return the end that the task noted on this host after that start, in the form of its pipe report."""
        names = {f"{ENDED}{start_id}/{each.name}": each.name for each in (TaskFinished, TaskFailed)}
        publisher = self._reporter.publisher
        note = None if publisher is None else publisher.noted_by(pid, *names)
        return {} if note is None else {"end": names[note], "is_on_disk": True}

    def end_open_spans(self, reports: Mapping[str, Any], *, cause: Callable[[], str]) -> None:
        """End the spans that the task has left open, if others below them are exported; `cause` is why it could not."""
        with self._errors_logged("spans of the task have no parent"):
            end_open_spans(self._telemetry.root_span, reports, cause)

    def ended(self, verdict: Verdict) -> bool:
        """Publish the end, unless the task has, and end the span; return True if the end is published."""
        # If the publisher could not be opened at the start, this is the last chance to report the end.
        self._open_publisher()
        is_published = (
            verdict.is_on_disk
            # If there are no settings, no event is expected.
            or self._reporter.publisher is None
            or self._reporter.report_end(verdict.event_class, **self._completed(verdict))
        )
        note = {None: SUCCEEDED, Cause.TERMINATED: TERMINATION_REQUESTED}.get(verdict.cause)
        if note is not None and self._reporter.publisher is not None:
            with self._errors_logged("the engine's callbacks on this host cannot know how the task ended"):
                self._reporter.publisher.remember(note + self._attempt.key)
        with self._errors_logged("the attempt's span does not show its end"):
            self._conclude_span(verdict)
        with self._errors_logged("the attempt's span does not end"):
            self._stack.close()
        return is_published

    def _completed(self, verdict: Verdict) -> dict[str, Any]:
        if verdict.event_class is not TaskFailed:
            return verdict.facts
        return verdict.facts | {"final": self._attempt.is_final, "log_url": self._attempt.log_url}

    def _conclude_span(self, verdict: Verdict) -> None:
        cause = verdict.cause
        if cause is None:
            self._span.set_attribute(semconv.PIPELINE_TASK_RUN_RESULT, semconv.SUCCESS)
            return
        self._span.set_attribute(semconv.PIPELINE_TASK_RUN_RESULT, semconv.result_of(cause))
        self._span.set_attribute(semconv.ERROR_TYPE, verdict.error_type or str(cause))
        texts = (str(verdict.facts.get(name) or "") for name in ("message", "stack"))
        message, stack = (redact(text, also=self._secrets) for text in texts)
        if stack:
            self._span.add_event(
                semconv.EXCEPTION,
                {
                    semconv.EXCEPTION_TYPE: str(verdict.error_type),
                    semconv.EXCEPTION_MESSAGE: message,
                    semconv.EXCEPTION_STACKTRACE: stack,
                },
            )
        self._span.set_status(Status(StatusCode.ERROR, message or str(cause)))

    def close(self, *, is_orphaned: bool, lost_by_task: object = 0) -> int:
        """
        Report lost runs of this host, and deliver all pending events, including the task's own; then close.

        Args:
            is_orphaned: Whether the process that has started this one, and may have delivered its events, has died.
            lost_by_task: How many events the task has reported as lost.

        Returns:
            How many events are lost of which the engine's process warns.
        """
        publisher = self._reporter.publisher
        if publisher is not None:
            publisher.add_loss(lost_by_task)
            with self._errors_logged("lost runs are not reported"):
                report_lost_runs(publisher)
                if is_orphaned:
                    publisher.begin_delivery()
        allowance = budget.ORPHANED_LAUNCHER if is_orphaned else budget.LAUNCHER
        timeout = 0.0 if self._settings is None else allowance.for_bus(self._settings.event_flush_timeout)
        self._reporter.close(self._telemetry, timeout, including_backlog=True)
        if self._telemetry_drainer is not None:
            self._telemetry_drainer.stop(0.0)
        return 0 if publisher is None else publisher.unreported_loss

    def _errors_logged(self, consequence: str) -> contextlib.AbstractContextManager[None]:
        return errors_logged(consequence, secrets=self._secrets)


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _settings() -> Settings | None:
    """Return the settings; None if they are unusable: then the task runs without events and telemetry."""
    try:
        settings, complaint = read_leniently()
    except ConfigurationError as error:
        logger.error("the launcher publishes no events and no telemetry: %s", error)  # noqa: TRY400 - one line is enough
        return None
    if complaint is not None:
        logger.warning("the launcher runs with a default instead: %s", complaint)
    return settings
