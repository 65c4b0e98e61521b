"""
Record runs of the example, one after the other: `python -m tests.watch NUMBER`.

Each run is a real one, with a process for each task, on an embedded journal that is removed afterwards. Its line is
appended to `example_runs.csv`: the duration of each task, in seconds. Not here: the use of the record (test_limits).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.events import TaskFinished
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.reading import read_settings
from tests.watch.recorded import RECORD, TASKS

_EXAMPLES = Path(__file__).parents[2] / "examples"
_PROGRAM = "import sys; from solar_calibration import workflow; sys.exit(not workflow.run(recipe_run_id=1))"


def durations_of_a_run() -> list[float]:
    """Run the example, and return the duration of each of its tasks as its end event has it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "DKIST_CORE_STATE_DIR": f"{folder}/state",
            "SOLAR_CALIBRATION_DIR": f"{folder}/files",
            "PYTHONPATH": str(_EXAMPLES),
        }
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        settings = read_settings(Origin.now(environment))
        ends = {each.task_name: each for each in replayed(settings, "task.finished") if isinstance(each, TaskFinished)}
    return [ends[name].duration_seconds or 0.0 for name in TASKS]


def main(number: str) -> None:
    """Append the lines of new runs."""
    for _ in range(int(number)):
        durations = durations_of_a_run()
        with RECORD.open("a") as file:
            file.write(",".join(f"{each:.3f}" for each in durations) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
