"""
A workflow run on this host, with this process as its engine: the loop that starts attempts and records their ends.

Not here: the order of the attempts (_schedule), their processes (_attempts), the events of the run (_reports), and the
result of an attempt (launcher).
"""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.identity import LOCAL, Run, new_run_id, parse_recipe_run_id
from dkist_processing_core.journal.notes import SUCCEEDED
from dkist_processing_core.journal.run_record import RUNNING
from dkist_processing_core.launcher import assignment
from dkist_processing_core.launcher.bootstrap import locate, refuse_while_loading
from dkist_processing_core.launcher.termination_requests import GRACE_SECONDS
from dkist_processing_core.local._attempt_end import AttemptEnd
from dkist_processing_core.local._attempts import Attempts
from dkist_processing_core.local._reports import RunReports
from dkist_processing_core.local._run_display import RunDisplay
from dkist_processing_core.local._schedule import Schedule
from dkist_processing_core.local.outcomes import RunResult, TaskState
from dkist_processing_core.process.exit_status import fill_standard_descriptors
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.termination import TerminationError, raised_as_exception
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text import counted, show, whole_number

if TYPE_CHECKING:
    from dkist_processing_core.node import Node
    from dkist_processing_core.workflow import Workflow

TERMINATION_SECONDS = GRACE_SECONDS + 0.6
"""The longest life of a launcher after a termination request: it kills its task, and ends a moment later."""
_LAST_SECONDS = 0.2
_LOOK_SECONDS = 0.05
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_workflow(
    workflow: "Workflow", recipe_run_id: int | str, *, max_parallel: int | None = None, environments: bool = False
) -> RunResult:
    """
    Run a workflow on this host; see `Workflow.run`.

    Raises:
        ConfigurationError: The settings are not usable.
        IdentityError: `recipe_run_id` is not a valid id.
        WorkflowError: The workflow cannot be run, or `max_parallel` is not usable.
    """
    refuse_while_loading(f"{workflow.workflow_name}.run()")
    if not workflow.nodes:
        msg = f"{workflow.workflow_name} has no tasks to run"
        raise WorkflowError(msg)
    # No socket of this process gets a number at which its children expect a standard stream.
    fill_standard_descriptors()
    settings = read_settings()
    parallel = settings.cpu_count if max_parallel is None else whole_number(max_parallel)
    if parallel is None or parallel < 1:
        msg = f"max_parallel is {show(max_parallel)}, expected a whole number from 1"
        raise WorkflowError(msg)
    number = parse_recipe_run_id(recipe_run_id)
    run = Run(workflow.workflow_name, workflow.workflow_version, new_run_id(LOCAL, number), number)
    for node in workflow.nodes if environments else ():
        node.check_exportable()
    with raised_as_exception():
        return LocalRun(workflow, run, settings, parallel, environments=environments).execute()


class LocalRun:
    """One run of a workflow: a loop in the calling thread, and a thread for each task that runs."""

    def __init__(
        self,
        workflow: "Workflow",
        run: Run,
        settings: Settings,
        max_parallel: int,
        *,
        environments: bool = False,
    ) -> None:
        """
        Store the workflow and the run. Nothing is started.

        Args:
            workflow: The workflow to run.
            run: The identity of the run.
            settings: The settings of this process and of the tasks.
            max_parallel: The highest number of tasks that run at the same time.
            environments: Whether each task runs in an environment that holds the release of the workflow's package
                and version.
        """
        self._environments = environments
        self._workflow = workflow
        self._run = run
        self._settings = settings
        self._max_parallel = max_parallel
        self._reports = RunReports(run, settings)
        self._display = RunDisplay()
        self._schedule = Schedule(run, workflow.topological_sort())
        self._attempts = Attempts(self._reports, self._display, settings.core_origin)
        self._pid = os.getpid()
        self._reason: str | None = None

    def execute(self) -> RunResult:
        """Run every task that can be run, and return the outcome of each."""
        began, started_at = time.monotonic(), datetime.now(UTC)
        self._reports.open()
        try:
            self._reports.begin_span()
            self._display.open(self._run, self._schedule.names, self._settings)
            self._display.detail(
                "run", f"events go to {self._reports.where}, {counted(self._max_parallel, 'task')} at a time"
            )
            self._reports.started(started_at, self._workflow.graph)
            try:
                self._loop()
            finally:
                if os.getpid() != self._pid:
                    # This is a forked child of a task that ran in this process. Only its parent reports the run.
                    os._exit(1)
                with signals_deferred(interrupts=True) as held:
                    reason = self._reason = _interruption(sys.exc_info()[1])
                    self._stop_everything(held, reason)
                    result = self._schedule.result
                    self._reports.ended(result, duration_seconds=time.monotonic() - began, reason=reason)
                self._conclude(succeeded=result.succeeded, reason=reason)
        finally:
            self._reports.close()
        return result

    def _conclude(self, *, succeeded: bool, reason: str | None) -> None:
        """End the display and the run's span; an error in this does not change the result."""
        error = sys.exc_info()
        self._display.show(lambda display: display.run_ended(succeeded=succeeded, reason=reason))
        try:
            self._display.close(error)
        finally:
            self._reports.end_span(error, succeeded=succeeded)

    def _loop(self) -> None:
        self._schedule.begin()
        while not (self._schedule.is_empty and self._attempts.is_empty):
            self._start_what_is_due()
            self._settle_next(self._schedule.seconds_to_next if self._has_room else None)

    @property
    def _has_room(self) -> bool:
        return self._attempts.count < self._max_parallel

    def _start_what_is_due(self) -> None:
        while self._has_room and (attempt := self._schedule.next_due) is not None:
            node = self._schedule.node_of(attempt)
            located = locate(node.task)
            queued_seconds = self._schedule.queued_seconds(attempt)
            environ = None if located is None else located | self._launch_environ(node, queued_seconds)
            self._display.show(lambda display: display.attempt_started(attempt))
            self._reports.record([attempt.task_name], RUNNING, attempt)
            with signals_deferred(interrupts=True):
                self._schedule.take_next()
                is_started = environ is not None and self._attempts.start(attempt, environ)
            if environ is None:
                self._attempts.call_here(attempt, node, queued_seconds)
            elif not is_started:
                # Too many threads, or an interpreter that is about to exit: tasks run one after another.
                self._attempts.run_here(attempt, environ)

    def _launch_environ(self, node: "Node", queued_seconds: float) -> dict[str, str]:
        environ = {
            assignment.QUEUE: node.resource_queue.value,
            assignment.QUEUED_AT: repr(time.time() - queued_seconds),
            assignment.DELIVERED: "1",
        }
        if node.overdue_after_seconds is not None:
            environ[assignment.OVERDUE_AFTER] = repr(node.overdue_after_seconds)
        if self._environments:
            requirement = node.requirement
            environ |= {assignment.PACKAGE: requirement.name, assignment.EXTRAS: ",".join(requirement.extras)}
        return environ

    def _settle_next(self, seconds: float | None) -> bool:
        """Settle the next attempt that has ended; return False if none has within `seconds`."""
        end = self._attempts.await_end(seconds)
        if end is not None:
            self._settle(end)
        return end is not None

    def _settle(self, end: AttemptEnd) -> None:
        """
        Report and record the end of an attempt and its consequences.

        If an interrupt comes before the end is recorded, this is done again; the events have the same ids then.
        """
        attempt = end.attempt
        # A success that the launcher has reported outranks the launcher's exit status.
        succeeded = end.exit_code == 0 or self._reports.is_noted(SUCCEEDED + attempt.key)
        is_over = succeeded or attempt.is_final or self._attempts.is_stopping
        delay = self._schedule.node_of(attempt).task.retry_delay_seconds
        if not (succeeded or end.is_reported):
            self._reports.failed(end)
        if is_over and not succeeded:
            self._reports.announce_failure(attempt.task_name)
            if not attempt.is_final:
                self._reports.given_up(attempt, self._reason)
        with signals_deferred(interrupts=True):
            self._attempts.forget(end)
            not_run = self._schedule.record(end, succeeded=succeeded, is_over=is_over)
        if is_over:
            self._reports.record([attempt.task_name], TaskState.SUCCESS if succeeded else TaskState.FAILED, attempt)
            self._reports.record(not_run, TaskState.UPSTREAM_FAILED, attempt)
        self._display.show(
            lambda display: display.attempt_ended(end, succeeded=succeeded, next_in=None if is_over else delay)
        )
        for follower in not_run:
            self._display.show(lambda display: display.task_not_run(follower))  # noqa: B023 - called now

    def _stop_everything(self, held: signals_deferred, reason: str | None) -> None:
        """Send termination requests to running launchers, skip the wait at another interrupt, and kill the rest."""
        for attempt in self._schedule.stop():
            self._reports.announce_failure(attempt.task_name)
            self._reports.given_up(attempt, reason)
            self._reports.record([attempt.task_name], TaskState.FAILED, attempt)
        if reason is not None:
            text = reason + _stopping_text(self._attempts.count)
            self._display.show(lambda display: display.stopping(text))
        steps = self._attempts.stop()
        deadline = time.monotonic() + TERMINATION_SECONDS
        # A launcher kills its task at the second request; if the launcher is killed, its guard kills the task.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self._attempts.send_signal(number)
            while not self._attempts.is_empty and not held.take(_INTERRUPTS):
                next(steps, None)
                left = max(0.0, deadline - time.monotonic())
                if not self._settle_next(min(left, _LOOK_SECONDS)) and not left:
                    deadline = time.monotonic() + _LAST_SECONDS
                    break


def _interruption(error: BaseException | None) -> str | None:
    """Return the reason for the end of a run that a signal has interrupted; None for any other end."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (Ctrl-C)"
    return f"terminated ({error.signal.name})" if isinstance(error, TerminationError) else None


def _stopping_text(count: int) -> str:
    tasks = counted(count, "task")
    return f": stopping {tasks}, at most {TERMINATION_SECONDS:.0f} s; Ctrl-C again kills at once" if count else ""
