"""
An error of the library, provoked at one place at a time, does not change the outcome of a task.

Not here: ends that the task itself causes (test_faults.py).
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import isfunction
from pathlib import Path

import pytest

from dkist_processing_core import RunState
from dkist_processing_core.attempt import lifecycle
from dkist_processing_core.launcher._control_groups import OOM_KILLS, ControlGroups
from dkist_processing_core.runs import AttemptView, State
from tests.faulty import STOLEN
from tests.running import ROOT
from tests.test_faults import environ_of, journal_rows, marks, old_environment  # noqa: F401 - fixtures

LIMIT_SECONDS = 300
EVERYWHERE = (
    "launcher._sampling:Sampler.begin",
    "launcher._sampling:Sampler.close",
    "launcher._processes:Family.look",
    "launcher._control_groups:ControlGroups.has_killed",
    "launcher._measured:facts_of_end",
    "launcher._measured:facts_of_failure",
    "launcher._reports:Reports.sampled",
    "launcher._supervision:create",
    "launcher._supervision:read",
    "launcher._supervision:Supervision._identify",
    "launcher._supervision:Supervision._keep_samples",
    "launcher._supervision:Supervision._report_sample",
    "launcher._on_demand:ReportsOnDemand.close",
    "launcher.process_end:ProcessEnd.status",
    "launcher.termination_requests:TerminationRequests.__exit__",
    "launcher.termination_requests:TerminationRequests.forward_to",
    "launcher.termination_requests:TerminationRequests.conclude",
    "launcher.termination_requests:TerminationRequests.watch_parent",
    "launcher._process:TaskProcess.guard",
    "launcher._process:TaskProcess.record_start",
    "launcher._process:TaskProcess.has_ended",
    "launcher._process:TaskProcess.listen",
    "launcher._process:TaskProcess.end",
    "launcher._process:TaskProcess.close",
    "launcher._reports:Reports.__init__",
    "launcher._reports:Reports.dispatched",
    "launcher._reports:Reports.started",
    "launcher._reports:Reports.ended",
    "launcher._reports:Reports.close",
    "tracing._setup:_set_up",
    "launcher._reports:run_parent",
    "launcher._reports:Publisher.publish",
    "launcher._reports:Publisher.remember",
    "launcher._reports:Publisher.close",
    "launcher._verdict:judge",
)
"""Functions of the launcher that are not needed for the outcome of a task."""
SOME = (
    "launcher._verdict:judge",
    "launcher._reports:Reports.ended",
    "launcher._reports:Reports.__init__",
    "launcher._control_groups:ControlGroups.has_killed",
    "launcher._process:TaskProcess.has_ended",
)
"""Functions among them whose errors once changed the outcome."""
KILLED = (
    "launcher._measured:facts_of_end",
    "launcher._measured:facts_of_failure",
    "launcher._supervision:create",
    "launcher._supervision:read",
    "launcher._sampling:Sampler.begin",
    "launcher._control_groups:ControlGroups.has_killed",
    "launcher._verdict:judge",
)
"""Such functions for a killed task, whose end its launcher reports by the exit status."""


UNSTARTED = ("environments._environments:Environments.find", "environments._environments:Environments.prepare")
"""Functions by which the launcher prepares the environment of a task."""
OF_RUNS = (
    "local.child:output_of",
    "local.child:has_ended",
    "local.child:wait",
    "local.child:wait_for",
    "local._run_display:open_display",
    "local._reports:RunReports._open_span",
    "local.display:PlainDisplay.attempt_started",
    "local.display:PlainDisplay.output",
    "delivery.publisher:Publisher.close",
    "delivery.publisher:Publisher.open",
    "delivery.publisher:Publisher.publish",
    "tracing._setup:_set_up",
    "tracing._telemetry:Telemetry.scope",
)
"""Functions of a local run that are not needed for the outcomes of its tasks."""
STATUSES = ("status 70", "status -9", "status null")
"""Ends of a launcher after its report: an error of the launcher, a kill, an unknown status."""
OBSERVED = sorted(
    name
    for of in (lifecycle.Lifecycle._facts_of_end, lifecycle.Lifecycle._facts_of_success)
    for name in of.__code__.co_names
    if isfunction(vars(lifecycle).get(name))
)
"""Functions of other modules that measure the facts of a task's end."""
OF_TASKS = (
    "settings.reading:read_leniently",
    "attempt.lifecycle:secrets_in",
    "attempt.lifecycle:shown_log",
    "attempt.lifecycle:Lifecycle._failure_of",
    "attempt._mode:LaunchedMode.facts_to_report",
    "attempt._mode:LaunchedMode.open_span",
    "attempt._mode:CalledMode.start_facts",
    "attempt._mode:CalledMode.facts_to_report",
    "attempt._mode:CalledMode.send_end_to_launcher",
    "attempt._mode:CalledMode.open_span",
    *(f"attempt.lifecycle:{name}" for name in OBSERVED),
    "attempt.progress:Progress.take_held_back",
    "delivery.publisher:Publisher.close",
    "delivery.publisher:Publisher.open",
    "delivery.publisher:Publisher.publish",
    "attempt.task_context:Origin.of_process",
    "process.termination:TaskTermination.conclude",
    "tracing._setup:_set_up",
    "tracing._telemetry:Telemetry.record_error",
    "tracing._telemetry:Telemetry.span",
)
"""Functions of the library in the process of a task."""
UNREPORTED = (
    "attempt.report_pipe:ReportPipe.write",
    "attempt._mode:LaunchedMode.facts_to_report",
    "attempt._mode:LaunchedMode.send_end_to_launcher",
    "delivery.publisher:Publisher.publish",
)
"""Functions without which a launched task cannot report its end."""
UNRECORDED = (
    "attempt._mode:LaunchedMode.record_phase",
    "recorder._task_recorder:TaskRecorder.begin",
    "recorder.writing:begin",
)
"""Functions without which less or nothing of it is recorded."""


@dataclass(frozen=True)
class Case:
    """
    A task that is run with a fault.
    """

    fault: str
    task: str
    door: str = "launch"
    is_of_task: bool = False
    """Whether the fault is in the process of the launched task, and not in the launcher."""

    @property
    def variables(self) -> dict[str, str]:
        """
        The variables of this case.
        """
        return {"DKIST_CORE_RUN_ID": self.run_id} | ({"FAULT_OF_TASK": self.fault} if self.is_of_task else {})

    @property
    def run_id(self) -> str:
        """
        The run id of this case.
        """
        return f"manual__{self.fault}__{self.task}"


def statuses_of(cases: Sequence[Case], **variables: str) -> dict[Case, int]:
    """
    Run each task, and return the exit status of its fork.
    """
    plan = [
        {
            "door": case.door,
            "task": case.task,
            "fault": "" if case.is_of_task else case.fault,
            "environ": environ_of(case.task, **case.variables, **variables) if case.door == "launch" else variables,
        }
        for case in cases
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faulty"],
        cwd=ROOT,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


def launch(cases: Sequence[Case], **variables: str) -> dict[Case, tuple[int, AttemptView | None]]:
    """
    Launch each task, and return the exit status of its launcher and the state of the attempt on the bus.
    """
    statuses = statuses_of(cases, **variables)
    runs = {view.run.run_id: view for view in RunState(event for _, event in journal_rows()).runs}
    views = {case: runs.get(case.run_id) for case in cases}
    return {case: (statuses[case], view.tasks[0].attempts[0] if view else None) for case, view in views.items()}


@pytest.mark.parametrize("faults", [SOME, pytest.param(EVERYWHERE, marks=pytest.mark.soak)], ids=["some", "all"])
def test_the_task_s_own_report_and_status_decide_whatever_fails_in_its_launcher(faults: Sequence[str]) -> None:
    """
    A success stays a success and a failure a failure, each with the exit status of the task.
    """
    cases = [Case(fault, "Succeeds") for fault in faults]
    cases += [Case(fault, "Raises") for fault in SOME[:2]]

    found = launch(cases)

    ends = {case: (status, attempt.state if attempt else None) for case, (status, attempt) in found.items()}
    expected = {"Succeeds": (0, State.FINISHED), "Raises": (1, State.FAILED)}
    assert ends == {case: expected[case.task] for case in cases}
    assert all(attempt.contradictions == () for _, attempt in found.values() if attempt)


def test_a_killed_task_has_its_end_whatever_fails_in_its_launcher() -> None:
    """
    The launcher reports the signal, without the facts that it could not determine.
    """
    cases = [Case(fault, "IsKilled") for fault in KILLED]

    found = launch(cases)

    ends = {case: (status, attempt.cause if attempt else None) for case, (status, attempt) in found.items()}
    assert ends == dict.fromkeys(cases, (137, "signal"))


def test_a_launcher_that_cannot_start_its_task_for_an_error_of_its_own_reports_the_end() -> None:
    """
    The task was not started, so the attempt has failed, with an exit status that no task exits with by itself.
    """
    cases = [Case(fault, "Succeeds") for fault in UNSTARTED]

    found = launch(cases, DKIST_CORE_PACKAGE="no-such-pipeline", DKIST_CORE_VERSION="1.0")

    ends = {case: (status, attempt.cause if attempt else None) for case, (status, attempt) in found.items()}
    assert ends == dict.fromkeys(cases, (70, "environment"))


@pytest.mark.soak
@pytest.mark.usefixtures("marks")
def test_errors_about_an_environment_do_not_decide_what_becomes_of_its_task(request: pytest.FixtureRequest) -> None:
    """
    If a lock cannot be passed to the task, the launcher holds it. A lock that cannot be closed is closed when the
    launcher ends.
    """
    cases = [Case(f"environments._environment:Environment.{each}", "OldSucceeds") for each in ("lend_lock", "close")]
    cases.append(Case("environments._environments:Environments.problem_of", "OldLeaves"))

    found = launch(cases, **request.getfixturevalue("old_environment"))

    ends = [(status, attempt.cause if attempt else None) for status, attempt in found.values()]
    assert ends == [(0, None), (0, None), (1, "exit_code")]
    assert all(attempt and attempt.end for _, attempt in found.values())


def test_a_launched_task_that_cannot_report_its_end_has_one_all_the_same(tmp_path: Path) -> None:
    """
    The task does not mark its end as published if it was not. The launcher then reports the end. An error of the
    recorder changes nothing.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'DKIST_CORE_REPORT_FD' in os.environ:\n"
        f"    sys.path.insert(0, {str(ROOT)!r})\n"
        "    from tests.faulty import replace\n"
        "    replace(os.environ['FAULT_OF_TASK'])\n"
    )
    cases = [
        Case(fault, task, is_of_task=True) for fault in (*UNREPORTED, *UNRECORDED) for task in ("Succeeds", "Raises")
    ]

    found = launch(cases, PYTHONPATH=str(tmp_path))

    ends = {case: (status, attempt.state if attempt else None) for case, (status, attempt) in found.items()}
    expected = {"Succeeds": (0, State.FINISHED), "Raises": (1, State.FAILED)}
    assert ends == {case: expected[case.task] for case in cases}


@pytest.mark.parametrize("faults", [OF_RUNS[:3], pytest.param(OF_RUNS, marks=pytest.mark.soak)], ids=["some", "all"])
def test_errors_of_a_local_run_do_not_decide_its_outcome(faults: Sequence[str]) -> None:
    """
    An error of display, tracing or publishing does not change the outcomes of the tasks.
    """
    cases = [Case(fault, "Succeeds", "run") for fault in (*faults, *STATUSES)]
    cases += [Case(fault, "Raises", "run") for fault in STATUSES[2:]]

    assert statuses_of(cases) == {case: int(case.task == "Raises") for case in cases}


def test_errors_beside_a_task_that_is_called_do_not_reach_its_caller() -> None:
    """
    The call returns or raises the author's exception, and nothing else.
    """
    cases = [Case(fault, "Succeeds", "call") for fault in OF_TASKS]
    cases += [Case(fault, "Raises", "call") for fault in OF_TASKS if "attempt" in fault or "Telemetry" in fault]

    assert statuses_of(cases) == {case: int(case.task == "Raises") for case in cases}


def test_a_task_s_status_that_another_part_of_the_launcher_has_taken_is_never_believed() -> None:
    """
    The report of the task decides. Without a report, the attempt is a failure with the cause `lost`.
    """
    cases = [Case(STOLEN, task) for task in ("Succeeds", "Raises", "LeavesInTheMiddle", "IsKilled")]

    found = launch(cases)

    ends = {case.task: (status, attempt.cause if attempt else None) for case, (status, attempt) in found.items()}
    assert ends == {
        "Succeeds": (0, None),
        "Raises": (1, "exception"),
        "LeavesInTheMiddle": (1, "lost"),
        "IsKilled": (1, "lost"),
    }


@pytest.fixture
def group_file(tmp_path: Path) -> Path:
    """
    Return a file of a control group whose reader waits until the test writes to it.
    """
    path = tmp_path / "memory.events"
    os.mkfifo(path)
    return path


def test_a_control_group_may_be_added_while_the_kills_are_counted(group_file: Path) -> None:
    """
    The thread that follows the task adds a control group while another thread reads the counts.
    """
    groups = ControlGroups(os.getpid())
    groups._before = {(OOM_KILLS, str(group_file)): 0, (OOM_KILLS, "/nowhere"): 0}
    found: list[bool] = []
    counting = threading.Thread(target=lambda: found.append(groups.has_killed))
    counting.start()

    with group_file.open("w") as file:
        groups._text = ""
        groups.follow()
        file.write("oom_kill 0\n")
    counting.join(LIMIT_SECONDS)

    assert found == [False]
