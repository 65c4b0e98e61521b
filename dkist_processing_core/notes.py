"""
What a launcher notes in its host's journal for the engine's callbacks there, which decide what to announce.

Each is followed by the attempt's key. Not here: who writes and reads them (launcher, airflow).
"""

SUCCEEDED = "succeeded/"
"""The launcher saw the task succeed: an engine that comes to another end must not announce a failure."""
TOLD_TO_END = "told-to-end/"
"""Somebody had the task end: whether that is a failure, the engine alone knows."""
