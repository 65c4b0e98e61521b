"""
The two modes of an attempt: called (its process reports all of it), or launched (its process and its launcher do).

In the launched mode the launcher reports the start, the span, and the end after a termination request, since only the
launcher knows the sender of that request. Not here: the events and their publishing (lifecycle).
"""

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind

from dkist_processing_core import budget
from dkist_processing_core.attempt._facts import used_so_far
from dkist_processing_core.attempt.progress import text_of
from dkist_processing_core.attempt.report_pipe import ReportPipe
from dkist_processing_core.budget import Allowance
from dkist_processing_core.delivery.reporter import EventReporter, errors_logged
from dkist_processing_core.events import Cause, TaskEnd, TaskFailed
from dkist_processing_core.identity import Attempt
from dkist_processing_core.identity.trace_context import derived_trace_id
from dkist_processing_core.process.termination import TaskTermination
from dkist_processing_core.recorder import writing
from dkist_processing_core.settings.origin import handed_variables
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.tracing import Telemetry, derived_span, run_parent, sampled

# Limits in characters, so that a report fits into the report pipe even while the launcher does not read it.
_MAX_MESSAGE, _MAX_STACK = 2_000, 6_000


class Mode(Protocol):
    """What differs between a called and a launched task."""

    allowance: Allowance
    """How long the process may wait."""
    delivers: bool
    """Whether the process delivers its events to the bus itself."""
    has_caller: bool
    """Whether there is a caller that receives an exception raised at the very end of the attempt."""

    def began(self) -> float:
        """Return when the attempt began, in the time of `time.monotonic`."""

    def used_before(self) -> dict[str, float]:
        """Return what the process had used before the attempt began, as fields of `Resources`."""

    def samples(self) -> dict[str, Any]:
        """Return what a launcher has measured so far: `resources`, fields of `Resources`, and `profile`, its points."""

    @property
    def is_terminated(self) -> bool:
        """Whether the task was requested to terminate."""

    def open_span(self, telemetry: Telemetry, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        """Return the context in which the attempt's own spans are children of the attempt's span."""

    def handle_termination(self) -> None:
        """Install the signal handler by which a termination request ends the task, if the caller has none."""

    def start_facts(self) -> dict[str, Any] | None:
        """Return the facts of the start; None if the launcher reports it."""

    def await_start(self) -> None:
        """Wait a moment for the start in the journal, so that a progress does not come before it."""

    def record_phase(self, name: str | None) -> None:
        """Record the phase that the task has entered, None between two, for a launcher if the task is killed."""

    def record_progress(self, facts: dict[str, Any]) -> None:
        """Record the progress in the same way; `facts` are fields of `TaskProgressed`."""

    def ignore_termination(self) -> None:
        """Ignore termination requests from now on: the task has ended."""

    def facts_to_report(self, event_class: type[TaskEnd], facts: dict[str, Any]) -> dict[str, Any] | None:
        """Return the facts of the end that this process must report; None if the launcher has received the end."""

    def send_end_to_launcher(
        self, reporter: EventReporter, event_class: type[TaskEnd], facts: dict[str, Any], *, is_published: bool
    ) -> None:
        """Send the end to a launcher after this process has reported it; `is_published` is whether that succeeded."""

    def send_loss_to_launcher(self, reporter: EventReporter) -> None:
        """Send the number of lost events to a launcher, after the publisher was closed."""


def mode_of(attempt: Attempt, secrets: Sequence[str]) -> Mode:
    """Return the mode of an attempt: launched if there is a pipe to a launcher."""
    if attempt.report_fd is None:
        return CalledMode(attempt)
    return LaunchedMode(attempt, attempt.report_fd, secrets)


class CalledMode:
    """A task that is called: its process reports all of the attempt."""

    allowance = budget.CALLED_TASK
    delivers = True
    has_caller = True
    is_terminated = False

    def __init__(self, attempt: Attempt) -> None:
        """Store the attempt."""
        self._attempt = attempt

    def began(self) -> float:
        """Return the present time: the call begins now."""
        return time.monotonic()

    def used_before(self) -> dict[str, float]:
        """Return what the process has used so far."""
        return used_so_far()

    def samples(self) -> dict[str, Any]:
        """Return nothing: no launcher measures."""
        return {}

    def open_span(self, telemetry: Telemetry, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        """Open the attempt's span."""
        attempt = self._attempt
        current = trace.get_current_span().get_span_context()
        parent: SpanContext | None
        if attempt.run.is_by_hand and current.is_valid:
            # Called by the operation of the current span, as when one task calls another.
            outer = parent = sampled(current)
        else:
            outer = run_parent(attempt.run, os.environ)
            # A run by hand has no end, and so no root span that could be the parent.
            is_orphan = attempt.run.is_by_hand and outer.trace_id == derived_trace_id(attempt.run)
            parent = None if is_orphan else outer
        own = derived_span(outer, attempt)
        return telemetry.root_span(attempt.task_name, parent, own, SpanKind.INTERNAL, attributes)

    def handle_termination(self) -> None:
        """Do nothing: the caller handles signals."""

    def start_facts(self) -> dict[str, Any]:
        """Return the host and the process of the attempt."""
        return {"host": platform.node(), "pid": os.getpid()}

    def await_start(self) -> None:
        """Return at once: this process has reported the start."""

    def record_phase(self, name: str | None) -> None:
        """Do nothing: no launcher reads it."""

    def record_progress(self, facts: dict[str, Any]) -> None:
        """Do nothing, as above."""

    def ignore_termination(self) -> None:
        """Do nothing: the caller handles signals."""

    def facts_to_report(self, event_class: type[TaskEnd], facts: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the other's
        """Return the facts unchanged: no other process reports the end."""
        return facts

    def send_end_to_launcher(
        self, reporter: EventReporter, event_class: type[TaskEnd], facts: dict[str, Any], *, is_published: bool
    ) -> None:
        """Do nothing: no other process waits for the end."""

    def send_loss_to_launcher(self, reporter: EventReporter) -> None:
        """Do nothing: this process warns of lost events itself."""


class LaunchedMode:
    """A task under a launcher, which has reported the start and reports the end if the task cannot."""

    allowance = budget.LAUNCHED_TASK
    # The launcher has a connection already.
    delivers = False
    has_caller = False

    def __init__(self, attempt: Attempt, report_fd: int, secrets: Sequence[str]) -> None:
        """Store the attempt, the descriptor of the report pipe, and the secrets to redact in its reports."""
        self._attempt = attempt
        self._secrets = secrets
        self._pipe = ReportPipe(report_fd, attempt.started_fd)
        self._termination = TaskTermination()
        self._is_end_repeated = False

    def began(self) -> float:
        """Return when the launcher started this process; the present time if the launcher has not reported that."""
        began, now = self._attempt.process_began, time.monotonic()
        return began if began is not None and 0.0 <= began <= now else now

    def used_before(self) -> dict[str, float]:
        """Return nothing: a launched process exists for the attempt alone, from its first instruction."""
        return {}

    def samples(self) -> dict[str, Any]:
        """Return what the launcher has left in the recorder."""
        return writing.read_samples()

    @property
    def is_terminated(self) -> bool:
        """Whether the task received a request, or the launcher did (if the author has installed another handler)."""
        return self._termination.is_requested or self._pipe.has_forwarded_termination

    def open_span(self, telemetry: Telemetry, _: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        """Make the launcher's span current; the launcher ends the spans below it that a killed task leaves open."""
        telemetry.report_open_spans(self._pipe.note)
        outer = run_parent(self._attempt.run, handed_variables() or os.environ)
        return trace.use_span(NonRecordingSpan(outer))

    def handle_termination(self) -> None:
        """Make a termination request raise an exception in the task."""
        with errors_logged("a termination request cannot end the task by an exception", secrets=self._secrets):
            self._termination.begin()

    def start_facts(self) -> None:
        """Return None: the launcher reports the start."""

    def await_start(self) -> None:
        """Wait until the launcher has reported the start, or until a short time limit: the task has work to do."""
        self._pipe.await_start(budget.START_SECONDS)

    def record_phase(self, name: str | None) -> None:
        """Record the phase."""
        writing.record_phase(name)

    def record_progress(self, facts: dict[str, Any]) -> None:
        """Record the progress as a text, such as `3/12 frame: note`."""
        writing.record_progress(redact(text_of(facts), also=self._secrets))

    def ignore_termination(self) -> None:
        """Ignore termination requests from now on."""
        self._termination.conclude()

    def facts_to_report(self, event_class: type[TaskEnd], facts: dict[str, Any]) -> dict[str, Any] | None:
        """Write the end to the pipe after a termination request; return None if the launcher reads it."""
        if event_class is TaskFailed and self.is_terminated:
            if self._write(event_class, facts, is_on_disk=False) and self._pipe.is_read():
                return None
            facts = facts | {"cause": Cause.LOST, "message": "its launcher died"}
        self._pipe.await_start(budget.START_BEFORE_END_SECONDS)
        return facts

    def send_end_to_launcher(
        self, reporter: EventReporter, event_class: type[TaskEnd], facts: dict[str, Any], *, is_published: bool
    ) -> None:
        """Report the end to the launcher, which publishes it if it is not on disk."""
        is_on_disk = is_published and reporter.publisher is not None and reporter.publisher.is_on_disk
        is_sent = self._write(event_class, facts, is_on_disk=is_on_disk)
        self._is_end_repeated = is_published and is_sent and not is_on_disk

    def send_loss_to_launcher(self, reporter: EventReporter) -> None:
        """Send the number of lost events: the process that reports on the folder of the journal warns of them."""
        if reporter.publisher is not None and reporter.publisher.unreported_loss:
            # The launcher counts the end, which it also publishes.
            self._pipe.write({"lost": reporter.publisher.unreported_loss - self._is_end_repeated})

    def _write(self, event_class: type[TaskEnd], facts: dict[str, Any], *, is_on_disk: bool) -> bool:
        with errors_logged("the launcher does not receive the end", secrets=self._secrets):
            # The launcher measures more than the task.
            shown = {name: value for name, value in facts.items() if name not in ("resources", "profile")}
            for name, cut in (("message", slice(_MAX_MESSAGE)), ("stack", slice(-_MAX_STACK, None))):
                if shown.get(name):
                    shown[name] = redact(shown[name], also=self._secrets)[cut]
            return self._pipe.write({"end": event_class.name, "is_on_disk": is_on_disk, "facts": shown})
        return False
