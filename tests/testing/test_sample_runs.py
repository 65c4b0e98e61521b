"""
Sample events and sample runs: realistic, and with the state that each shows.
"""

import itertools
from dataclasses import dataclass, field

import pytest

from dkist_processing_core import RunState
from dkist_processing_core.errors import EventError
from dkist_processing_core.events import (
    EVENT_CLASSES,
    Event,
    Reporter,
    TaskEnd,
    TaskFailed,
    TaskFinished,
    WorkflowStarted,
    decode,
    encode,
)
from dkist_processing_core.runs import RunView
from dkist_processing_core.testing import SAMPLE_RUNS, FixedClock, SampleRun, run_with_retry, sample_event


def view_of(run: SampleRun) -> RunView:
    """Return the state of a sample run."""
    (view,) = RunState(run.events).runs
    return view


@dataclass
class Shown:
    """What the reports of a sample run lead to."""

    run: str
    tasks: dict[str, str]
    attempts: list[str] = field(default_factory=list)
    """The states of the attempts of `Calibrate`."""


STATES = {
    "run_that_succeeds": Shown(
        "finished", {"ParseL0": "finished", "Calibrate": "finished", "WriteL1": "finished"}, ["finished"]
    ),
    "run_with_retry": Shown(
        "finished", {"ParseL0": "finished", "Calibrate": "finished", "WriteL1": "finished"}, ["failed", "finished"]
    ),
    "run_that_fails": Shown(
        "failed", {"ParseL0": "finished", "Calibrate": "failed", "WriteL1": "not run"}, ["failed", "failed"]
    ),
    "run_with_skipped_branch": Shown(
        "finished",
        {"ParseL0": "finished", "Polarimetric": "skipped", "Intensity": "finished", "WriteL1": "finished"},
    ),
    "run_with_killed_attempt": Shown(
        "finished", {"ParseL0": "finished", "Calibrate": "finished", "WriteL1": "finished"}, ["failed", "finished"]
    ),
    "run_with_wrong_report": Shown(
        "finished", {"ParseL0": "finished", "Calibrate": "finished", "WriteL1": "finished"}, ["finished"]
    ),
    "run_with_lost_task": Shown(
        "failed", {"ParseL0": "finished", "Calibrate": "failed", "WriteL1": "not run"}, ["failed"]
    ),
    "run_by_hand": Shown("finished", {"ParseL0": "finished", "Calibrate": "finished"}, ["failed", "finished"]),
}


@pytest.mark.parametrize("name", SAMPLE_RUNS)
def test_a_sample_run_has_the_state_that_it_shows(name: str) -> None:
    """Its reports are folded as those of a real run."""
    view = view_of(SAMPLE_RUNS[name]())

    expected = STATES[name]
    assert str(view.state) == expected.run
    assert {task.name: str(task.state) for task in view.tasks} == expected.tasks
    attempts = [str(each.state) for task in view.tasks if task.name == "Calibrate" for each in task.attempts]
    assert attempts == expected.attempts


@pytest.mark.parametrize("name", SAMPLE_RUNS)
def test_the_reports_of_a_sample_run_fit_together(name: str) -> None:
    """They are about one run and in one trace, one second apart, and each can be encoded."""
    run = SAMPLE_RUNS[name]()

    assert {event.run for event in run.events} == {run.run}
    assert len({(event.traceparent or "").split("-")[1] for event in run.events}) == 1
    times = [event.time for event in run.events]
    assert {(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)} == {1.0}
    assert [decode(encode(event), "application/cloudevents+json", {}) for event in run.events] == run.events


def test_a_killed_attempt_is_reported_by_its_launcher_and_doubted_by_the_engine() -> None:
    """Both reports have one id; the engine's is provisional."""
    run = SampleRun(max_attempts=2)
    run.kill("Calibrate")

    launcher, engine = [event for event in run.events if isinstance(event, TaskFailed)]

    assert launcher.id == engine.id
    assert [launcher.reported_by, engine.reported_by] == [Reporter.LAUNCHER, Reporter.ENGINE]
    assert [launcher.cause, launcher.signal, launcher.final] == ["signal", "SIGKILL", False]
    assert [launcher.provisional, engine.provisional] == [False, True]


def test_a_killed_attempt_has_its_last_signs_and_a_running_one_its_samples() -> None:
    """As the launcher reports them: what was used, where the task was, and what it had logged."""
    killed, sampled = view_of(SAMPLE_RUNS["run_with_killed_attempt"]()).tasks[1].attempts

    end, sample = killed.end, sampled.sample
    assert isinstance(end, TaskFailed)
    assert sample is not None
    assert sampled.end is not None
    assert [killed.sample, sample.sequence, sampled.sample_seconds] == [None, 1, 30.0]
    assert [sample.reported_by, sample.host] == [Reporter.LAUNCHER, "worker1"]
    assert None not in (end.last_stack, end.last_log, end.last_phase, end.last_progress, end.last_stack_age_seconds)
    assert None not in (end.resources, end.profile, sample.resources, sampled.end.resources, sampled.end.profile)


def test_a_lost_task_is_reported_without_an_attempt() -> None:
    """Airflow's report at the end of a run does not know the attempt."""
    run = SampleRun()
    run.lose("Calibrate")
    run.end()

    (report,) = [event for event in run.events if isinstance(event, TaskEnd)]

    assert [report.attempt, report.provisional, report.reported_by] == [None, True, Reporter.ENGINE]


def test_runs_may_share_a_clock_and_have_other_names() -> None:
    """So a test can interleave them; each keyword of a sample run is one of `SampleRun`."""
    clock = FixedClock()
    first, second = SampleRun(clock=clock), run_with_retry(clock=clock, workflow_name="other", run_id="two")
    first.start()

    (start,) = first.events
    assert isinstance(start, WorkflowStarted)
    assert start.time > second.events[-1].time
    assert second.events[0].source == "/workflows/other/2.16.3"


@pytest.mark.parametrize("event_class", EVENT_CLASSES)
def test_a_sample_event_is_complete(event_class: type[Event]) -> None:
    """Every class can be made with the facts alone that have no general value."""
    needed = {"sequence": 0, "limit_seconds": 60.0} if event_class.name == "task.overdue" else {}

    event = sample_event(event_class, **needed)

    assert event.name == event_class.name
    assert decode(encode(event), "application/cloudevents+json", {}) == event


def test_a_fact_that_a_test_states_replaces_the_sample_one() -> None:
    """The task may be given by position; a fact that does not fit is an error that names the field."""
    assert sample_event(TaskFinished, "WriteL1", attempt=3).subject.endswith("/WriteL1/3")
    assert sample_event(TaskFailed, cause="lost").summary == "lost"
    with pytest.raises(EventError, match="attempt"):
        sample_event(TaskFinished, attempt=0)
