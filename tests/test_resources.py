"""
What the events of an attempt state about its resources, and the signs of life of its launcher.

Not here: whether the numbers are right (test_sampling.py), and the signs of a killed task (test_recording.py).
"""

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dkist_processing_core import TaskBase, Workflow
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event, Resources, TaskEnd, TaskFailed, TaskSampled, TaskStarted
from dkist_processing_core.launcher._sample_times import SampleTimes
from dkist_processing_core.runs import State
from tests import launched
from tests.pace import here
from tests.test_faults import Launched, journal_rows, launch, marks, the_attempt  # noqa: F401 - a fixture
from tests.waiting import wait_until

MIB = 1024 * 1024
OVERDUE_AFTER = 1800.0


class IsBounded(TaskBase):
    """
    Counts as overdue after half an hour without a report.
    """

    overdue_after_seconds = 1800

    def run(self) -> None:
        """
        Do nothing.
        """


def reported() -> list[Event]:
    """
    Return the events in the journal; none before there is a journal.
    """
    path = open_bus(DKISTProcessingCoreConfiguration.read()).journal_path
    return [event for _, event in journal_rows()] if path.exists() else []


def samples() -> list[TaskSampled]:
    """
    Return the signs of life in the journal.
    """
    return [event for event in reported() if isinstance(event, TaskSampled)]


def run_alone(task: str, **variables: str) -> TaskEnd:
    """
    Launch a task, and return its end.
    """
    with launch(task, **variables) as launcher:
        launcher.wait()
    (end,) = [event for event in reported() if isinstance(event, TaskEnd)]
    return end


def test_the_end_that_a_task_reports_has_its_resources() -> None:
    """
    Its own totals, and what the launcher has measured: the processes and their peak.
    """
    end = run_alone("Succeeds")

    found = end.resources
    assert found is not None
    assert end.reported_by.value == "task"
    assert end.cpu_seconds == pytest.approx((found.cpu_user_seconds or 0) + (found.cpu_system_seconds or 0))
    assert 0.01 < (end.cpu_seconds or 0) < 60
    assert min(found.rchar or 0, found.syscr or 0, found.vol_ctxt or 0) > 0
    assert found.processes == 1
    assert (found.peak_rss or 0) >= (end.peak_memory_bytes or 0) > 5_000_000
    assert found.rss is None
    assert end.profile


def test_the_end_that_a_launcher_reports_has_the_resources_up_to_the_kill() -> None:
    """
    The totals of the kernel, and a profile that ends with the task.
    """
    end = run_alone("WorksHard")

    found = end.resources
    assert isinstance(end, TaskFailed)
    assert end.reported_by.value == "launcher"
    assert found is not None
    assert end.cpu_seconds == pytest.approx((found.cpu_user_seconds or 0) + (found.cpu_system_seconds or 0), abs=0.01)
    assert 100 * 1024**2 < (found.peak_rss or 0) < 400 * 1024**2
    assert (found.inv_ctxt or 0) + (found.vol_ctxt or 0) > 0
    assert end.profile
    assert max(point[1] for point in end.profile) > 100 * 1024**2
    assert end.profile[-1][0] == pytest.approx(end.duration_seconds, abs=0.5)
    assert sum(point[2] for point in end.profile) > 0


@pytest.mark.parametrize("task", [launched.Raises, launched.IsKilled], ids=lambda task: task.__name__)
def test_only_a_failure_that_the_task_did_not_report_has_its_last_signs(task: type[TaskBase]) -> None:
    """
    An exception has its stack; a killed task has the last one that was taken.
    """
    end = run_alone(task.__name__)

    assert isinstance(end, TaskFailed)
    assert (end.last_stack is None) == (end.cause == "exception")
    assert (end.last_phase is None) == (end.cause == "exception")
    assert (end.last_stack_age_seconds is None) == (end.last_stack is None)


@pytest.mark.parametrize(
    ("size", "seconds", "slack"),
    [(32 * MIB, 0.5, 0.3), pytest.param(200 * MIB, 5.0, 0.0, marks=pytest.mark.soak)],
    ids=["small", "full"],
)
def test_the_resources_of_an_end_are_those_of_the_work(size: int, seconds: float, slack: float) -> None:
    """
    Within five percent: the processor time as the task measured it, since a busy processor takes more for the same
    work, and the others beyond those of a task that does nothing.
    """
    idle = run_alone("Succeeds", DKIST_CORE_RUN_ID="manual__idle").resources
    with launch("UsesResources", USED_BYTES=str(size), USED_SECONDS=str(seconds)) as launcher:
        assert launcher.wait() == 0, launcher.lines
    (used,) = [event.resources for event in reported() if isinstance(event, TaskEnd) and event.run_id == "manual__1"]

    def beyond(name: str) -> float:
        return (getattr(used, name) or 0) - (getattr(idle, name) or 0)

    assert beyond("rchar") == pytest.approx(size, rel=0.05)
    assert beyond("wchar") == pytest.approx(size, rel=0.05)
    assert beyond("write_bytes") == pytest.approx(size, rel=0.05)
    assert beyond("peak_rss") == pytest.approx(200 * MIB, rel=0.05)
    assert used is not None
    computed = float((Path(os.environ["FAULT_MARKS"]) / "computed").read_text())
    assert computed > 2 * seconds
    assert (used.cpu_user_seconds or 0) + (used.cpu_system_seconds or 0) == pytest.approx(
        computed, rel=0.05, abs=here(slack)
    )
    assert used.processes == 3


def test_a_called_task_has_the_resources_of_its_call(state_dir: Path) -> None:  # noqa: ARG001 - where its journal is
    """
    Not those that its process has used before.
    """
    until = time.process_time() + 0.3
    while (before := time.process_time()) < until:
        pass

    launched.Succeeds(1, "called", "dev")()

    (end,) = [event for event in reported() if isinstance(event, TaskEnd)]
    assert isinstance(end.resources, Resources)
    assert (end.resources.cpu_user_seconds or 0) + (end.resources.cpu_system_seconds or 0) < before
    assert end.resources.rchar is not None
    assert end.profile is None


def test_a_running_task_is_reported_again_and_again() -> None:
    """
    With what it uses and where it is; the start states when to expect the first report.
    """
    with launch("Waits", DKIST_CORE_SAMPLE_SECONDS="0.3") as launcher:
        launcher.wait_for_line("waiting")
        # The stacks may be half a second old.
        wait_until(lambda: len(samples()) > 2 and "wait_for_ever" in (samples()[-1].top_frame or ""))
        state = the_attempt("Waits")
        launcher.process.terminate()
        launcher.wait()

    found = samples()
    (started,) = [event for event in reported() if isinstance(event, TaskStarted)]
    assert started.sample_seconds == 0.3
    assert [event.sequence for event in found] == list(range(len(found)))
    assert {event.interval_seconds for event in found} == {0.3}
    last = found[-1]
    assert last.resources is not None
    assert (last.resources.processes, last.resources.threads) == (1, 2)
    assert (last.resources.rss or 0) > 5_000_000
    assert last.host == started.host
    assert state.state is State.RUNNING
    assert state.sample is not None


def test_samples_can_be_turned_off() -> None:
    """
    Then none is to be expected.
    """
    run_alone("WorksHard", DKIST_CORE_SAMPLE_SECONDS="0")

    (started,) = [event for event in reported() if isinstance(event, TaskStarted)]
    assert started.sample_seconds is None
    assert samples() == []


def test_the_interval_grows_after_ten_minutes() -> None:
    """
    In a day, an attempt has about three hundred samples.
    """
    times = SampleTimes(30)
    ages = [age for age in range(24 * 3600) if times.take(age)]

    steps = [after - before for before, after in pairwise(ages)]
    assert ages[:20] == list(range(30, 601, 30))
    assert steps[19:24] == [60, 120, 240, 300, 300]
    assert 290 < len(ages) < 320


def test_a_long_interval_stays() -> None:
    """
    It is never shortened.
    """
    times = SampleTimes(1000)

    assert [age for age in range(5000) if times.take(age)] == [1000, 2000, 3000, 4000]


def test_the_last_sign_of_a_dead_host_is_in_the_journal() -> None:
    """
    Every process of the attempt is killed at once: nothing else is claimed about it.
    """
    with launch("Waits", DKIST_CORE_SAMPLE_SECONDS="0.2") as launcher:
        launcher.wait_for_line("waiting")
        wait_until(lambda: len(samples()) > 1)
        family = all_of(launcher)
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        launcher.wait()

    names = [event.name for event in reported()]
    attempt = the_attempt("Waits")
    assert len(family) == 3
    assert names == ["task.dispatched", "task.started", *["task.sampled"] * (len(names) - 2)]
    assert attempt.sample is not None
    assert attempt.sample.sequence == len(names) - 3
    assert attempt.state is State.RUNNING
    assert attempt.end is None


def all_of(launcher: Launched) -> list[int]:
    """
    Return the pids of a launcher, of its guard and of its task.
    """
    found = [launcher.process.pid]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def test_the_limit_of_a_task_is_in_its_start_however_it_is_run(state_dir: Path) -> None:  # noqa: ARG001 - as above
    """
    By a launcher that an exported file starts, by a local run, and by a call.
    """
    workflow = Workflow(process_category="bounded", process_name="task")
    workflow.add_node(IsBounded)
    workflow.run(1)
    IsBounded(1, "called", "dev")()
    with launch("Succeeds", DKIST_CORE_OVERDUE_AFTER_SECONDS="1800") as launcher:
        launcher.wait()

    found = [event.overdue_after_seconds for event in reported() if isinstance(event, TaskStarted)]
    assert found == [OVERDUE_AFTER] * 3


@pytest.mark.parametrize("text", ["", "soon", "nan", "-1", "0", "1e99"])
def test_a_limit_that_is_none_is_not_stated(text: str) -> None:
    """
    The task runs nevertheless.
    """
    end = run_alone("Succeeds", DKIST_CORE_OVERDUE_AFTER_SECONDS=text)

    (started,) = [event for event in reported() if isinstance(event, TaskStarted)]
    assert end.name == "task.finished"
    assert started.overdue_after_seconds is None
