"""
The life of one attempt of a task: a start, phases, progress, exactly one end.

The one place that catches what goes wrong with observing, so that it never reaches the observed. Not here: what the
phases do (task), and what happens around the task's process (local, launcher).
"""

import contextlib
import logging
import os
import platform
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opentelemetry.trace import Span, SpanContext, SpanKind

from dkist_processing_core import semconv
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
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
from dkist_processing_core.identity import Attempt
from dkist_processing_core.publisher import Publisher
from dkist_processing_core.tracing import (
    Carrier,
    Telemetry,
    derived_attempt_span_id,
    derived_trace_id,
    note_error,
    run_parent,
)

PROGRESS_SECONDS = 1.0
"""The shortest time between two `task.progressed` of one attempt."""
logger = logging.getLogger(__name__)


class Lifecycle:
    """
    A context manager around one attempt: publishes the start on entry and the end on exit, inside the attempt's span.

    Exceptions pass through unchanged. A publisher that is handed in stays open; otherwise the lifecycle opens one,
    and gives it at most `EVENT_FLUSH_TIMEOUT` seconds at the end, telemetry included.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        settings: DKISTProcessingCoreConfiguration | None,
        telemetry: Telemetry,
        publisher: Publisher | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Name the attempt; without `settings` and without a publisher nothing is published."""
        self.attempt = attempt
        self._settings = settings
        self._telemetry = telemetry
        self._given_publisher = publisher
        self._publisher = publisher
        self._attributes = semconv.attempt_attributes(attempt) | (attributes or {})
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._progress_count = 0
        self._progress_due = 0.0
        self._unsent_progress: dict[str, Any] | None = None
        self._carrier: Carrier | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Open the attempt's span and publish `task.started`."""
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._cpu_began = _cpu_seconds()
        self._span = self._stack.enter_context(self._open_span())
        self._carrier = Carrier.of(self._span.get_span_context())
        self._stack.enter_context(self._telemetry.log_records(self._attributes))
        if self._publisher is None and self._settings is not None:
            with never_breaking("events are not published"):
                self._publisher = Publisher.open(self._settings, tracer=self._telemetry.tracer)
        self._publish(TaskStarted, host=platform.node(), pid=os.getpid())
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the one end of the attempt, end its span, and let both go out."""
        if os.getpid() != self._pid:
            # A fork of the task that left `run` by an exception: the attempt is its parent's to end.
            return
        if self._unsent_progress is not None:
            self._publish_progress(self._unsent_progress)
        facts = {
            "duration_seconds": time.monotonic() - self._began,
            "cpu_seconds": max(0.0, _cpu_seconds() - self._cpu_began),
            "peak_memory_bytes": _peak_memory_bytes(),
            "phases": self._phases,
        }
        if error is None:
            self._span.set_attribute(semconv.PIPELINE_TASK_RUN_RESULT, semconv.SUCCESS)
            self._publish(TaskFinished, **facts)
        else:
            self._span.set_attribute(semconv.PIPELINE_TASK_RUN_RESULT, semconv.FAILURE)
            note_error(self._span, error)
            self._publish(
                TaskFailed,
                **facts,
                **_failure_of(error),
                final=self.attempt.is_final,
                phase=self._phase,
                log_url=self.attempt.log_url,
            )
        self._stack.close()
        self._let_go()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase of the task, in a span of its own."""
        began = time.monotonic()
        self._phase = name
        try:
            with self._telemetry.span(semconv.PHASE_SPANS[name]):
                yield
        finally:
            self._phases[name] = time.monotonic() - began
        self._phase = None

    def progress(self, done: float, total: float | None, unit: str | None, note: str | None) -> None:
        """Publish how far the attempt is; what comes too soon after the last is held back, and not lost at the end."""
        facts = {"done": done, "total": total, "unit": unit, "note": note}
        now = time.monotonic()
        if now < self._progress_due:
            self._unsent_progress = facts
            return
        self._progress_due = now + PROGRESS_SECONDS
        self._publish_progress(facts)

    def _publish_progress(self, facts: dict[str, Any]) -> None:
        self._unsent_progress = None
        self._publish(TaskProgressed, sequence=self._progress_count, **facts)
        self._progress_count += 1

    def _open_span(self) -> contextlib.AbstractContextManager[Span]:
        attempt = self.attempt
        outer = run_parent(attempt.run, os.environ)
        own = SpanContext(
            outer.trace_id, derived_attempt_span_id(attempt), is_remote=False, trace_flags=outer.trace_flags
        )
        # Nobody will ever end a run by hand, so it has no root span to hang from.
        is_orphan = attempt.run.is_by_hand and outer.trace_id == derived_trace_id(attempt.run)
        parent = None if is_orphan else outer
        return self._telemetry.root_span(attempt.task_name, parent, own, SpanKind.INTERNAL, self._attributes)

    def _publish(self, event_class: type[Event], **facts: Any) -> None:
        if self._publisher is None:
            return
        with never_breaking(f"{event_class.name} of {self.attempt.task_name} is not published"):
            carrier = self._carrier
            self._publisher.publish(
                event_class(
                    time=datetime.now(UTC),
                    reported_by=Reporter.TASK,
                    traceparent=carrier.traceparent if carrier else None,
                    tracestate=carrier.tracestate if carrier else None,
                    **identity_of(self.attempt),
                    **facts,
                )
            )

    def _let_go(self) -> None:
        """Give publisher and telemetry the same few seconds, side by side."""
        timeout = 0.0 if self._settings is None else self._settings.event_flush_timeout
        with never_breaking("events and telemetry did not end well"), self._telemetry.flushing(timeout):
            if self._publisher is not None and self._publisher is not self._given_publisher:
                self._publisher.close(timeout)


@contextlib.contextmanager
def never_breaking(consequence: str) -> Iterator[None]:
    """Keep what goes wrong with observing from the observed, and log it with its consequence."""
    try:
        yield
    except (DKISTProcessingCoreError, ValueError) as error:
        # A ValueError is pydantic's: facts that cannot be stated, as a progress that is no number.
        logger.warning("%s: %s", consequence, error)
    except Exception:
        logger.exception("%s: an error of this package", consequence)


def _failure_of(error: BaseException) -> dict[str, Any]:
    failure: dict[str, Any] = {**describe(error)}
    if isinstance(error, SystemExit):
        code = error.code
        # As the interpreter does: None is 0, and what is no number is printed and exits 1.
        failure |= {"cause": Cause.EXIT_CODE, "exit_code": code if isinstance(code, int) else int(code is not None)}
    elif isinstance(error, KeyboardInterrupt):
        failure |= {"cause": Cause.SIGNAL, "signal": signal.SIGINT.name}
    return failure


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_memory_bytes() -> int | None:
    """
    Return the most memory this process had resident, VmHWM of proc_pid_status(5).

    Not `ru_maxrss`, which a child inherits from its parent across exec.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
