"""
The notes in a host's journal: from a launcher to the engine on its host (Airflow's callbacks, or a local run), and from
a task to its launcher.

Not here: writing and reading them (launcher, airflow, local, attempt.lifecycle, delivery.lost_runs).
"""

ENDED = "ended/"
"""Followed by the start's id and the event's name: a task's report of its end was appended, in the same transaction."""
RUN_ENDED = "run-ended/"
"""Followed by the run's id: the end of a local run was appended, in the same transaction."""
# The others are followed by the attempt's key.
SUCCEEDED = "succeeded/"
"""The launcher saw the task succeed: an engine that finds another end must not announce or assume a failure."""
TERMINATION_REQUESTED = "told-to-end/"
"""The task ended after a termination request: only the engine knows whether that is a failure."""
