"""
The state of runs, tasks and attempts, derived from the reports of several observers.

Not here: receiving events (consumer), drawing a state (cli).
"""

from dkist_processing_core.runs._alarms import ALARMS, Alarm, latest_alarms, standing
from dkist_processing_core.runs._derivation import run_view
from dkist_processing_core.runs._plausibility import Window, plausible_time, stated_times
from dkist_processing_core.runs._state import RunState
from dkist_processing_core.runs._stored_reports import kept_reports
from dkist_processing_core.runs._views import STATES_OF_ENGINE, AttemptView, RunView, State, TaskView

__all__ = [
    "ALARMS",
    "STATES_OF_ENGINE",
    "Alarm",
    "AttemptView",
    "RunState",
    "RunView",
    "State",
    "TaskView",
    "Window",
    "kept_reports",
    "latest_alarms",
    "plausible_time",
    "run_view",
    "standing",
    "stated_times",
]
