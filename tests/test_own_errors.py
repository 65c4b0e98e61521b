"""
An error of the library's own, provoked at one place at a time, never decides what becomes of a task.

Not here: what a task itself can do to its end (test_faults.py).
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dkist_processing_core import RunState
from dkist_processing_core.launcher._memory import _OomKills
from dkist_processing_core.runs import AttemptView, State
from tests.faulty import STOLEN
from tests.running import ROOT
from tests.test_faults import environ_of, journal_rows

LIMIT_SECONDS = 120
EVERYWHERE = (
    "launcher._launch:MemoryWatch.begin",
    "launcher._launch:MemoryWatch.close",
    "launcher._memory:_family",
    "launcher._memory:_OomKills.has_risen",
    "launcher._orders:Orders.watch_parent",
    "launcher._process:TaskProcess.guard",
    "launcher._process:TaskProcess.note_start",
    "launcher._process:TaskProcess.has_ended",
    "launcher._process:TaskProcess.close",
    "launcher._reports:Reports.__init__",
    "launcher._reports:Reports.dispatched",
    "launcher._reports:Reports.started",
    "launcher._reports:Reports.ended",
    "launcher._reports:Reports.close",
    "launcher._reports:open_telemetry",
    "launcher._reports:run_parent",
    "launcher._reports:Publisher.publish",
    "launcher._reports:Publisher.remember",
    "launcher._reports:Publisher.close",
    "launcher._verdict:judge",
)
"""Where the launcher does work of its own beside a task that runs."""
KILLED = (
    "launcher._launch:MemoryWatch.begin",
    "launcher._memory:_OomKills.has_risen",
    "launcher._reports:open_telemetry",
    "launcher._verdict:judge",
)
"""The same for a task that cannot report its end itself: its launcher does, by the status."""


@dataclass(frozen=True)
class Case:
    """
    A task that is launched with a fault in its launcher.
    """

    fault: str
    task: str

    @property
    def run_id(self) -> str:
        """
        The run of this case alone.
        """
        return f"manual__{self.fault}__{self.task}"


def launch(cases: Sequence[Case]) -> dict[Case, tuple[int, AttemptView | None]]:
    """
    Launch each task, and return the status that its launcher left with, and what the bus knows of the attempt.
    """
    plan = [{"fault": case.fault, "environ": environ_of(case.task, DKIST_CORE_RUN_ID=case.run_id)} for case in cases]
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
    statuses = json.loads(done.stdout.splitlines()[-1])
    runs = {view.run.run_id: view for view in RunState(event for _, event in journal_rows()).runs}
    views = [runs.get(case.run_id) for case in cases]
    attempts = [view.tasks[0].attempts[0] if view is not None else None for view in views]
    return dict(zip(cases, zip(statuses, attempts, strict=True), strict=True))


def test_the_task_s_own_word_and_status_decide_whatever_fails_in_its_launcher() -> None:
    """
    A success stays one, a failure stays what it is, each with the status that the task left with.
    """
    cases = [Case(fault, "Succeeds") for fault in EVERYWHERE]
    cases += [Case(fault, "Raises") for fault in ("launcher._verdict:judge", "launcher._reports:Reports.ended")]

    found = launch(cases)

    ends = {case: (status, attempt.state if attempt else None) for case, (status, attempt) in found.items()}
    expected = {"Succeeds": (0, State.FINISHED), "Raises": (1, State.FAILED)}
    assert ends == {case: expected[case.task] for case in cases}
    assert all(attempt.contradictions == () for _, attempt in found.values() if attempt)


def test_a_killed_task_has_its_end_whatever_fails_in_its_launcher() -> None:
    """
    The launcher reports the signal, without what it could not find out.
    """
    cases = [Case(fault, "IsKilled") for fault in KILLED]

    found = launch(cases)

    ends = {case: (status, attempt.cause if attempt else None) for case, (status, attempt) in found.items()}
    assert ends == dict.fromkeys(cases, (137, "signal"))


def test_a_task_s_status_that_another_part_of_the_launcher_has_taken_is_never_believed() -> None:
    """
    What the task has reported decides; where it has reported nothing, it is a failure that says why.
    """
    cases = [Case(STOLEN, task) for task in ("Succeeds", "Raises", "LeavesInTheMiddle", "IsKilled")]

    found = launch(cases)

    ends = {case.task: (status, attempt.cause if attempt else None) for case, (status, attempt) in found.items()}
    assert ends["Succeeds"] == (0, None)
    assert ends["Raises"] == (1, "exception")
    # Now and then the launcher is the first to take it.
    assert ends["LeavesInTheMiddle"] in {(1, "lost"), (1, "exit_code")}
    assert ends["IsKilled"] in {(1, "lost"), (137, "signal")}


@pytest.fixture
def group_file(tmp_path: Path) -> Path:
    """
    A file of a control group whose reader waits until the test writes to it.
    """
    path = tmp_path / "memory.events"
    os.mkfifo(path)
    return path


def test_a_control_group_may_be_added_while_the_kills_are_counted(group_file: Path) -> None:
    """
    The thread that follows the task adds one while another thread is in the midst of the counts.
    """
    kills = _OomKills(os.getpid())
    kills._before = {str(group_file): 0, "/nowhere": 0}
    found: list[bool] = []
    counting = threading.Thread(target=lambda: found.append(kills.has_risen))
    counting.start()

    with group_file.open("w") as file:
        kills.follow()
        file.write("oom_kill 0\n")
    counting.join(LIMIT_SECONDS)

    assert found == [False]
