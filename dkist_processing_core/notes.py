"""
What a launcher notes in its host's journal for the engine there: Airflow's callbacks, or a local run.

Each is followed by the attempt's key. Not here: who writes and reads them (launcher, airflow, local).
"""

SUCCEEDED = "succeeded/"
"""The launcher saw the task succeed: an engine that comes to another end must not announce a failure, or believe it."""
TOLD_TO_END = "told-to-end/"
"""Somebody had the task end: whether that is a failure, the engine alone knows."""
