"""
What the end of each kind of death states about the time before it: the last frame, the last lines of the log, and a
profile.

Not here: which cause an end has, and when it is reported (test_faults.py).
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from dkist_processing_core.events import TaskFailed, TaskStarted
from dkist_processing_core.recorder.region import NAME
from tests import launched
from tests.pace import here
from tests.running import ROOT, run_command
from tests.test_faults import (
    ENGINE,
    LIMIT_SECONDS,
    Launched,
    environ_of,
    is_alive,
    journal_rows,
    launch,
    limited_group,
)
from tests.waiting import wait_until

AT_ONCE = 4
LAST_LINES = 20
SIGKILLED = 128 + signal.SIGKILL
MOST_OF_STACK, MOST_OF_LOG = 16 * 1024, 8 * 1024
OLDEST_SECONDS = 1.0
LEAST_POINTS = 5
Kind = TypeVar("Kind", TaskStarted, TaskFailed)
PLACE = re.compile(r'launched\.py(?:", line |:)\d+,? in (\w+)')


@dataclass(frozen=True)
class Death:
    """
    A way in which a task ends, and what its end states.
    """

    task: str
    cause: str
    places: tuple[str, ...] = ("live", "mark", "run")
    """The functions of tests/launched.py of which the deepest frame in that module may be."""
    provoke: Callable[[Launched, int], object] | None = None
    """Ends a task that waits, by its launcher or the launcher's parent, and its pid; None if it ends by itself."""
    under: str = "launcher"
    reports_itself: bool = False
    """Whether the task reports its end, with the stack of its exception."""
    within: float = 1.0
    """The seconds from the fault until the end is on the bus."""


def request(task: Launched, _: int) -> None:
    """
    Request the end by SIGTERM to the launcher.
    """
    task.process.terminate()


def request_twice(task: Launched, _: int) -> None:
    """
    Request the end by two signals, of two kinds: two of one kind might arrive as one.
    """
    task.process.terminate()
    task.process.send_signal(signal.SIGINT)


def terminate_task(_: Launched, pid: int) -> None:
    """
    Send SIGTERM to the task itself.
    """
    os.kill(pid, signal.SIGTERM)


def kill_parent(task: Launched, pid: int) -> None:
    """
    Kill the parent of the launcher, and wait for the end of the task.
    """
    task.process.kill()
    wait_until(lambda: not is_alive(pid))


WAITS = ("live", "wait_for_ever")
DEATHS = {
    "raises": Death("Raises", "exception", ("run",), reports_itself=True),
    "exits": Death("Exits3", "exit_code", ("run",), reports_itself=True),
    "leaves": Death("LeavesInTheMiddle", "exit_code"),
    "is killed": Death("IsKilled", "signal"),
    "crashes": Death("Crashes", "signal"),
    "takes all memory": Death("TakesAllMemory", "out_of_memory", under="limit"),
    "takes all address space": Death("TakesAllAddressSpace", "out_of_memory", ("run",), reports_itself=True),
    "is terminated": Death("Waits", "terminated", WAITS, request),
    "is terminated with a pool": Death("Pools", "terminated", ("live", "run"), request, within=2.0),
    "ignores its termination": Death("HearsNothing", "terminated", WAITS, request, within=4.0),
    "is terminated twice": Death("HearsNothing", "terminated", WAITS, request_twice),
    "is terminated by another process": Death("Waits", "terminated", WAITS, terminate_task),
    "loses its engine": Death("Waits", "lost", WAITS, kill_parent, under="engine"),
}


@contextmanager
def begun(death: Death, **variables: str) -> Iterator[tuple[Launched, Death]]:
    """
    Start a task as the death requires, and yield it with the death that it will have on this machine.
    """
    if death.under == "engine":
        with subprocess.Popen(
            [sys.executable, "-c", ENGINE],
            cwd=ROOT,
            env=environ_of(death.task, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as engine:
            yield Launched(engine, death.task), death
    elif death.under == "limit":
        with limited_group(300) as group:
            # As in test_faults.py: without the right to limit memory, the kill is one by hand.
            death = death if group else DEATHS["is killed"]
            join = f'echo $$ > "{group}/cgroup.procs" && exec "$@"' if group else 'exec "$@"'
            with launch(death.task, "/bin/sh", "-c", join, "sh", **variables) as launcher:
                yield launcher, death
    else:
        with launch(death.task, **variables) as launcher:
            yield launcher, death


def reported(run: str, kind: type[Kind]) -> list[tuple[float, Kind]]:
    """
    Return the events of a kind and of a run in the journal, with their times.
    """
    return [(at, event) for at, event in journal_rows() if isinstance(event, kind) and event.run_id == run]


def problems_of(name: str, run: str, lives: float, marks: Path, pace: float) -> list[str]:
    """
    Let a task die, and return what is wrong about its end; `pace` is by how much this machine is slower than usual.
    """
    marks.mkdir()
    variables = {"DKIST_CORE_RUN_ID": run, "FAULT_MARKS": str(marks), "LIVES_SECONDS": str(lives)}
    with begun(DEATHS[name], **variables) as (task, death):
        moment = 0.0
        if death.provoke is not None:
            task.wait_for_line("waiting")
            pid = reported(run, TaskStarted)[0][1].pid
            assert pid is not None
            moment = time.time()
            death.provoke(task, pid)
        if death.under != "engine":
            task.wait(LIMIT_SECONDS)
    wait_until(lambda: bool(reported(run, TaskFailed)))
    moment = moment or float((marks / death.task).read_text())
    at, end = reported(run, TaskFailed)[0]
    return [f"{name}, {run}: {problem}" for problem in wrong_in(end, death, lives, at - moment, pace)]


def wrong_in(end: TaskFailed, death: Death, lives: float, seconds: float, pace: float) -> Iterator[str]:
    """
    Yield what is wrong about an end that was on the bus some seconds after its reason.
    """
    of_exception = PLACE.findall(end.stack or "")[-1:]
    last = PLACE.findall((end.last_stack or "").split("\n\n")[0])[:1]
    if end.cause != death.cause:
        yield f"cause {end.cause}"
    # A task that unwinds may have been seen in that.
    if not {*(of_exception or last)} & {*death.places}:
        yield f"places {of_exception} {last} {end.stack} {end.last_stack}"
    if death.reports_itself != (end.last_stack is None):
        yield f"last stack {end.last_stack}"
    if not death.reports_itself:
        yield from wrong_in_last_signs(end)
    if len(end.profile or ()) < (LEAST_POINTS if lives >= LEAST_POINTS else 1):
        yield f"profile {end.profile}"
    if end.resources is None or not end.resources.peak_rss or not end.resources.cpu_user_seconds:
        yield f"resources {end.resources}"
    if seconds > death.within * pace:
        yield f"on the bus after {seconds:.2f} s"


def wrong_in_last_signs(end: TaskFailed) -> Iterator[str]:
    """
    Yield what is wrong about the log, the phase and the age of the stack.
    """
    lines = [line.partition(" author: ")[2] for line in (end.last_log or "").splitlines() if " author: " in line]
    if lines[-LAST_LINES:] != [f"line {n}" for n in range(launched.LINES - LAST_LINES, launched.LINES)]:
        yield f"last lines {lines}"
    if end.last_phase != "run":
        yield f"last phase {end.last_phase}"
    if not 0 <= (end.last_stack_age_seconds or 0) <= OLDEST_SECONDS:
        yield f"age of the stack {end.last_stack_age_seconds}"


@pytest.mark.quiet
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("times", "lives"), [(1, 1.0), pytest.param(20, 6.0, marks=pytest.mark.soak)])
def test_each_death_leaves_its_last_signs(times: int, lives: float, tmp_path: Path) -> None:
    """
    Where it was, the last lines of its log, its phase, its resources and its profile: soon on the bus.
    """
    runs = [(name, f"run {number}") for number, name in enumerate(itertools.chain(*[DEATHS] * times))]
    pace = here(1.0)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda each: problems_of(each[0], each[1], lives, tmp_path / each[1], pace), runs))

    assert list(itertools.chain(*found)) == []


CANARY = "hunter2-of-the-site"


def kill_task() -> None:
    """
    Kill the process that the one reported start names.
    """
    ((_, start),) = reported("manual__1", TaskStarted)
    assert start.pid is not None
    os.kill(start.pid, signal.SIGKILL)


def memory_of_recorder(launcher: int) -> bytes:
    """
    Return all bytes of the recorder that a launcher holds.
    """
    for each in Path(f"/proc/{launcher}/fd").iterdir():
        if NAME in str(each.readlink()):
            return each.read_bytes()
    raise AssertionError


def test_no_secret_is_recorded_stored_or_shown(state_dir: Path) -> None:
    """
    Neither one that the task was given, nor one that it has set itself.
    """
    with launch("HoldsSecrets", SITE_TOKEN=CANARY) as task:
        task.wait_for_line("waiting")
        wait_until(lambda: b" in wait_for_ever" in memory_of_recorder(task.process.pid))
        memory = memory_of_recorder(task.process.pid)
        printed = run_command("stack", "manual__1", "HoldsSecrets").stdout
        kill_task()
        task.wait()
    shown = run_command("runs", "show", "manual__1", "HoldsSecrets").stdout
    drawn = run_command("timeline", COLUMNS="200").stdout
    ((_, end),) = reported("manual__1", TaskFailed)

    stored = b"".join(path.read_bytes() for path in state_dir.rglob("*") if path.is_file())
    found = {
        where: [secret for secret in (CANARY, CANARY[::-1]) if secret.encode() in content]
        for where, content in {"memory": memory, "files": stored, "output": (printed + shown + drawn).encode()}.items()
    }
    assert found == {"memory": [], "files": [], "output": []}
    assert (end.last_log or "").count("[redacted]") >= 4
    assert (end.last_stack or "").count('Thread "for [redacted]":') == 2
    assert end.last_progress == "1/2 file: as [redacted], then as [redacted]"
    assert all("wait_for_ever" in each for each in (printed, shown, drawn))
    assert "[redacted]" in printed
    assert "[redacted]" in shown


def test_the_end_of_a_task_with_many_threads_and_lines_has_the_most_important_ones() -> None:
    """
    The main thread, and the last lines, within the limits of an event.
    """
    with launch("HasMuch", LIVES_SECONDS="0.01") as task:
        task.wait_for_line("waiting")
        wait_until(lambda: b" in wait_for_ever" in memory_of_recorder(task.process.pid))
        kill_task()
        assert task.wait() == SIGKILLED

    ((_, end),) = reported("manual__1", TaskFailed)
    stack, log = end.last_stack or "", end.last_log or ""
    assert stack.startswith('Thread "MainThread":\n  tests/launched.py:')
    assert PLACE.findall(stack)[:2] == ["wait_for_ever", "run"]
    assert MOST_OF_STACK // 2 < len(stack.encode()) <= MOST_OF_STACK
    assert MOST_OF_LOG // 2 < len(log.encode()) <= MOST_OF_LOG
    assert log.endswith(f"author: line {launched.LINES - 1}")
    assert "author: step 9999" in log
