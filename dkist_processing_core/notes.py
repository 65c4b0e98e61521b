"""
What is noted in a host's journal: by a launcher for the engine there (Airflow's callbacks, or a local run), and by a
task for its launcher.

Not here: who writes and reads them (launcher, airflow, local, lifecycle).
"""

ENDED = "ended/"
"""Followed by the start's id and the event's name: a task's report of its end was appended, in the same transaction."""
# The others are followed by the attempt's key.
SUCCEEDED = "succeeded/"
"""The launcher saw the task succeed: an engine that comes to another end must not announce a failure, or believe it."""
TOLD_TO_END = "told-to-end/"
"""Somebody had the task end: whether that is a failure, the engine alone knows."""
