"""
One attempt of a task as its own process observes it: start, phases, progress, exactly one end.

Nothing is imported here: a launcher takes the names of the report pipe before it imports anything else. Not here: what
the phases do (task), and what happens around the process (launcher, local).
"""
