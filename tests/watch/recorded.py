"""
The recorded runs of the example: how long each of its tasks took, in each run.

Not here: recording them (`python -m tests.watch`).
"""

from pathlib import Path

RECORD = Path(__file__).with_name("example_runs.csv")
TASKS = (
    "ParseFrames",
    "EstimateBackground",
    "EstimateFlat",
    "CorrectFrames",
    "FitLimb",
    "MeasureQuality",
    "AlignFrames",
    "MakeContactSheet",
)


def recorded_runs() -> list[dict[str, float]]:
    """Return the duration of each task in seconds, for each run in the order of the runs."""
    return [
        dict(zip(TASKS, map(float, line.split(",")), strict=True)) for line in RECORD.read_text().splitlines() if line
    ]
