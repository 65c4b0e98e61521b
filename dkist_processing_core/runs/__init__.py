"""
What the reports of several observers add up to: the state of runs, tasks and attempts.

Not here: where events come from (consumer), how a state is drawn (cli).
"""

from dkist_processing_core.runs._plausibility import plausible_time, stated_times
from dkist_processing_core.runs._state import RunState
from dkist_processing_core.runs._views import AttemptView, RunView, State, TaskView

__all__ = ["AttemptView", "RunState", "RunView", "State", "TaskView", "plausible_time", "stated_times"]
