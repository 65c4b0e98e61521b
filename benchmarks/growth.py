"""
Growth of the cost with the number of pending events in the journal, and with the number of processes that publish into
one.
"""

from dataclasses import replace

from benchmarks.figures import Findings, percentile, percentile_99
from benchmarks.ground import Ground, Run, Side, run
from benchmarks.plan import Plan
from benchmarks.rates import DRAIN

PENDING = (1_000, 10_000, 100_000)
PROCESSES = (1, 4, 16)
LEAST_ROUNDS = 5
SLOWEST_CALLS = "publish() p99"
ONE = "1 process"
_EVENTS = 3200
_P50 = 0.5
_OPTIONS = {"synced": True, "pause": 0, "marked": False, "barrier": True, "delivers": True}


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return each size compared with the smallest; in five rounds at least, because single runs differ much."""
    plan = replace(plan, rounds=max(LEAST_ROUNDS, plan.rounds))
    findings = Findings()
    pending: dict[int, list[float]] = {size: [] for size in PENDING}
    for size in plan.turns(PENDING):
        pending[size].append(_drain_rate(ground, plan, size))
    for size in PENDING[1:]:
        findings.add(
            f"draining, {size:,} pending",
            "messages/s",
            pending[size],
            pending[PENDING[0]],
            f"{PENDING[0]:,} pending",
            shows_spread=True,
        )
    findings.rates["pending"] = {f"{size:,}": rates for size, rates in pending.items()}
    together: dict[int, list[dict[str, float]]] = {number: [] for number in PROCESSES}
    for number in plan.turns(PROCESSES):
        together[number].append(_publish(ground, plan, number))
    for number in PROCESSES[1:]:
        for name, unit in (
            ("publish() median", "ms"),
            (SLOWEST_CALLS, "ms"),
            ("all published", "events/s"),
            ("all delivered", "events/s"),
        ):
            ours, one = ([found[name] for found in together[many]] for many in (number, PROCESSES[0]))
            findings.add(name_of(number, name), unit, ours, one, ONE, shows_spread=True)
    findings.notes["processes"] = together
    return findings


def name_of(processes: int, figure: str) -> str:
    """Return the name of a figure of several processes."""
    return f"{processes} processes on one journal, {figure}"


def _drain_rate(ground: Ground, plan: Plan, size: int) -> float:
    count = plan.count(size)
    with ground.job(count) as job:
        seconds: float = run(DRAIN, job, ground.folder)["seconds"]
    return count / seconds


def _publish(ground: Ground, plan: Plan, processes: int) -> dict[str, float]:
    """Have several processes publish at once; the total number of events is the same for any number of processes."""
    each = plan.count(_EVENTS // processes, least=5)
    with ground.job(each, warm_up=10) as job:
        runs = [
            Run(
                Side(f"publisher {number}", "library_publish", options=_OPTIONS | {"first": 1000 * number}),
                job,
                ground.folder,
            )
            for number in range(processes)
        ]
        try:
            for started in runs:
                started.wait_until_ready()
            for started in runs:
                started.begin()
            found = [started.result() for started in runs]
        finally:
            for started in runs:
                started.end()
    laps = [1000 * lap for figures in found for lap in figures["laps"]]
    began = min(figures["began"] for figures in found)
    return {
        "publish() median": percentile(laps, _P50),
        SLOWEST_CALLS: percentile_99(laps),
        "all published": each * processes / (max(figures["ended"] for figures in found) - began),
        "all delivered": each * processes / (max(figures["delivered"] for figures in found) - began),
    }
