"""
Measure the library and its peers: `make bench`, or a part of it.

    .venv/bin/python benchmarks/run.py rates publish --rounds 2 --scale 0.1

Writes build/bench.json (the rows), build/bench-detail.json (spread and samples) and the plots; with --write-docs also
docs/benchmarks.md, its plots and benchmarks/last.json, with which a test compares the page. Where parts are named, the
page's other parts stay as they are, and the new parts state their run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    consuming,
    dashboard,
    events,
    growth,
    latency,
    launch,
    memory,
    page,
    pages,
    parse,
    rates,
    recorder,
    replaced,
    startup,
    task_exit,
    telemetry,
)
from benchmarks.aims import AIMS
from benchmarks.figures import Findings, Row
from benchmarks.ground import BUILD, PEERS_PYTHON, ROOT, Ground, open_ground
from benchmarks.plan import Plan

# Above it, other work on the machine scatters the figures.
QUIET_LOAD = 0.5
# The plots, by the part that each one shows.
PLOTS = {"rates": "bench-rate.png", "publish": "bench-latency.png"}


def _startup(_: Ground, __: Plan) -> Findings:
    return Findings(rows=startup.measure())


def _events(_: Ground, __: Plan) -> Findings:
    return Findings(rows=events.measure())


PARTS: dict[str, Callable[[Ground, Plan], Findings]] = {
    "rates": rates.measure,
    "publish": latency.measure,
    "exit": task_exit.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "consuming": consuming.measure,
    "dashboard": dashboard.measure,
    "pages": pages.measure,
    "startup": _startup,
    "events": _events,
    "telemetry": telemetry.measure,
    "recorder": recorder.measure,
    "launch": launch.measure,
    "parse": parse.measure,
    "replaced": replaced.measure,
}


def main() -> int:
    """Run the measurements of the command line; return 1 if a part failed."""
    arguments = _parse()
    names = arguments.parts or list(PARTS)
    plan = Plan(arguments.rounds, arguments.scale)
    load = os.getloadavg()[0]
    print(f"load average before: {load:.2f}", flush=True)
    if load > QUIET_LOAD:
        print(
            f"WARNING: the machine is busy (load average {load:.2f}, more than {QUIET_LOAD}), and the figures will "
            "scatter. For figures to keep, wait until it is quiet.",
            file=sys.stderr,
            flush=True,
        )
    found: dict[str, Findings] = {}
    with open_ground() as ground:
        rabbitmq = ground.node.eval("{ok, Version} = application:get_key(rabbit, vsn), Version.")
        for name in names:
            began = time.monotonic()
            try:
                found[name] = PARTS[name](ground, plan)
            except Exception:  # noqa: BLE001 - what was measured before is worth keeping
                print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr)
                continue
            print(f"\n{name}, {time.monotonic() - began:.0f} s\n{_table(found[name].rows)}", flush=True)
            _write(found)
    failed = [name for name in names if name not in found]
    _print_aims([row for findings in found.values() for row in findings.rows])
    _draw(BUILD)
    if failed:
        print(f"\nNot measured: {', '.join(failed)}.", file=sys.stderr)
    elif arguments.write_docs:
        machine = page.describe_machine(len(os.sched_getaffinity(0)), rabbitmq.strip('"'))
        results = page.Results(
            machine,
            round(load, 2),
            plan.rounds,
            {name: findings.rows for name, findings in found.items()},
            {key: spread for findings in found.values() for key, spread in findings.spreads.items()},
        )
        _write_docs(page.Results.read().with_parts_of(results) if arguments.parts else results, names)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the library beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="how often every side has its turn (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual counts, as 0.1 for a quick look")
    parser.add_argument("--write-docs", action="store_true", help="put the figures into docs/benchmarks.md too")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if arguments.write_docs and arguments.scale != 1:
        parser.error("the page shows whole counts: --write-docs does not go with --scale")
    if not PEERS_PYTHON.exists():
        parser.error("the peers are not installed; `make bench` does that first")
    return arguments


def _write(found: dict[str, Findings]) -> None:
    rows = [row for findings in found.values() for row in findings.rows]
    (BUILD / "bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    detail = {
        name: {"rates": findings.rates, "laps": findings.laps, "notes": findings.notes}
        for name, findings in found.items()
    }
    (BUILD / "bench-detail.json").write_text(json.dumps(detail) + "\n")


def _draw(folder: Path) -> None:
    command = [str(PEERS_PYTHON), "-m", "benchmarks.plots", str(BUILD / "bench-detail.json"), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"MPLCONFIGDIR": str(BUILD / "matplotlib")})


def _write_docs(results: page.Results, measured: list[str]) -> None:
    results.write()
    page.PAGE.write_text(page.render(results), encoding="utf-8")
    page.IMAGES.mkdir(exist_ok=True)
    for part in PLOTS.keys() & measured:
        shutil.copyfile(BUILD / PLOTS[part], page.IMAGES / PLOTS[part])


def _table(rows: list[Row]) -> str:
    cells = [
        (row["name"], page.shown(row["ours"]), row["unit"], row["other_name"], page.shown(row["other"]), row["ratio"])
        for row in rows
    ]
    name, other = (max(len(str(cell[column])) for cell in cells) for column in (0, 3))
    return "\n".join(
        f"  {what:<{name}} {ours:>8} {unit:<10} {label:<{other}} {its:>8}  ratio {page.shown(ratio):>6}"
        for what, ours, unit, label, its, ratio in cells
    )


def _print_aims(rows: list[Row]) -> None:
    print("\naims")
    for aim in AIMS:
        value = aim.value(rows)
        if value is not None:
            word = "met" if aim.is_met_by(value) else "MISSED"
            print(f"  {word:<6} {page.shown(value):>8}  {aim.limit:<14} {aim.text}")


if __name__ == "__main__":
    sys.exit(main())
