"""
Runs that are ready to use in tests: each shows one thing that happens in real ones.

Not here: the reports of each step (sample_run).
"""

from collections.abc import Callable
from typing import Any

from dkist_processing_core.testing.sample_run import SampleRun

_BRANCHES = (("ParseL0", "Polarimetric"), ("ParseL0", "Intensity"), ("Intensity", "WriteL1"))


def run_that_succeeds(**options: Any) -> SampleRun:
    """Return a run whose three tasks succeed; `options` are those of `SampleRun`."""
    run = SampleRun(**options)
    run.start()
    for task_name in run.tasks:
        run.succeed(task_name)
    run.end()
    return run


def run_with_retry(**options: Any) -> SampleRun:
    """Return a run in which the first attempt of `Calibrate` fails, and the second one succeeds."""
    run = SampleRun(**{"max_attempts": 2} | options)
    run.start()
    run.succeed("ParseL0")
    run.fail("Calibrate")
    run.succeed("Calibrate")
    run.succeed("WriteL1")
    run.end()
    return run


def run_that_fails(**options: Any) -> SampleRun:
    """Return a run in which both attempts of `Calibrate` fail, so that `WriteL1` does not run."""
    run = SampleRun(**{"max_attempts": 2} | options)
    run.start()
    run.succeed("ParseL0")
    run.fail("Calibrate")
    run.fail("Calibrate")
    run.end()
    return run


def run_with_skipped_branch(**options: Any) -> SampleRun:
    """Return a run that skips `Polarimetric`, one of its two branches."""
    tasks = ("ParseL0", "Polarimetric", "Intensity", "WriteL1")
    run = SampleRun(**{"tasks": tasks, "edges": _BRANCHES} | options)
    run.start()
    run.succeed("ParseL0")
    run.skip("Polarimetric")
    run.succeed("Intensity")
    run.succeed("WriteL1")
    run.end()
    return run


def run_with_killed_attempt(**options: Any) -> SampleRun:
    """Return a run in which the process of `Calibrate` is killed, and its second, sampled attempt succeeds."""
    run = SampleRun(**{"max_attempts": 2} | options)
    run.start()
    run.succeed("ParseL0")
    run.kill("Calibrate")
    run.begin("Calibrate")
    run.sample("Calibrate")
    run.sample("Calibrate", 1)
    run.finish("Calibrate")
    run.succeed("WriteL1")
    run.end()
    return run


def run_with_wrong_report(**options: Any) -> SampleRun:
    """Return a run in which the engine reports a failure of `Calibrate`, which in fact succeeds."""
    run = SampleRun(**options)
    run.start()
    run.succeed("ParseL0")
    run.begin("Calibrate")
    run.doubt("Calibrate")
    run.finish("Calibrate")
    run.succeed("WriteL1")
    run.end()
    return run


def run_with_lost_task(**options: Any) -> SampleRun:
    """Return a run in which the worker of `Calibrate` vanishes: only the engine reports it, without an attempt."""
    run = SampleRun(**options)
    run.start()
    run.succeed("ParseL0")
    run.lose("Calibrate")
    run.end()
    return run


def run_by_hand(**options: Any) -> SampleRun:
    """Return a run without an engine: `Calibrate` is called twice, and fails at first."""
    run = SampleRun(**{"is_by_hand": True} | options)
    run.start()
    run.succeed("ParseL0")
    run.fail("Calibrate")
    run.succeed("Calibrate")
    return run


SAMPLE_RUNS: dict[str, Callable[..., SampleRun]] = {
    each.__name__: each
    for each in (
        run_that_succeeds,
        run_with_retry,
        run_that_fails,
        run_with_skipped_branch,
        run_with_killed_attempt,
        run_with_wrong_report,
        run_with_lost_task,
        run_by_hand,
    )
}
"""All of these by name, for `pytest.mark.parametrize`."""
