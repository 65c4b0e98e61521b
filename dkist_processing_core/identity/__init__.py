"""
The identity of runs, tasks and attempts, and the trace that is derived from it.

Not here: the reports about them (events).
"""

from dkist_processing_core.identity._runs_and_attempts import (
    BY_HAND,
    LOCAL,
    MAX_NUMBER,
    PREFIX,
    Attempt,
    Run,
    RunsByHand,
    class_name_of,
    new_run_id,
    parse_recipe_run_id,
    parse_run_data,
    to_run_data,
)

__all__ = [
    "BY_HAND",
    "LOCAL",
    "MAX_NUMBER",
    "PREFIX",
    "Attempt",
    "Run",
    "RunsByHand",
    "class_name_of",
    "new_run_id",
    "parse_recipe_run_id",
    "parse_run_data",
    "to_run_data",
]
