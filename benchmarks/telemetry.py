"""
Cost of spans, metrics and log records for a task: its process, its exit if no collector answers, and many signals.

The process is the one that a launcher starts, without the launcher. The collector is a real receiver of OTLP. No
instrumentor is used: each costs what its library costs.

Not here: faults of the broker (task_exit), and the delivery.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Findings
from benchmarks.ground import ROOT, Ground, environment
from benchmarks.plan import Plan
from benchmarks.sides.no_op import FIGURES
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.journal.otlp import OtlpBooks, OtlpJournal
from dkist_processing_core.launcher.bootstrap import MODULE
from dkist_processing_core.otlp import journal_path
from tests.services.otlp import OtlpReceiver
from tests.services.sockets import BlackHole, closed_port

PROCESS, OFF = "no-op task's launched process, all signals exported", "the same with telemetry off"
LAUNCH = "launcher and no-op task, all signals exported"
RATIO = 1.3
LIMIT, LIMIT_SECONDS = "the limit that is set", 0.2
_LAUNCHED, _BY_HAND = "under a launcher", "called by hand"
_REFUSED, _SILENT = "collector refuses", "collector is silent"
EXITS = ((_LAUNCHED, _REFUSED), (_LAUNCHED, _SILENT), (_BY_HAND, _REFUSED))
"""The exits that are measured: how the task is started, and the fault."""
GROWN, GROWN_MIB = "memory grown by 10,000 spans and 100,000 log records", 16.0
_SPANS, _RECORDS = 10_000, 100_000
_PAIRS_PER_ROUND = 3
_SECONDS = 120
_NO_OP = "benchmarks.sides.no_op"
_Settings = dict[str, str]


def _exporting(port: int) -> _Settings:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*",
    }


@contextmanager
def _off() -> Iterator[_Settings]:
    yield {}


@contextmanager
def _well() -> Iterator[_Settings]:
    with OtlpReceiver() as receiver:
        yield _exporting(receiver.grpc_port)


@contextmanager
def _refusing() -> Iterator[_Settings]:
    with closed_port() as port:
        yield _exporting(port)


@contextmanager
def _silent() -> Iterator[_Settings]:
    with BlackHole() as collector:
        yield _exporting(collector.port)


@dataclass(frozen=True)
class Cost:
    """Cost of one process: elapsed seconds, of these after `run`, seconds of processor time, and MiB at its peak."""

    wall: float
    exit: float
    cpu: float
    peak: float


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the cost of a process with and without telemetry, of its exit, and of many signals."""
    findings = Findings()
    with _well() as exporting:
        _add_pairs(findings, PROCESS, _launched_process, ground, plan, exporting)
        _add_pairs(findings, LAUNCH, _launcher, ground, plan, exporting)
    _add_exits(findings, ground, plan)
    _add_many(findings, ground, plan)
    return findings


def _add_pairs(
    findings: Findings,
    name: str,
    run: Callable[[Path, _Settings], Cost],
    ground: Ground,
    plan: Plan,
    exporting: _Settings,
) -> None:
    """Add wall time, processor time and memory of a process with telemetry, beside the same without it."""
    costs = defaultdict(list)
    # On a worker, the journals exist: other tasks have used them.
    with ground.state_dir() as folder:
        run(folder, {}), run(folder, exporting)
        for number in range(plan.rounds * _PAIRS_PER_ROUND):
            for is_on in (True, False) if number % 2 else (False, True):
                costs[is_on].append(run(folder, exporting if is_on else {}))
    figures = (("wall", "s"), ("cpu", "s"), ("peak", "MiB"))
    for figure, unit in figures if run is _launched_process else figures[:1]:
        ours, other = ([getattr(cost, figure) for cost in costs[is_on]] for is_on in (True, False))
        findings.add(f"{name}, {figure}", unit, ours, other, OFF, shows_spread=True)


def exit_name(how: str, fault: str) -> str:
    """Return the name of the row with the time that a fault adds to a task's exit."""
    return f"added to a task's exit {how}, {fault}"


def _add_exits(findings: Findings, ground: Ground, plan: Plan) -> None:
    """Add the time from the end of `run` to the end of all processes, beside that with telemetry off."""
    seconds = defaultdict(list)
    ways = {_LAUNCHED: _launcher, _BY_HAND: _called_process}
    cases = {_REFUSED: _refusing, _SILENT: _silent}
    for how, fault in plan.turns((*EXITS, *((how, OFF) for how in ways))):
        with cases.get(fault, _off)() as settings, ground.state_dir() as folder:
            seconds[how, fault].append(ways[how](folder, settings).exit)
    for how, fault in EXITS:
        ours, other = seconds[how, fault], seconds[how, OFF]
        findings.add(f"a task's exit {how}, {fault}", "s", ours, other, OFF, shows_spread=True)
        added = [a - b for a, b in zip(ours, other, strict=True)]
        findings.add(exit_name(how, fault), "s", added, [LIMIT_SECONDS] * len(added), LIMIT, shows_spread=True)


def _add_many(findings: Findings, ground: Ground, plan: Plan) -> None:
    """Add the rate and the memory of many signals in one task; raise an error if one is lost."""
    spans, records = plan.count(_SPANS), plan.count(_RECORDS)
    arguments = ["-m", "benchmarks.sides.many_signals", str(spans), str(records)]
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("on", "off")}
    for _ in range(plan.rounds):
        with _refusing() as exporting:
            for name, settings in (("off", {}), ("on", exporting)):
                with ground.state_dir() as folder:
                    figures = figures_of(arguments, settings, folder)
                    if name == "on":
                        _check_kept(settings, folder, spans, records)
                found[name]["spans"].append(spans / figures["spans"])
                found[name]["logs"].append(records / figures["logs"])
                found[name]["grown"].append(figures["grown"] / 1024)
    for what, unit, key in (("spans", "spans/s", "spans"), ("log records", "records/s", "logs")):
        findings.add(f"{what} of one task, appended", unit, found["on"][key], found["off"][key], OFF, shows_spread=True)
    findings.add(GROWN, "MiB", found["on"]["grown"], [GROWN_MIB] * plan.rounds, LIMIT, shows_spread=True)


def _check_kept(settings: _Settings, folder: Path, spans: int, records: int) -> None:
    """Raise an error if the journal lacks a span or a log record."""
    names = {name.lower(): value for name, value in settings.items()}
    read = DKISTProcessingCoreConfiguration(dkist_core_state_dir=folder, **names)  # type: ignore[arg-type]
    books = OtlpJournal.look(journal_path(read), OtlpJournal.books)
    _check("spans", books["traces"], spans)
    _check("log records", books["logs"], records)


def _check(what: str, books: OtlpBooks, least: int) -> None:
    if books.pending < least or books.dropped:
        msg = f"{least} {what} were recorded, the journal says {books}"
        raise RuntimeError(msg)


def _launched_process(folder: Path, settings: _Settings) -> Cost:
    """Run the process of a launched task, without a launcher."""
    found = figures_of(["-m", "benchmarks.sides.launched_process"], settings, folder)
    return _cost(folder, time.time(), **found)


def _launcher(folder: Path, settings: _Settings) -> Cost:
    """Run a launcher with its task."""
    attempt = Attempt(Run("bench", "dev", "bench__1", 1), "NoOp", 1, 1)
    return _program(folder, "dkist_processing_core.launcher", settings | attempt.to_environ() | {MODULE: _NO_OP})


def _called_process(folder: Path, settings: _Settings) -> Cost:
    """Run a program that calls the task."""
    return _program(folder, _NO_OP, settings)


def _program(folder: Path, module: str, settings: _Settings) -> Cost:
    began = time.monotonic()
    _run(["-m", module], settings, folder)
    return _cost(folder, time.time(), time.monotonic() - began)


def _cost(folder: Path, ended: float, wall: float, cpu: float = 0.0) -> Cost:
    peak, returned = (folder / "figures").read_text(encoding="ascii").splitlines()
    return Cost(wall, ended - float(returned), cpu, int(peak) / 1024)


def figures_of(
    arguments: list[str], settings: dict[str, str], folder: Path, *, seconds: float = _SECONDS
) -> dict[str, float]:
    """Run Python with these arguments on a state folder for at most `seconds`, and return the figures it prints."""
    figures: dict[str, float] = json.loads(_run(arguments, settings, folder, seconds).splitlines()[-1])
    return figures


def _run(arguments: list[str], settings: _Settings, folder: Path, seconds: float = _SECONDS) -> str:
    state = {"DKIST_CORE_STATE_DIR": str(folder), FIGURES: str(folder / "figures")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**state, **settings),
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds,
    ).stdout
