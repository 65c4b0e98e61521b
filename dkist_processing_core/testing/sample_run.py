"""
The events of a run, as its reporters would report them: a test states what happens, and gets the reports.

It is long, since it has a method for each thing that can happen to a task. Not here: runs that are ready to use
(sample_runs).
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    Reporter,
    Resources,
    TaskDispatched,
    TaskEnd,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskSampled,
    TaskSkipped,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
    identity_of,
)
from dkist_processing_core.identity import BY_HAND, Attempt, Run, new_run_id
from dkist_processing_core.identity.trace_context import (
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
    format_traceparent,
)
from dkist_processing_core.testing.fixed import FixedClock
from dkist_processing_core.testing.sample_event import EXCEPTION

_EventT = TypeVar("_EventT", bound=Event)
_TASKS = ("ParseL0", "Calibrate", "WriteL1")
_STEP_SECONDS = 1.0
_HOST = "worker1"
_SAMPLE_SECONDS = 30.0
_RESOURCES = Resources(
    cpu_user_seconds=1.75,
    cpu_system_seconds=0.25,
    peak_rss=184_000_000,
    rchar=200_000_000,
    wchar=1_500_000,
    read_bytes=200_000_000,
    write_bytes=1_500_000,
    processes=2,
    threads=5,
    open_files=16,
    memory_limit_bytes=2_000_000_000,
    cpu_limit=2.0,
)
_PROFILE = ((1.0, 120_000_000, 0.5, 200_000_000.0, 0.0), (2.5, 184_000_000, 1.0, 0.0, 1_000_000.0))
_SECONDS = _PROFILE[-1][0]
# Of an attempt that is killed, and of one that goes on.
_SECONDS_OF_KILLED = 0.3
_RESOURCES_OF_KILLED = msgspec.structs.replace(
    _RESOURCES,
    cpu_user_seconds=0.2,
    cpu_system_seconds=0.1,
    rchar=40_000_000,
    read_bytes=40_000_000,
    wchar=1_000_000,
    write_bytes=1_000_000,
)
_PROFILE_OF_KILLED = ((0.1, 120_000_000, 1.0, 400_000_000.0, 0.0), (0.3, 184_000_000, 1.0, 0.0, 5_000_000.0))
_RESOURCES_OF_SAMPLE = msgspec.structs.replace(
    _RESOURCES, cpu_user_seconds=0.4, cpu_system_seconds=0.1, wchar=0, write_bytes=0
)
_TOP_FRAME = "calibrate.py:40 in fit"
_LAST = {
    "last_stack": f'Thread "MainThread":\n  {_TOP_FRAME}\n  calibrate.py:12 in run',
    "last_stack_age_seconds": 0.2,
    "last_log": "frame 3 is read\nframe 4 is read",
    "last_log_age_seconds": 0.1,
    "last_phase": "run",
    "last_phase_age_seconds": 0.25,
    "last_progress": "4/12 frame",
    "last_progress_age_seconds": 0.15,
}


class SampleRun:
    """
    One run of a workflow. Each call lets something happen in it, and appends its reports to `events`.

    A run of an engine has the reports of the engine, the launcher and the task, with those that Airflow adds: a
    provisional report for each failed attempt, and the state of each task at the end.
    """

    def __init__(
        self,
        workflow_name: str = "l0_to_l1_visp",
        *,
        workflow_version: str = "2.16.3",
        tasks: Iterable[str] = _TASKS,
        edges: Iterable[tuple[str, str]] | None = None,
        recipe_run_id: int = 1234,
        run_id: str | None = None,
        max_attempts: int = 1,
        is_by_hand: bool = False,
        clock: FixedClock | None = None,
    ) -> None:
        """
        Start without an event.

        Args:
            workflow_name: The name of the workflow.
            workflow_version: Its version.
            tasks: The names of its tasks, in dependency order.
            edges: Pairs of an upstream and a downstream task; by default each task depends on the one before.
            recipe_run_id: The recipe run.
            run_id: The id of the run; by default one of Airflow, or of a run by hand.
            max_attempts: How many attempts each task may have.
            is_by_hand: Whether the tasks are called directly: then they alone report.
            clock: Gives the events their times, and is advanced by a second for each; by default a clock of its own.
        """
        self.clock = clock or FixedClock()
        self.tasks = tuple(tasks)
        self.edges = tuple(zip(self.tasks, self.tasks[1:], strict=False)) if edges is None else tuple(edges)
        if run_id is None:
            by_hand = new_run_id(BY_HAND, recipe_run_id, self.clock.now)[:-8] + "00000001"
            run_id = by_hand if is_by_hand else f"manual__{self.clock.now.isoformat()}"
        self.run = Run(workflow_name, workflow_version, run_id, recipe_run_id)
        self.max_attempts = max_attempts
        self.is_by_hand = is_by_hand
        self.states: dict[str, str] = {}
        """The engine's state of each task that has ended."""
        self.events: list[Event] = []
        """The reports, in the order in which they were made."""
        self._attempts: dict[str, int] = {}
        self._started_at = self.clock.now

    def report(self, event_class: type[_EventT], task_name: str | None = None, /, **facts: Any) -> _EventT:
        """
        Append one report, and advance the clock by a second.

        Args:
            event_class: The class of the event.
            task_name: The task, for an event about its current attempt.
            facts: Fields of the event; `reported_by` is the engine for a run and the task for an attempt by default.
        """
        run_span = derived_run_span_id(self.run)
        subject: Run | Attempt = self.run
        if task_name is not None:
            number = self._attempts.setdefault(task_name, 1)
            subject = Attempt(self.run, task_name, number, max(self.max_attempts, number))
        span = run_span if isinstance(subject, Run) else derived_attempt_span_id(subject)
        common = {
            "time": self.clock.now,
            "reported_by": Reporter.ENGINE if task_name is None else Reporter.TASK,
            "traceparent": format_traceparent(derived_trace_id(self.run), span),
        }
        event = event_class(**common | identity_of(subject) | facts)
        self.events.append(event)
        self.clock.advance(_STEP_SECONDS)
        return event

    def start(self) -> None:
        """The engine starts the run."""
        self._started_at = self.clock.now
        if not self.is_by_hand:
            graph = Graph(nodes=self.tasks, edges=self.edges)
            self.report(WorkflowStarted, started_at=self._started_at, graph=graph)

    def next_attempt(self, task_name: str) -> int:
        """Let further reports on a task be about its next attempt, and return the number of this attempt."""
        self._attempts[task_name] = number = self._attempts.get(task_name, 0) + 1
        return number

    def begin(self, task_name: str) -> None:
        """The next attempt of a task reaches a worker and starts."""
        self.next_attempt(task_name)
        launcher = Reporter.TASK if self.is_by_hand else Reporter.LAUNCHER
        if not self.is_by_hand:
            self.report(
                TaskDispatched,
                task_name,
                reported_by=Reporter.ENGINE,
                queue="default",
                worker=_HOST,
                queued_seconds=0.5,
            )
        facts: dict[str, Any] = {} if self.is_by_hand else {"environment": "reused", "sample_seconds": _SAMPLE_SECONDS}
        self.report(TaskStarted, task_name, reported_by=launcher, host=_HOST, pid=4711, **facts)

    def progress(self, task_name: str, done: int, total: int) -> None:
        """The current attempt of a task reports progress."""
        self.report(TaskProgressed, task_name, sequence=done, done=done, total=total, unit="frame")

    def sample(self, task_name: str, sequence: int = 0) -> TaskSampled:
        """The launcher of the current attempt of a task reports that it is alive, and what it uses."""
        now = {"rss": 180_000_000, "processes": 1, "threads": 4, "open_files": 12}
        return self.report(
            TaskSampled,
            task_name,
            reported_by=Reporter.LAUNCHER,
            sequence=sequence,
            host=_HOST,
            interval_seconds=_SAMPLE_SECONDS,
            resources=msgspec.structs.replace(_RESOURCES_OF_SAMPLE, **now),
            top_frame=_TOP_FRAME,
        )

    def finish(self, task_name: str) -> TaskFinished:
        """The current attempt of a task succeeds."""
        self.states[task_name] = "success"
        return self.report(TaskFinished, task_name, **self._measured)

    def succeed(self, task_name: str) -> TaskFinished:
        """A task has an attempt that succeeds."""
        self.begin(task_name)
        self.progress(task_name, 4, 4)
        return self.finish(task_name)

    def fail(self, task_name: str) -> TaskFailed:
        """A task has an attempt that fails by an exception; it is final if no attempt is left."""
        self.begin(task_name)
        event = self.report(TaskFailed, task_name, **EXCEPTION, **self._measured, final=self._is_last(task_name))
        self._fail_in_engine(task_name, Cause.EXIT_CODE, exit_code=1)
        return event

    def kill(self, task_name: str) -> TaskFailed:
        """A task has an attempt whose process is killed, which its launcher reports with the last signs of the task."""
        self.begin(task_name)
        facts: dict[str, Any] = {"cause": Cause.SIGNAL, "signal": "SIGKILL", "final": self._is_last(task_name)}
        facts |= {"duration_seconds": _SECONDS_OF_KILLED, "resources": _RESOURCES_OF_KILLED}
        facts |= {"profile": _PROFILE_OF_KILLED, **_LAST}
        event = self.report(TaskFailed, task_name, reported_by=Reporter.LAUNCHER, **facts)
        self._fail_in_engine(task_name, Cause.EXIT_CODE, exit_code=137)
        return event

    def doubt(self, task_name: str) -> TaskFailed:
        """The engine reports a failure of the current attempt, which may be wrong."""
        return self.report(
            TaskFailed, task_name, reported_by=Reporter.ENGINE, provisional=True, cause=Cause.LOST, final=None
        )

    def lose(self, task_name: str) -> None:
        """A task has an attempt whose worker vanishes: nothing reports its end, until the engine ends the run."""
        self.begin(task_name)
        self.states[task_name] = "failed"

    def skip(self, task_name: str) -> TaskSkipped:
        """The engine passes a task over."""
        self.states[task_name] = "skipped"
        return self.report(
            TaskSkipped, task_name, reported_by=Reporter.ENGINE, provisional=True, reason="the branch was not taken"
        )

    def end(self) -> WorkflowFinished | WorkflowFailed | None:
        """The engine ends the run, with the state of each task; a task without a reported end is reported as lost."""
        if self.is_by_hand:
            return None
        has_failed = "failed" in self.states.values()
        rest = "upstream_failed" if has_failed else "success"
        states = {name: self.states.get(name, rest) for name in self.tasks}
        for name in [name for name, state in states.items() if state == "failed" and not self._has_end(name)]:
            self.report(
                TaskFailed,
                name,
                reported_by=Reporter.ENGINE,
                attempt=None,
                provisional=True,
                cause=Cause.LOST,
                message="the engine lost the task",
                final=True,
            )
        seconds = (self.clock.now - self._started_at) / timedelta(seconds=1)
        facts: dict[str, Any] = {"ended_at": self.clock.now, "duration_seconds": seconds, "tasks": states}
        if has_failed:
            return self.report(WorkflowFailed, reason="task_failure", **facts)
        return self.report(WorkflowFinished, **facts)

    @property
    def _measured(self) -> dict[str, Any]:
        return {
            "duration_seconds": _SECONDS,
            "phases": {"pre_run": 0.25, "run": 2.0},
        } | ({} if self.is_by_hand else {"resources": _RESOURCES, "profile": _PROFILE})

    def _is_last(self, task_name: str) -> bool:
        return self._attempts[task_name] >= self.max_attempts

    def _fail_in_engine(self, task_name: str, cause: Cause, **facts: Any) -> None:
        is_last = self._is_last(task_name)
        self.states[task_name] = "failed" if is_last else "up_for_retry"
        if not self.is_by_hand:
            final = None if is_last else False
            self.report(
                TaskFailed, task_name, reported_by=Reporter.ENGINE, provisional=True, cause=cause, final=final, **facts
            )

    def _has_end(self, task_name: str) -> bool:
        number = self._attempts.get(task_name)
        return any(
            isinstance(event, TaskEnd) and (event.task_name, event.attempt) == (task_name, number)
            for event in self.events
        )
