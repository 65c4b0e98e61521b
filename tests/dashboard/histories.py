"""
Histories of a workflow for the pages about many runs: several versions, of which one made a task slower.

Not here: single runs, which are in tests.stored and in the testing package.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from dkist_processing_core.events import Event, TaskFinished
from dkist_processing_core.testing import FixedClock, SampleRun
from tests.facts import NOON

WORKFLOW = "l0_to_l1_visp"
VERSIONS = ("2.1.0", "2.2.0", "2.3.0")
SLOWER = "2.3.0"
"""The version in which Calibrate takes 90 s longer."""
RUNS = 12
"""The number of runs of each version, one in an hour."""
FAILED, RETRIED = 2, 4
"""The places of the runs of each version that fail, and that try Calibrate twice."""
TASKS = ("ParseL0", "Calibrate", "Polcal", "WriteL1")
EDGES = (("ParseL0", "Calibrate"), ("ParseL0", "Polcal"), ("Calibrate", "WriteL1"), ("Polcal", "WriteL1"))


def history() -> Iterator[Event]:
    """Yield the reports of all runs."""
    for place in range(len(VERSIONS) * RUNS):
        yield from run_of_history(place).events


def run_of_history(place: int, begin: datetime = NOON) -> SampleRun:
    """Return one of the runs of a history that began at a time."""
    version, of_version = VERSIONS[place // RUNS], place % RUNS
    run = SampleRun(
        WORKFLOW,
        workflow_version=version,
        tasks=TASKS,
        edges=EDGES,
        recipe_run_id=place,
        run_id=run_id_of(place, begin),
        max_attempts=2,
        clock=FixedClock(begin + timedelta(hours=place)),
    )
    run.start()
    run.succeed("ParseL0")
    if of_version in (FAILED, RETRIED):
        run.fail("Calibrate")
    run.begin("Calibrate")
    seconds = 60.0 + of_version + (90 if version == SLOWER else 0)
    run.clock.advance(seconds)
    if of_version == FAILED:
        run.fail("Polcal")
        run.fail("Polcal")
    else:
        run.succeed("Polcal")
    run.states["Calibrate"] = "success"
    phases = {"pre_run": 0.5, "run": seconds}
    run.report(TaskFinished, "Calibrate", duration_seconds=seconds + 2, phases=phases, peak_memory_bytes=900_000_000)
    if of_version != FAILED:
        run.succeed("WriteL1")
    run.end()
    return run


def run_id_of(place: int, begin: datetime = NOON) -> str:
    """Return the id of a run."""
    return f"scheduled__{begin + timedelta(hours=place):%Y-%m-%dT%H}:00:00+00:00"
