"""
One attempt of a task as its own process observes it: start, phases, progress, exactly one end.

This module imports nothing: a launcher uses the constants of `report_pipe` before it imports anything else. Not here:
what the phases do (task), and what happens around the process (launcher, local).
"""
