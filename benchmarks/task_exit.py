"""
Cost of a broken broker and collector for a task: the wall time of its whole process, and whether its events are kept.

The task is called by hand; a run of one task by `Workflow.run`, which is two processes, is measured in addition.

Each fault meets a fresh state folder, so no earlier process has left a mark that the broker is unreachable.
"""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from benchmarks.figures import Findings
from benchmarks.ground import ROOT, Ground, Run, Side, environment
from benchmarks.plan import Plan
from benchmarks.sides.job import Job
from benchmarks.sides.library import settings_of
from dkist_processing_core.bus import open_bus
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.sockets import BlackHole, closed_port

LIMIT_SECONDS = 2.0
_TASK_SECONDS = 120
_TASK = """
from dkist_processing_core import TaskBase
class NoOp(TaskBase):
    def run(self): pass
with NoOp(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""
Ports = tuple[int, int] | None


@dataclass(frozen=True)
class Program:
    """The command to start, as an argument list for the interpreter, and how many events it publishes."""

    arguments: tuple[str, ...]
    events: int


TASK = Program(("-c", _TASK), events=2)
# The run's start and end, the task's dispatch, start and end.
WHOLE_RUN = Program(("-m", "benchmarks.sides.one_task_run"), events=5)


@dataclass(frozen=True)
class Case:
    """A state of broker and collector, and where the events are kept in it."""

    name: str
    in_place: Callable[[Ground, Job], AbstractContextManager[Ports]]
    """Sets it up and yields the ports of broker and collector, or None to configure neither."""
    keeps: bool = True


@contextmanager
def _neither(_: Ground, __: Job) -> Iterator[Ports]:
    yield None


@contextmanager
def _well(_: Ground, job: Job) -> Iterator[Ports]:
    with OtlpReceiver() as receiver:
        yield job.port, int(receiver.grpc_endpoint.rpartition(":")[2])


@contextmanager
def _refused(_: Ground, __: Job) -> Iterator[Ports]:
    with closed_port() as broker, closed_port() as collector:
        yield broker, collector


@contextmanager
def _black_holed(_: Ground, __: Job) -> Iterator[Ports]:
    with BlackHole() as broker, BlackHole() as collector:
        yield broker.port, collector.port


@contextmanager
def _alarmed(ground: Ground, job: Job) -> Iterator[Ports]:
    with BlackHole() as collector:
        ground.node.memory_alarm(on=True)
        try:
            yield job.port, collector.port
        finally:
            ground.node.memory_alarm(on=False)


@contextmanager
def _drainer_stopped(ground: Ground, job: Job) -> Iterator[Ports]:
    holder = Run(Side("holder of the lock", "lock_holder"), job, ground.folder)
    try:
        holder.wait_until_ready()
        os.kill(holder.process.pid, signal.SIGSTOP)
        with _well(ground, job) as ports:
            yield ports
    finally:
        holder.end()


NEITHER = Case("neither configured", _neither, keeps=False)
WELL = Case("both well", _well, keeps=False)
BLACK_HOLED = Case("broker and collector black-holed", _black_holed)
FAULTS = (
    Case("broker and collector refused", _refused),
    BLACK_HOLED,
    Case("broker under memory alarm, collector black-holed", _alarmed),
    Case("drainer of another process stopped", _drainer_stopped),
)


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the wall time of a task's process with each fault, and the time that the fault adds."""
    findings = Findings()
    seconds = defaultdict(list)
    for case in plan.turns((NEITHER, WELL, *FAULTS)):
        seconds[case.name].append(wall_seconds(ground, case, TASK))
    for case in FAULTS:
        for base in (NEITHER, WELL):
            ours, other = seconds[case.name], seconds[base.name]
            findings.add(f"task's process, {case.name}", "s", ours, other, f"the same task, {base.name}")
            added = [a - b for a, b in zip(ours, other, strict=True)]
            name = f"added to the task with {base.name}: {case.name}"
            findings.add(name, "s", added, [LIMIT_SECONDS] * len(added), "the limit that is promised")
    _add_whole_run(findings, ground, plan)
    return findings


def _add_whole_run(findings: Findings, ground: Ground, plan: Plan) -> None:
    """Add the cost of the same fault for a run of one task on this host."""
    seconds = defaultdict(list)
    for case in plan.turns((NEITHER, WELL, BLACK_HOLED)):
        seconds[case.name].append(wall_seconds(ground, case, WHOLE_RUN))
    ours = seconds[BLACK_HOLED.name]
    for base in (NEITHER, WELL):
        other = seconds[base.name]
        findings.add(f"whole run, {BLACK_HOLED.name}", "s", ours, other, f"the same run, {base.name}")
        added = [a - b for a, b in zip(ours, other, strict=True)]
        name = f"added to the whole run with {base.name}: {BLACK_HOLED.name}"
        findings.add(name, "s", added, [2 * LIMIT_SECONDS] * len(added), "the task's limit, twice")


def wall_seconds(ground: Ground, case: Case, program: Program) -> float:
    """Run a program under one case, and return its duration; raise an error if an event was lost."""
    with ground.job(1) as well, case.in_place(ground, well) as ports:
        job = well if ports is None else replace(well, port=ports[0])
        settings = {"DKIST_CORE_STATE_DIR": job.state_dir}
        if ports is not None:
            broker = Broker(ground.node, job.host, job.port, job.vhost, job.username, job.password)
            settings |= broker.env | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{job.host}:{ports[1]}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            }
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *program.arguments],
            cwd=ROOT,
            env=environment(**settings),
            check=True,
            capture_output=True,
            timeout=_TASK_SECONDS,
        )
        seconds = time.perf_counter() - began
        if ports is not None:
            _check_books(case, job, program.events)
    return seconds


def _check_books(case: Case, job: Job, events: int) -> None:
    """Raise an error if an event was lost."""
    with open_bus(settings_of(job)).open_journal() as journal:
        books = journal.books()
    if (books.pending if case.keeps else books.confirmed) != events or books.published != events:
        msg = f"{case.name}: {events} events were published, the outbox says {books}"
        raise RuntimeError(msg)
