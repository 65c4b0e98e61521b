"""
The reports of a local run: the run's events and span, and the ends that no launcher has reported.

Not here: the times of the reports (engine), and the reports of a launcher (launcher).
"""

import contextlib
import logging
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from dkist_processing_core import budget, semconv
from dkist_processing_core.delivery.lost_runs import final_failure, report_lost_runs
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter, errors_logged
from dkist_processing_core.errors import JournalError
from dkist_processing_core.events import (
    Cause,
    Graph,
    RecipeRunFailureMessage,
    Reporter,
    TaskDispatched,
    TaskFailed,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import derived_trace_id
from dkist_processing_core.journal.notes import RUN_ENDED
from dkist_processing_core.journal.run_record import RunRecord
from dkist_processing_core.local._attempt_end import AttemptEnd
from dkist_processing_core.local.outcomes import RunResult, TaskState
from dkist_processing_core.otlp.drainer import TelemetryDrainer, start_delivery
from dkist_processing_core.process.exit_status import LOST
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.tracing import Carrier, derived_span, open_telemetry, run_parent

_POLL_SECONDS = 0.2
logger = logging.getLogger(__name__)


class RunReports:
    """The publisher and the span of one run."""

    def __init__(self, run: Run, settings: Settings) -> None:
        """Store the run. Nothing is published."""
        self._run = run
        self._settings = settings
        self._telemetry = open_telemetry(settings)
        self._reporter = EventReporter(Reporter.ENGINE, run)
        self._record: RunRecord | None = None
        self._drainer: TelemetryDrainer | None = None
        self._span: Span = trace.INVALID_SPAN
        self._stack = contextlib.ExitStack()

    def open(self) -> None:
        """Open the publisher, which delivers the events of all processes of the run, and deliver their telemetry."""
        with errors_logged("the run's events are not published"):
            self._reporter.publisher = Publisher.open(
                self._settings,
                tracer=self._telemetry.tracer_if_tracing,
                poll_seconds=_POLL_SECONDS,
                wait_limit=budget.LOCAL_ENGINE.journal,
            )
            report_lost_runs(self._reporter.publisher)
        with errors_logged("the run's telemetry is not delivered"):
            self._drainer = start_delivery(self._settings, poll_seconds=_POLL_SECONDS)

    def begin_span(self) -> None:
        """Begin the run's span: all later reports belong to it."""
        with errors_logged("the run is not traced"):
            attributes = semconv.run_attributes(self._run)
            self._span = self._stack.enter_context(self._open_span(attributes))
            self._reporter.carrier = Carrier.of(self._span.get_span_context())
            self._stack.enter_context(self._telemetry.scope(self._run, attributes, self._span.get_span_context()))

    def _open_span(self, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        outer = run_parent(self._run, os.environ)
        is_outermost = outer.trace_id == derived_trace_id(self._run)
        own = derived_span(outer, self._run)
        return self._telemetry.root_span(
            self._run.workflow_name, None if is_outermost else outer, own, SpanKind.SERVER, attributes
        )

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which a process continues the trace below the run's span."""
        return self._reporter.carrier.to_environ() if self._reporter.carrier else {}

    def started(self, started_at: datetime, graph: Graph) -> None:
        """Publish the start of the run, and record the run for other processes of this host, in case this one dies."""
        with errors_logged("no other process can report the end of the run if this one is killed"):
            if self._reporter.publisher is not None:
                record = RunRecord(self._reporter.publisher.bus.journal_path, self._run)
                try:
                    record.begin(started_at, dict.fromkeys(graph.nodes, TaskState.NO_STATUS), self.environ)
                    self._record = record
                except JournalError as error:
                    if self._reporter.publisher.has_journal:
                        raise
                    # The publisher names the cause when it keeps the first event elsewhere.
                    logger.debug("the run is not recorded: %s", error)
        self._reporter.report(WorkflowStarted, started_at=started_at, graph=graph)

    def record(self, tasks: Sequence[str], state: str, attempt: Attempt) -> None:
        """
        Record the state of tasks for other processes of this host.

        Args:
            tasks: The names of the tasks.
            state: Their state from now on.
            attempt: The attempt that has started or ended.
        """
        with errors_logged("the states of tasks are not recorded"):
            if self._record is not None:
                self._record.note(tasks, state, attempt.attempt, is_final=attempt.is_final)

    @property
    def record_fd(self) -> int | None:
        """The descriptor that keeps the run's record locked, for the launchers; None if it is not held."""
        return None if self._record is None else self._record.descriptor

    def dispatched(self, attempt: Attempt, queue: str, queued_seconds: float) -> None:
        """
        Publish the dispatch of an attempt that has no launcher.

        Args:
            attempt: The attempt.
            queue: The queue that its task belongs to.
            queued_seconds: The time since the attempt was due, in seconds.
        """
        self._reporter.about(attempt).report(
            TaskDispatched, queue=queue, worker=platform.node(), queued_seconds=queued_seconds
        )

    def failed(self, end: AttemptEnd) -> None:
        """Report a failure that the engine observed, as provisional: its ended launcher may not have reported it."""
        code = end.exit_code
        reason = f"of its launcher {LOST}" if code is None else "its launcher was killed" if code < 0 else None
        self._reporter.about(end.attempt).report(
            TaskFailed,
            provisional=True,
            final=end.attempt.is_final,
            duration_seconds=end.duration_seconds,
            cause=Cause.EXIT_CODE if reason is None else Cause.LOST,
            message=reason,
            exit_code=None if code is None or code < 0 else code & 0xFF,
        )

    def given_up(self, attempt: Attempt, reason: str | None) -> None:
        """
        Publish the final failure of a task whose last attempt was reported as one that another attempt follows.

        Args:
            attempt: The last attempt of the task.
            reason: The reason for the end of the run.
        """
        message = f"no other attempt follows: the run was {reason}" if reason else "no other attempt follows"
        self._reporter.report(TaskFailed, **final_failure(attempt.task_name, Cause.TERMINATED, message))

    def announce_failure(self, task_name: str) -> None:
        """Publish the failure message of release 7.x for a task whose last attempt failed."""
        self._reporter.announce(RecipeRunFailureMessage.about(self._run, task_name))

    def is_noted(self, note: str) -> bool:
        """Return True if a process of this host has left a note in the journal."""
        with errors_logged("the reports on a task are not known"):
            publisher = self._reporter.publisher
            return publisher is not None and publisher.remembers(note)
        return False

    @property
    def where(self) -> str:
        """A description of the bus for users."""
        publisher = self._reporter.publisher
        return "no bus" if publisher is None else publisher.bus.where

    def ended(self, result: RunResult, duration_seconds: float, reason: str | None) -> None:
        """Publish the end of the run, and remove its record."""
        facts = {} if result.succeeded else {"reason": reason}
        is_published = self._reporter.report(
            WorkflowFinished if result.succeeded else WorkflowFailed,
            None,
            RUN_ENDED + self._run.run_id,
            tasks={name: outcome.state.value for name, outcome in result.items()},
            ended_at=datetime.now(UTC),
            duration_seconds=duration_seconds,
            **facts,
        )
        with errors_logged("the record of the run is not removed"):
            if is_published and self._record is not None:
                self._record.end()

    def end_span(
        self,
        error: tuple[type[BaseException] | None, BaseException | None, TracebackType | None],
        *,
        succeeded: bool,
    ) -> None:
        """End the run's span, with the exception that ends the run if there is one."""
        with errors_logged("the run's span has no end"):
            self._span.set_attribute(semconv.PIPELINE_RESULT, semconv.SUCCESS if succeeded else semconv.FAILURE)
            if not succeeded:
                self._span.set_status(Status(StatusCode.ERROR))
        with errors_logged("the run's span does not end"):
            self._stack.__exit__(*error)

    def add_loss(self, count: object) -> None:
        """Count the events that the processes of an attempt have lost, by their launcher's report."""
        if self._reporter.publisher is not None:
            self._reporter.publisher.add_loss(count)

    def close(self) -> None:
        """Deliver the pending events and export telemetry, for as long as the settings allow."""
        self._reporter.close(self._telemetry, self._settings.event_flush_timeout * budget.LOCAL_ENGINE.bus)
        if self._drainer is not None:
            self._drainer.stop(0.0)
