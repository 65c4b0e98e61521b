"""
Tests of tasks, of pipelines and of consumers: a bus in memory, a fixed clock and ids, sample runs, and a simulation.

Not here: the fixtures of pytest (pytest_plugin).
"""

from dkist_processing_core.testing.fixed import START, FixedClock, FixedIds
from dkist_processing_core.testing.in_memory_bus import InMemoryBus
from dkist_processing_core.testing.in_memory_receivers import DeadLetter
from dkist_processing_core.testing.sample_event import sample_event
from dkist_processing_core.testing.sample_run import SampleRun
from dkist_processing_core.testing.sample_runs import (
    SAMPLE_RUNS,
    run_by_hand,
    run_that_fails,
    run_that_succeeds,
    run_with_killed_attempt,
    run_with_lost_task,
    run_with_retry,
    run_with_skipped_branch,
    run_with_wrong_report,
)
from dkist_processing_core.testing.simulation import RefusedError, SimulationFailedError, World, effects_of, simulate

__all__ = [
    "SAMPLE_RUNS",
    "START",
    "DeadLetter",
    "FixedClock",
    "FixedIds",
    "InMemoryBus",
    "RefusedError",
    "SampleRun",
    "SimulationFailedError",
    "World",
    "effects_of",
    "run_by_hand",
    "run_that_fails",
    "run_that_succeeds",
    "run_with_killed_attempt",
    "run_with_lost_task",
    "run_with_retry",
    "run_with_skipped_branch",
    "run_with_wrong_report",
    "sample_event",
    "simulate",
]
