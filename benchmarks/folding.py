"""
Memory that `RunState` keeps for the events that it folds, and processor time of the fold.

    .venv/bin/python -m benchmarks.folding 10000 100000 1000000

For each number of events, in a separate process: how much its resident memory grew, in all and for each event, and the
processor time of the fold alone. Runs have 50 events of 12 tasks, one task in ten fails with a stack of 1.3 KB, and
each event is a separate object with the body of its message, as a subscription yields it. Not here: decoding.
"""

import functools
import gc
import itertools
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dkist_processing_core import RunState
from dkist_processing_core.events import (
    CONTENT_TYPE,
    Event,
    Graph,
    TaskDispatched,
    TaskFailed,
    TaskFinished,
    TaskProgressed,
    TaskStarted,
    WorkflowFinished,
    WorkflowStarted,
    decode,
    encode,
)

EVENTS_PER_RUN = 50
_TASKS = tuple(f"CalibrateArm{number}" for number in range(12))
BEGAN = datetime(2026, 11, 22, 9, tzinfo=UTC)
_STACK = 'File "/opt/env/lib/python3.13/site-packages/visp/gain.py", line 10, in run\n    self.calibrate(frame)\n'
# Stands for the run in the template, and is replaced by a number with the same number of digits.
_RUN, _NUMBER = "runrunru", 12345678


def _template() -> list[Event]:
    """Return the events of one run."""
    run: dict[str, Any] = {
        "workflow_name": "l0_to_l1_visp",
        "workflow_version": "2.10.3",
        "run_id": f"scheduled__20261122T090000Z__{_RUN}",
        "recipe_run_id": 1,
    }
    engine = {"reported_by": "engine", **run}
    graph = Graph(nodes=_TASKS, edges=tuple(itertools.pairwise(_TASKS)))
    events: list[Event] = [WorkflowStarted(time=BEGAN, started_at=BEGAN, graph=graph, **engine)]
    for number, name in enumerate(_TASKS):
        began = BEGAN + timedelta(minutes=number)
        task = {
            "task_name": name,
            "attempt": 1,
            "max_attempts": 3,
            "traceparent": f"00-{_RUN.encode().hex()}{number:016x}-{number + 1:016x}-01",
        }
        took: dict[str, Any] = {
            "duration_seconds": 52.125 + number,
            "cpu_seconds": 49.25 + number,
            "peak_memory_bytes": 123_456_789 + number,
            "phases": {"pre_run": 0.125, "run": 51.5 + number, "post_run": 0.25},
        }
        failed = {"cause": "exception", "phase": "run", "error_type": "ValueError", "message": f"no flat in {_RUN}"}
        events += [
            TaskDispatched(time=began, queue="default", worker="worker-7", queued_seconds=1.5, **engine, **task),
            TaskStarted(time=began, reported_by="launcher", host="worker-7", pid=4000 + number, **run, **task),
            TaskProgressed(time=began, reported_by="task", sequence=1, done=40, total=100, unit="frame", **run, **task),
            TaskFailed(time=began, reported_by="task", stack=_STACK * 12, final=True, **failed, **took, **run, **task)
            if number == 0
            else TaskFinished(time=began, reported_by="task", **took, **run, **task),
        ]
    states = dict.fromkeys(_TASKS, "success")
    return [*events, WorkflowFinished(time=began, ended_at=began, duration_seconds=720.5, tasks=states, **engine)]


def events_by_run(count: int) -> Iterator[list[Event]]:
    """Yield the events of one run after the other, as separate objects, each with its message's body."""
    bodies = [encode(event) for event in _template()]
    template = pickle.dumps([decode(body, CONTENT_TYPE) for body in bodies])
    for number in range(count // EVENTS_PER_RUN):
        name = str(_NUMBER + number).encode()
        events: list[Event] = pickle.loads(template.replace(_RUN.encode(), name))
        yield [
            event.with_acknowledgement(functools.partial(bytes.__len__, body.replace(_RUN.encode(), name)))
            for event, body in zip(events, bodies, strict=True)
        ]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def measure(count: int) -> str:
    """Return a line about the fold of that many events."""
    for events in events_by_run(EVENTS_PER_RUN):
        RunState(events)
    state, seconds = RunState(), 0.0
    gc.collect()
    before = _resident()
    for events in events_by_run(count):
        began = time.process_time()
        for event in events:
            state.fold(event)
        seconds += time.process_time() - began
    del events, event
    gc.collect()
    grown = _resident() - before
    began = time.process_time()
    views = len(state.runs)
    viewing = time.process_time() - began
    return (
        f"{count:>9,} events, {views:>6,} runs: {grown / 1e6:>7,.0f} MB, {grown / count:>5,.0f} bytes an event; "
        f"fold {seconds:>5.1f} s, {seconds / count * 1e6:.1f} µs an event; all views {viewing:.1f} s"
    )


def main() -> None:
    """Measure the numbers on the command line, each in a separate process."""
    counts = [int(argument) for argument in sys.argv[1:]] or [10_000, 100_000]
    if len(counts) == 1:
        print(measure(counts[0]))
        return
    for count in counts:
        subprocess.run([sys.executable, "-m", "benchmarks.folding", str(count)], check=True)


if __name__ == "__main__":
    main()
