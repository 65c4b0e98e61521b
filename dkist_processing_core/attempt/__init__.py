"""
One attempt of a task, reported by the task's own process: start, phases, progress, exactly one end.

This module imports nothing: a launcher uses the constants of `report_pipe` before it imports anything else. Not here:
the content of the phases (task), and the work around the process (launcher, local).
"""
