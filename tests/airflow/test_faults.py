"""
Every way in which an attempt or a run can end on a real Airflow, provoked for real and folded from the events on the
bus.

The table that is printed at the end has a row for each: the cause, who reported the end first, how many seconds after
the fault it was on the bus, and which reports differ. Not here: how a launcher reports a task's end (test_faults.py of
the suite above).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dkist_processing_core.events import Cause, Reporter, TaskDispatched, TaskFailed, TaskFinished, TaskSkipped
from dkist_processing_core.identity.trace_context import derived_trace_id, parse_traceparent
from dkist_processing_core.runs import AttemptView, State, TaskView
from tests.airflow.ground import ENDS_OF_RUN, SECONDS, Ground
from tests.waiting import wait_until


@dataclass
class Row:
    """
    One line of the table.
    """

    fault: str
    outcome: str
    first: str
    seconds: float
    otherwise: str


rows: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def _table(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Print the table when its last row is complete.
    """
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(f"\n{'fault':44} {'outcome':24} {'first':9} {'s':>6}  said otherwise")  # noqa: T201 - the table
        for row in sorted(rows, key=lambda each: each.fault):
            print(f"{row.fault:44} {row.outcome:24} {row.first:9} {row.seconds:6.2f}  {row.otherwise}")  # noqa: T201 - too


@dataclass
class Run:
    """
    A run of one of the workflows of faults, and when its fault was provoked.
    """

    ground: Ground
    dag_id: str
    task: str
    number: int
    run_id: str = ""
    began: float = field(default_factory=time.time)
    provoked: dict[int, float] = field(default_factory=dict)

    @property
    def notes(self) -> Path:
        """
        The note that the task writes when it has started.
        """
        return self.ground.folder / f"{self.task}-{self.number}"

    def wait_for_task(self) -> None:
        """
        Wait until the task runs.
        """
        wait_until(self.notes.exists, SECONDS)

    def kill(self, which: str) -> None:
        """
        Kill a process of the attempt.
        """
        processes = self.ground.airflow.wait_for_processes(self.dag_id, self.run_id, self.task)
        self.provoked[1] = time.time()
        os.kill(getattr(processes, which), signal.SIGKILL)

    def view(self) -> TaskView:
        """
        Return the task as all reports together describe it.
        """
        return next(task for task in self.ground.listener.view(self.run_id).tasks if task.name == self.task)

    def noted(self, number: int) -> float | None:
        """
        Return when an attempt was running, in seconds since 1970, or None if it never was.
        """
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return float(lines[number - 1].split()[0]) if len(lines) >= number else None

    def attempt(self, fault: str, number: int = 1) -> AttemptView:
        """
        Add a row to the table, and return one attempt, which is over and has one end.
        """
        task = self.view()
        attempt = task.attempts[number - 1]
        assert attempt.state.is_end
        assert attempt.end is not None
        arrival = self.ground.listener.first_end(self.run_id, self.task, number)
        moment = self.provoked.get(number) or self.noted(number) or self.began
        otherwise = [f"{end.reported_by}: {end.name}" for end in attempt.contradictions]
        if number == len(task.attempts) and task.engine_state not in (None, _ENGINES_WORD[attempt.state]):
            otherwise.append(f"engine at the end of the run: {task.engine_state}")
        rows.append(
            Row(
                fault,
                f"{attempt.state} {attempt.cause or ''}".strip(),
                arrival.event.reported_by.value,
                arrival.at - moment,
                ", ".join(otherwise),
            )
        )
        return attempt


_ENGINES_WORD = {State.FINISHED: "success", State.FAILED: "failed", State.SKIPPED: "skipped"}


@pytest.fixture(scope="module")
def runs(ground: Ground) -> dict[str, Run]:
    """
    The runs of all faults that do not affect Airflow itself, at once: most of their time is waiting.
    """

    def begin(workflow: str, task: str, version: str = "1.0") -> Run:
        return begun(ground, workflow, task, version)

    first = begin("succeeds", "Succeeds")
    ground.airflow.wait_for_run(first.dag_id, first.run_id, "success", "failed", seconds=SECONDS)
    found = {
        "finished and cleared": first,
        "exception": begin("raises", "Raises"),
        "cleared, fails again": begin("raises", "Raises"),
        "SIGKILL": begin("is_killed", "IsKilled"),
        "retry, then success": begin("fails_once", "FailsOnce"),
        "execution timeout": begin("overstays", "Overstays"),
        "skip": begin("is_skipped", "IsSkipped"),
        "no environment": begin("not_released", "Succeeds", "9.9"),
        "runner killed": begin("waits", "Waits"),
        "launcher killed": begin("waits", "Waits"),
        "marked failed": begin("waits", "Waits"),
        "marked success": begin("waits", "Waits"),
        "cleared while running": begin("waits", "Waits"),
        "run marked failed": begin("waits", "Waits"),
        "runner killed, retries left": begin("waits_twice", "WaitsTwice"),
    }
    ground.listener.wait_for_end(first.run_id)
    ground.airflow.clear(first.dag_id, first.run_id)
    for name, which in (
        ("runner killed", "runner"),
        ("runner killed, retries left", "runner"),
        ("launcher killed", "launcher"),
    ):
        found[name].wait_for_task()
        found[name].kill(which)
    for name, state in (("marked failed", "failed"), ("marked success", "success"), ("cleared while running", None)):
        run = found[name]
        run.wait_for_task()
        run.provoked[1] = time.time()
        if state is None:
            ground.airflow.clear(run.dag_id, run.run_id, [run.task])
        else:
            ground.airflow.mark_task(run.dag_id, run.run_id, run.task, state)
    marked = found["run marked failed"]
    marked.wait_for_task()
    marked.provoked[1] = time.time()
    ground.airflow.mark_run(marked.dag_id, marked.run_id, "failed")
    ground.listener.wait_for(marked.run_id, "task.failed")
    for run in found.values():
        ground.airflow.wait_for_run(run.dag_id, run.run_id, "success", "failed", seconds=SECONDS)
        if run is not marked:
            ground.listener.wait_for_end(run.run_id)
    wait_until(lambda: ends_of(found["finished and cleared"]) == 2, SECONDS)
    again = found["cleared, fails again"]
    ground.airflow.clear(again.dag_id, again.run_id)
    wait_until(lambda: ends_of(again) == 2, SECONDS)
    return found


def begun(ground: Ground, workflow: str, task: str, version: str = "1.0") -> Run:
    """
    Start a run with a new recipe run.
    """
    run = Run(ground, f"faulty_{workflow}_{version}", task, ground.next_number())
    ground.airflow.wait_for_dag(run.dag_id)
    run.run_id = ground.airflow.trigger(run.dag_id, {"recipe_run_id": run.number})
    return run


def ends_of(run: Run) -> int:
    """
    Return the number of ends of a run that Airflow has reported; each may arrive more than once.
    """
    return len({event.id for event in run.ground.listener.of(run.run_id) if event.name in ENDS_OF_RUN})


def counts_of_messages(fault: str, seconds: float) -> set[int]:
    """
    Return how many failure messages an attempt may have that was reported so long after the cause.

    If an attempt was marked, Airflow's runner requests its end, and calls back only if the launcher ends within five
    seconds, which a busy machine may not allow.
    """
    return {0, 1} if "marked failed" in fault and seconds > 3.0 else {1}


@pytest.fixture(scope="module")
def announced(runs: dict[str, Run]) -> list[str]:
    """
    The run ids of the failure messages of all these runs.
    """
    assert runs
    some = next(iter(runs.values()))
    return some.ground.listener.announced()


FAILED: dict[str, tuple[str, dict[str, object]]] = {
    "exception": ("exception", {"error_type": "ArithmeticError", "message": "wanted", "phase": "run"}),
    "SIGKILL": ("signal", {"signal": "SIGKILL"}),
    "execution timeout": ("timeout", {"signal": "SIGTERM"}),
    "no environment": ("environment", {}),
    "runner killed": (
        "lost",
        {"message": "the process that ran the workflow (the script, or Airflow's task runner) ended"},
    ),
    "launcher killed": ("lost", {"message": "its launcher died"}),
    "marked failed": ("terminated", {"signal": "SIGTERM"}),
}


@pytest.mark.parametrize("fault", FAILED)
def test_a_failed_attempt_has_one_end_with_its_cause(fault: str, runs: dict[str, Run], announced: list[str]) -> None:
    """
    The nearest reporter gives the cause, which is confirmed; the run has failed, and one failure message reports it.
    """
    run = runs[fault]
    cause, facts = FAILED[fault]
    attempt = run.attempt(fault)

    assert isinstance(attempt.end, TaskFailed)
    facts_of_end = (attempt.cause, attempt.end.provisional, attempt.end.final)
    assert facts_of_end == (cause, False, True), run.ground.listener.of(run.run_id)
    assert {name: getattr(attempt.end, name) for name in facts} == facts
    assert attempt.contradictions == ()
    assert run.ground.listener.view(run.run_id).verdict is State.FAILED
    assert announced.count(run.run_id) in counts_of_messages(fault, rows[-1].seconds)


def test_a_run_that_is_marked_failed_has_its_tasks_ends_alone(runs: dict[str, Run], announced: list[str]) -> None:
    """
    Airflow calls no callback at the end of such a run, so the end of the run is not reported.
    """
    run = runs["run marked failed"]
    attempt = run.attempt("run marked failed")

    assert (attempt.state, attempt.cause) == (State.FAILED, Cause.TERMINATED)
    assert ends_of(run) == 0
    assert announced.count(run.run_id) in counts_of_messages("run marked failed", rows[-1].seconds)


def test_what_waits_for_a_failed_task_is_not_run(runs: dict[str, Run]) -> None:
    """
    Only the end of the run reports it.
    """
    run = runs["exception"]
    follower = next(task for task in run.ground.listener.view(run.run_id).tasks if task.name == "Follows")
    told = next(
        arrival
        for arrival in run.ground.listener.arrivals
        if (arrival.event.run_id, arrival.event.name) == (run.run_id, "workflow.failed")
    )
    rows.append(
        Row(
            "upstream failed",
            str(follower.state),
            told.event.reported_by.value,
            told.at - (run.noted(1) or run.began),
            "",
        )
    )

    assert (follower.state, follower.engine_state, follower.attempts) == (State.NOT_RUN, "upstream_failed", ())


def test_a_retry_is_an_attempt_of_its_own(runs: dict[str, Run], announced: list[str]) -> None:
    """
    The first attempt has failed and is not final; no failure is announced.
    """
    run = runs["retry, then success"]
    first, second = run.attempt("retry, then success: the first"), run.attempt("retry, then success: the second", 2)

    assert isinstance(first.end, TaskFailed)
    assert (first.cause, first.end.final, first.end.max_attempts) == (Cause.EXCEPTION, False, 2)
    assert isinstance(second.end, TaskFinished)
    assert announced.count(run.run_id) == 0


def test_a_killed_runner_with_retries_left_is_followed_by_an_attempt(
    runs: dict[str, Run], announced: list[str]
) -> None:
    """
    The kernel notifies the launcher, and Airflow tries again.
    """
    run = runs["runner killed, retries left"]
    first = run.attempt("runner killed, retries left: the first")
    second = run.attempt("runner killed, retries left: the second", 2)

    assert isinstance(first.end, TaskFailed)
    assert (first.cause, first.end.final, first.end.provisional) == (Cause.LOST, False, False)
    assert isinstance(second.end, TaskFinished)
    assert announced.count(run.run_id) == 0


def test_a_task_that_is_passed_over_is_skipped(runs: dict[str, Run]) -> None:
    """
    Only Airflow can report it.
    """
    attempt = runs["skip"].attempt("skip")

    assert isinstance(attempt.end, TaskSkipped)
    assert (attempt.end.provisional, attempt.reporters) == (True, (Reporter.ENGINE,))


def test_a_task_that_is_marked_a_success_was_ended_all_the_same(runs: dict[str, Run], announced: list[str]) -> None:
    """
    Airflow's state is shown in addition to the reported end, and its wrong callback announces no failure.
    """
    run = runs["marked success"]
    attempt = run.attempt("marked success")

    assert (attempt.state, attempt.cause) == (State.FAILED, Cause.TERMINATED)
    assert (run.view().engine_state, run.ground.listener.view(run.run_id).verdict) == ("success", State.FINISHED)
    assert announced.count(run.run_id) == 0


def test_a_task_that_is_cleared_while_it_runs_is_ended_and_runs_again(
    runs: dict[str, Run], announced: list[str]
) -> None:
    """
    Airflow reports the end of the first attempt twice, with different states; the fold has one end.
    """
    run = runs["cleared while running"]
    first = run.attempt("cleared while running: the first")
    second = run.attempt("cleared while running: the second", 2)

    assert (first.state, first.cause) == (State.FAILED, Cause.TERMINATED)
    assert isinstance(second.end, TaskFinished)
    assert announced.count(run.run_id) == 0


def test_a_run_that_is_cleared_begins_again(runs: dict[str, Run]) -> None:
    """
    The run has another start, each task a second attempt, and the run a second end.
    """
    run = runs["finished and cleared"]
    second = run.attempt("finished run cleared: the second attempt", 2)

    assert isinstance(second.end, TaskFinished)
    starts = {event.id for event in run.ground.listener.of(run.run_id) if event.name == "workflow.started"}
    assert len(starts) == 2
    assert [len(task.attempts) for task in run.ground.listener.view(run.run_id).tasks] == [2, 2]
    assert run.ground.listener.view(run.run_id).verdict is State.FINISHED


def test_a_task_that_fails_again_after_a_clear_is_announced_again(runs: dict[str, Run], announced: list[str]) -> None:
    """
    The new failure is news for the person who has cleared it.
    """
    run = runs["cleared, fails again"]
    second = run.attempt("failed, cleared, failed: the second attempt", 2)

    assert isinstance(second.end, TaskFailed)
    assert (second.cause, second.end.final) == (Cause.EXCEPTION, True)
    assert announced.count(run.run_id) == 2


def test_a_failure_is_told_once_by_each_reporter(runs: dict[str, Run]) -> None:
    """
    The end of the run reports only failures that no nearer reporter has reported.
    """
    for name, run in runs.items():
        unnumbered = [event for event in run.ground.listener.of(run.run_id) if getattr(event, "attempt", 0) is None]

        assert unnumbered == [], name


def test_a_run_is_one_trace_retries_and_clears_included(runs: dict[str, Run]) -> None:
    """
    Every report of every reporter names it.
    """
    for run in runs.values():
        events = run.ground.listener.of(run.run_id)
        spans = [parse_traceparent(event.traceparent or "") for event in events]

        assert {span[0] if span else None for span in spans} == {derived_trace_id(events[0].run)}


def test_every_reporter_is_heard(runs: dict[str, Run]) -> None:
    """
    Each reporter states the facts that only it can see.
    """
    run = runs["exception"]
    said = {(event.reported_by.value, event.name) for event in run.ground.listener.of(run.run_id)}

    assert said == {
        ("engine", "workflow.started"),
        ("engine", "task.dispatched"),
        ("launcher", "task.dispatched"),
        ("launcher", "task.started"),
        ("task", "task.failed"),
        ("engine", "task.failed"),
        ("engine", "workflow.failed"),
    }


def test_tasks_run_in_an_environment_without_airflow(runs: dict[str, Run]) -> None:
    """
    It was built from the wheels of the test's folder, and holds the library and its requirements.
    """
    run = runs["finished and cleared"]
    prefix = Path(run.notes.read_text().split()[1])

    assert run.ground.environments in prefix.parents
    assert list(prefix.glob("lib/python*/site-packages/pika"))
    assert not list(prefix.glob("lib/python*/site-packages/airflow"))
    dispatched = [event for event in run.ground.listener.of(run.run_id) if isinstance(event, TaskDispatched)]
    assert {event.queue for event in dispatched} == {"default"}


def interrupted(ground: Ground, interrupt: Callable[[Run], None]) -> Run:
    """
    Run a task that waits, disturb its surroundings, let it end, and return when the run's end is on the bus.
    """
    run = begun(ground, "waits", "Waits")
    run.wait_for_task()
    interrupt(run)
    ground.listener.wait_for_end(run.run_id)
    return run


def test_a_broker_that_is_down_for_the_whole_run_gets_all_of_it_afterwards(ground: Ground) -> None:
    """
    The run is not disturbed; events kept on the host arrive with the next publisher or by a command.
    """
    node = ground.broker.node
    node.stop()
    run = begun(ground, "succeeds", "Succeeds")
    state = ground.airflow.wait_for_run(run.dag_id, run.run_id, "success", "failed", seconds=SECONDS)["state"]
    wait_until(lambda: ground.is_kept("workflow.finished", run.run_id), SECONDS)
    node.start()
    began = run.provoked[1] = time.time()
    ground.drain()
    ground.listener.wait_for_end(run.run_id)

    assert state == "success"
    attempt = run.attempt("broker down for the whole run")
    assert isinstance(attempt.end, TaskFinished)
    assert [task.state for task in ground.listener.view(run.run_id).tasks] == [State.FINISHED] * 2
    assert time.time() - began < 300


def test_an_api_server_that_is_restarted_in_the_middle_changes_nothing(ground: Ground) -> None:
    """
    Task and launcher report the task's end; Airflow's report arrives when it can.
    """

    def restart(run: Run) -> None:
        ground.airflow.api_server.stop()
        run.provoked[1] = time.time()
        ground.release(run.number)
        wait_until(lambda: any(event.name == "task.finished" for event in ground.listener.of(run.run_id)), SECONDS)
        ground.airflow.start()

    run = interrupted(ground, restart)

    attempt = run.attempt("api-server restarted in the middle")
    assert isinstance(attempt.end, TaskFinished)
    # If the server is away for longer than the worker retries, Airflow marks the task failed, and no failure is
    # announced.
    assert all(end.reported_by is Reporter.ENGINE for end in attempt.contradictions)
    assert run.run_id not in ground.listener.announced()


def test_a_run_that_ends_while_the_dag_processor_is_down_ends_on_the_bus_when_it_is_back(ground: Ground) -> None:
    """
    The task's own end does not wait for it.
    """

    def outlive(run: Run) -> None:
        ground.airflow.dag_processor.stop()
        run.provoked[1] = time.time()
        ground.release(run.number)
        ground.airflow.wait_for_run(run.dag_id, run.run_id, "success", "failed", seconds=SECONDS)
        assert ends_of(run) == 0
        ground.airflow.start()

    run = interrupted(ground, outlive)

    attempt = run.attempt("dag-processor down at the run's end")
    assert isinstance(attempt.end, TaskFinished)
    assert ground.listener.view(run.run_id).verdict is State.FINISHED
