"""
A workflow run on this host, with this process as its engine.

A launcher runs each attempt; retries, downstream tasks and the events of the run are decided here. Not here: the result
of an attempt (launcher), the output during the run (display).
"""

import contextlib
import heapq
import itertools
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from dkist_processing_core import budget, semconv
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.events import (
    Cause,
    RecipeRunFailureMessage,
    Reporter,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.identity import LOCAL, Attempt, Run, new_run_id, parse_recipe_run_id
from dkist_processing_core.identity.trace_context import derived_trace_id
from dkist_processing_core.journal.notes import ENDED, SUCCEEDED
from dkist_processing_core.launcher import assignment
from dkist_processing_core.launcher.bootstrap import locate, refuse_while_loading
from dkist_processing_core.launcher.end import SOFTWARE, USAGE
from dkist_processing_core.launcher.termination import GRACE_SECONDS
from dkist_processing_core.local import child
from dkist_processing_core.local.display import Display, SilentDisplay, open_display
from dkist_processing_core.local.outcomes import RunResult, TaskOutcome, TaskState
from dkist_processing_core.process.exit_status import LOST
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.process.signals import held_back
from dkist_processing_core.process.termination import TerminationError, raised_as_exception
from dkist_processing_core.reporter import EventReporter, never_breaking
from dkist_processing_core.settings.origin import read_from
from dkist_processing_core.text import show, whole_number
from dkist_processing_core.text.exception_text import stack_of
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.tracing import Carrier, Telemetry, derived_span, open_telemetry, run_parent

if TYPE_CHECKING:
    import subprocess

    from dkist_processing_core.node import Node
    from dkist_processing_core.workflow import Workflow

TERMINATION_SECONDS = GRACE_SECONDS + 0.6
"""How long a launcher may take after a termination request: it kills its task, and lives a moment longer."""
_LAST_SECONDS = 0.2
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 0.05
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Exit statuses of a launcher that has not reported the end of its task.
_UNREPORTED = (SOFTWARE, USAGE)
logger = logging.getLogger(__name__)


def run_workflow(
    workflow: "Workflow", recipe_run_id: int | str, *, max_parallel: int | None = None, environments: bool = False
) -> RunResult:
    """Run a workflow on this host; see `Workflow.run`."""
    refuse_while_loading(f"{workflow.workflow_name}.run()")
    if not workflow.nodes:
        msg = f"{workflow.workflow_name} has no tasks to run"
        raise WorkflowError(msg)
    settings = DKISTProcessingCoreConfiguration.read()
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


@dataclass(slots=True)
class _Progress:
    """The state of one node."""

    node: "Node"
    outcome: TaskOutcome
    ready_since: float = 0.0


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of an attempt's process."""

    attempt: Attempt
    exit_code: int | None
    """The exit status of its process; None where it is lost."""
    duration_seconds: float
    is_reported: bool
    """Whether the launcher has reported its end."""


class LocalRun:
    """One run of a workflow: a loop in the calling thread, and a thread for each task that runs."""

    def __init__(
        self,
        workflow: "Workflow",
        run: Run,
        settings: DKISTProcessingCoreConfiguration,
        max_parallel: int,
        *,
        environments: bool = False,
    ) -> None:
        """
        Take the workflow and the run; nothing is started yet.

        With `environments` each task runs in an environment that holds the release of the workflow's package and
        version.
        """
        self._environments = environments
        self._workflow = workflow
        self._run = run
        self._settings = settings
        self._max_parallel = max_parallel
        self._telemetry: Telemetry = open_telemetry(settings)
        self._reporter = EventReporter(Reporter.ENGINE, run)
        self._display: Display = SilentDisplay()
        self._progress = {
            node.name: _Progress(node, TaskOutcome(TaskState.NO_STATUS)) for node in workflow.topological_sort()
        }
        # Each entry stays there until `_book` has recorded it: an interrupt may come between any two steps.
        self._ended: deque[_Ended] = deque()
        self._has_ended = SignalSafeFlag()
        # The attempt that is called in this thread, with its start time; or the attempt whose process it follows.
        self._called_here: tuple[Attempt, float] | None = None
        self._followed_here: tuple[Attempt, subprocess.Popen[bytes], float] | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._running: set[str] = set()
        self._due: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self._is_stopping = False
        self._pid = os.getpid()

    def execute(self) -> RunResult:
        """Run every task that can be run, and return the outcome of each."""
        began, started_at = time.monotonic(), datetime.now(UTC)
        with never_breaking("the run's events are not published"):
            self._reporter.publisher = Publisher.open(
                self._settings,
                tracer=self._telemetry.tracer_if_tracing,
                poll_seconds=_POLL_SECONDS,
                wait_limit=budget.LOCAL_ENGINE.journal,
            )
        observing = contextlib.ExitStack()
        span: Span = trace.INVALID_SPAN
        try:
            with never_breaking("the run is not traced"):
                attributes = semconv.run_attributes(self._run)
                span = observing.enter_context(self._open_span(attributes))
                self._reporter.carrier = Carrier.of(span.get_span_context())
                observing.enter_context(self._telemetry.log_records(attributes))
            with never_breaking("the run is not shown"):
                self._display = observing.enter_context(open_display(self._run, list(self._progress), self._settings))
            self._reporter.report(WorkflowStarted, started_at=started_at, graph=self._workflow.graph)
            try:
                self._loop()
            finally:
                if os.getpid() != self._pid:
                    # A fork of a task that ran in this process is about to exit: only its parent reports the run.
                    os._exit(1)
                with held_back(interrupts=True) as held:
                    self._stop_everything(held)
                    result = RunResult(self._run.run_id, {name: p.outcome for name, p in self._progress.items()})
                    self._report_end(result, ended_at=datetime.now(UTC), duration_seconds=time.monotonic() - began)
                self._show(lambda display: display.run_ended(succeeded=result.succeeded))
                self._conclude(span, observing, succeeded=result.succeeded)
        finally:
            self._reporter.close(self._telemetry, self._settings.event_flush_timeout * budget.LOCAL_ENGINE.bus)
        return result

    def _report_end(self, result: RunResult, **facts: Any) -> None:
        self._reporter.report(
            WorkflowFinished if result.succeeded else WorkflowFailed,
            tasks={name: outcome.state.value for name, outcome in result.items()},
            **facts,
        )

    def _open_span(self, attributes: dict[str, Any]) -> contextlib.AbstractContextManager[Span]:
        outer = run_parent(self._run, os.environ)
        is_outermost = outer.trace_id == derived_trace_id(self._run)
        own = derived_span(outer, self._run)
        return self._telemetry.root_span(
            self._run.workflow_name, None if is_outermost else outer, own, SpanKind.SERVER, attributes
        )

    def _conclude(self, span: Span, observing: contextlib.ExitStack, *, succeeded: bool) -> None:
        """End the run's span and the display; an error in this does not change the result."""
        with never_breaking("the run's span has no end"):
            span.set_attribute(semconv.PIPELINE_RESULT, semconv.SUCCESS if succeeded else semconv.FAILURE)
            if not succeeded:
                span.set_status(Status(StatusCode.ERROR))
        # The display also shows an interrupt that is being raised.
        error = sys.exc_info()

        def end(_: Display) -> None:
            observing.__exit__(*error)

        self._show(end)

    # The engine's loop

    def _loop(self) -> None:
        for name in self._progress:
            if not self._progress[name].node.upstreams:
                self._schedule_first(name)
        while self._due or self._running or self._ended:
            self._start_what_is_due()
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due and self._has_room else None
            self._settle_next(wait)

    def _settle_next(self, seconds: float | None) -> bool:
        """Settle the next attempt that has ended; return False if none has within `seconds`."""
        if not self._ended:
            self._has_ended.wait(seconds)
        self._has_ended.lower()
        if not self._ended:
            return False
        self._settle(self._ended[0])
        return True

    @property
    def _has_room(self) -> bool:
        return len(self._running) < self._max_parallel

    def _schedule_first(self, name: str) -> None:
        task = self._progress[name].node.task
        self._schedule(Attempt(self._run, name, attempt=1, max_attempts=task.retries + 1), after=0.0)

    def _schedule(self, attempt: Attempt, after: float) -> None:
        due = time.monotonic() + after
        self._progress[attempt.task_name].ready_since = due
        heapq.heappush(self._due, (due, next(self._order), attempt))

    def _start_what_is_due(self) -> None:
        while self._due and self._has_room and self._due[0][0] <= time.monotonic():
            attempt = self._due[0][2]
            progress = self._progress[attempt.task_name]
            located = locate(progress.node.task)
            queued_seconds = max(0.0, time.monotonic() - progress.ready_since)
            environ = None if located is None else located | self._launch_environ(progress.node, queued_seconds)
            self._show(lambda display: display.attempt_started(attempt))  # noqa: B023 - called now
            with held_back(interrupts=True):
                heapq.heappop(self._due)
                is_followed = environ is not None and self._follow_in_thread(attempt, environ)
            if environ is None:
                self._call_here(attempt, progress.node, queued_seconds)
            elif not is_followed:
                # Too many threads, or an interpreter that is about to exit: tasks run one after another.
                self._run_process(attempt, environ, is_here=True)

    def _follow_in_thread(self, attempt: Attempt, environ: dict[str, str]) -> bool:
        """Run an attempt's process in a separate thread, and return True if a thread could be started."""
        thread = threading.Thread(target=self._run_process, args=(attempt, environ), daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._running.add(attempt.task_name)
            return True
        return False

    def _settle(self, ended: _Ended) -> None:
        """
        Report and record the end of an attempt and its consequences.

        If an interrupt comes before the end is recorded, this is done again; the events have the same ids then.
        """
        attempt, name = ended.attempt, ended.attempt.task_name
        succeeded = ended.exit_code == 0 or self._is_reported_as_success(attempt)
        is_over = succeeded or attempt.is_final or self._is_stopping
        if not (succeeded or ended.is_reported):
            self._report_failure(ended)
        if is_over and not succeeded:
            self._announce_failure(name)
        with held_back(interrupts=True):
            given_up = self._book(ended, succeeded=succeeded, is_over=is_over)
        self._show(
            lambda display: display.attempt_ended(
                attempt, succeeded=succeeded, exit_code=ended.exit_code, seconds=ended.duration_seconds
            )
        )
        for follower in given_up:
            self._show(lambda display: display.task_given_up(follower))  # noqa: B023 - called now

    def _book(self, ended: _Ended, *, succeeded: bool, is_over: bool) -> list[str]:
        """Record the outcome, schedule the next attempts, and return the tasks that are given up."""
        self._ended.remove(ended)
        attempt, name = ended.attempt, ended.attempt.task_name
        progress = self._progress[name]
        self._running.discard(name)
        self._processes.pop(name, None)
        spent = progress.outcome.duration_seconds + ended.duration_seconds
        if not is_over:
            progress.outcome = TaskOutcome(TaskState.NO_STATUS, attempt.attempt, spent)
            self._schedule(replace(attempt, attempt=attempt.attempt + 1), after=progress.node.task.retry_delay_seconds)
            return []
        progress.outcome = TaskOutcome(TaskState.SUCCESS if succeeded else TaskState.FAILED, attempt.attempt, spent)
        if not succeeded:
            return self._give_up_downstreams(name)
        self._release_downstreams(name)
        return []

    def _is_reported_as_success(self, attempt: Attempt) -> bool:
        """Return True if the launcher has reported a success, which outranks the launcher's exit status."""
        return self._is_noted(SUCCEEDED + attempt.key)

    def _is_noted(self, note: str) -> bool:
        with never_breaking("what was reported of a task is not known"):
            publisher = self._reporter.publisher
            return publisher is not None and publisher.remembers(note)
        return False

    def _release_downstreams(self, name: str) -> None:
        for follower, progress in self._progress.items():
            upstreams = progress.node.upstream_names
            if name in upstreams and all(self._progress[each].outcome.succeeded for each in upstreams):
                self._schedule_first(follower)

    def _give_up_downstreams(self, name: str) -> list[str]:
        failed, given_up = {name}, []
        # The nodes are in dependency order, so one pass reaches all of them.
        for follower, progress in self._progress.items():
            if failed.intersection(progress.node.upstream_names):
                failed.add(follower)
                if progress.outcome.state is TaskState.NO_STATUS:
                    progress.outcome = TaskOutcome(TaskState.UPSTREAM_FAILED)
                    given_up.append(follower)
        return given_up

    def _stop_everything(self, held: held_back) -> None:
        """Send termination requests to running launchers, skip the wait at another interrupt, and kill the rest."""
        self._is_stopping = True
        self._due.clear()
        if self._called_here is not None:
            # This call was interrupted, possibly after the task had ended.
            attempt, began = self._called_here
            is_finished = self._is_noted(f"{ENDED}{attempt.start_id}/{TaskFinished.name}")
            self._note_end_here(_Ended(attempt, int(not is_finished), time.monotonic() - began, is_reported=False))
        # Following the process in this thread was interrupted too, and its launcher lives.
        steps = iter(()) if self._followed_here is None else self._follow(*self._followed_here)
        deadline = time.monotonic() + TERMINATION_SECONDS
        # A launcher kills its task at the second request; if the launcher is killed, its guard kills the task.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self._signal_all(number)
            while (self._running or self._ended) and not held.take(_INTERRUPTS):
                next(steps, None)
                left = max(0.0, deadline - time.monotonic())
                if not self._settle_next(min(left, _LOOK_SECONDS)) and not left:
                    deadline = time.monotonic() + _LAST_SECONDS
                    break

    def _signal_all(self, number: signal.Signals) -> None:
        for process in list(self._processes.values()):
            self._signal(process, number)

    def _signal(self, process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
        with never_breaking(f"{number.name} is not sent to a task"):
            child.send_signal(process, number)

    # One attempt

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        carrier = self._reporter.carrier.to_environ() if self._reporter.carrier else {}
        return attempt.to_environ() | carrier | self._settings.core_origin.to_environ()

    def _launch_environ(self, node: "Node", queued_seconds: float) -> dict[str, str]:
        environ = {
            assignment.QUEUE: node.resource_queue.value,
            assignment.QUEUED_AT: repr(time.time() - queued_seconds),
            assignment.DELIVERED: "1",
        }
        if self._environments:
            requirement = node.requirement
            environ |= {assignment.PACKAGE: requirement.name, assignment.EXTRAS: ",".join(requirement.extras)}
        return environ

    def _run_process(self, attempt: Attempt, environ: dict[str, str], *, is_here: bool = False) -> None:
        """Run an attempt's process to its end, in its own thread or `is_here`, in the thread that interrupts reach."""
        began = time.monotonic()
        # No interrupt comes between the start of the process and its registration.
        with held_back(interrupts=True):
            try:
                process = child.start({**self._environment(attempt), **environ})
            except Exception as error:  # noqa: BLE001 - whatever it is, the attempt is over
                logger.error("%s cannot be started: %s", attempt.task_name, error)  # noqa: TRY400 - one line reports it
                self._note_end(_Ended(attempt, SOFTWARE, time.monotonic() - began, is_reported=False))
                return
            self._processes[attempt.task_name] = process
            if is_here:
                self._running.add(attempt.task_name)
                self._followed_here = attempt, process, began
        if self._is_stopping:
            self._signal(process, signal.SIGTERM)
        try:
            for _ in self._follow(attempt, process, began):
                pass
        except BaseException:
            if not is_here:
                # The main thread waits for this entry.
                self._note_end(_Ended(attempt, None, time.monotonic() - began, is_reported=False))
            raise

    def _follow(self, attempt: Attempt, process: "subprocess.Popen[bytes]", began: float) -> Iterator[None]:
        """Show a launcher's output until it ends, in steps, and note its end, even if reading or showing fails."""
        exit_code = None
        with never_breaking(f"the output of {attempt.task_name} is not shown"):
            for lines in child.output_of(process):
                if lines:
                    self._show(lambda display: display.output(attempt.task_name, lines))  # noqa: B023 - called now
                yield
        with never_breaking(f"the output of {attempt.task_name} is not read any more"):
            child.drop_output(process)
        with never_breaking(f"the status of the launcher of {attempt.task_name} is not known"):
            exit_code = child.wait(process)
        is_reported = exit_code is not None and exit_code >= 0 and exit_code not in _UNREPORTED
        with held_back(interrupts=True):
            self._note_end(_Ended(attempt, exit_code, time.monotonic() - began, is_reported))
            if self._followed_here is not None and self._followed_here[0] is attempt:
                self._followed_here = None

    def _note_end(self, ended: _Ended) -> None:
        self._ended.append(ended)
        self._has_ended.raise_()

    def _show(self, what: Callable[[Display], None]) -> None:
        """Call `what` with the display; an error ends the display, since it must not stop the run."""
        with held_back():
            try:
                what(self._display)
            except TerminationError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - rich leaves by SystemExit at a closed pipe
                self._display = SilentDisplay()
                logger.warning("the run is no longer shown: %s", error)

    def _call_here(self, attempt: Attempt, node: "Node", queued_seconds: float) -> None:
        """Run a task that no other process can load, such as one defined at a prompt, in this process and thread."""
        self._reporter.about(attempt).report(
            TaskDispatched,
            queue=node.resource_queue.value,
            worker=platform.node(),
            queued_seconds=queued_seconds,
        )
        began = time.monotonic()
        attempt = replace(attempt, start_id=os.urandom(8).hex())
        self._called_here = attempt, began
        exit_code = 1
        environ = self._environment(attempt)
        before = {name: os.environ.get(name) for name in environ}
        os.environ.update(environ)
        try:
            run = self._run
            # The author's code may change the settings' sources, and the run's journal must stay the same.
            with (
                read_from(self._settings.core_origin),
                node.task(run.recipe_run_id or 0, run.workflow_name, run.workflow_version) as task,
            ):
                task()
            exit_code = 0
        except TerminationError:
            raise
        except SystemExit as error:
            exit_code = error.code if isinstance(error.code, int) and error.code else 1
        except Exception as error:  # noqa: BLE001 - it is the task's
            # Formatted here: the logging module fails at exceptions that cannot be formatted.
            logger.error("%s failed\n%s", node.name, redact(stack_of(error)).rstrip("\n"))  # noqa: TRY400 - as above
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        self._note_end_here(_Ended(attempt, exit_code, time.monotonic() - began, is_reported=False))

    def _note_end_here(self, ended: _Ended) -> None:
        with held_back(interrupts=True):
            self._note_end(ended)
            self._called_here = None

    # Publishing

    def _report_failure(self, ended: _Ended) -> None:
        """Report a failure as the engine sees it, provisionally: the launcher is gone and may not have reported it."""
        code = ended.exit_code
        reason = f"of its launcher {LOST}" if code is None else "its launcher was killed" if code < 0 else None
        self._reporter.about(ended.attempt).report(
            TaskFailed,
            provisional=True,
            final=ended.attempt.is_final,
            duration_seconds=ended.duration_seconds,
            cause=Cause.EXIT_CODE if reason is None else Cause.LOST,
            message=reason,
            exit_code=None if code is None or code < 0 else code & 0xFF,
        )

    def _announce_failure(self, name: str) -> None:
        run = self._run
        self._reporter.announce(
            RecipeRunFailureMessage(
                workflow_name=run.workflow_name,
                workflow_version=run.workflow_version,
                task_name=name,
                dag_run_id=run.run_id,
            )
        )
