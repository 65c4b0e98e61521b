"""
A workflow that runs on this host: the loop that starts its tasks, their processes, the display, the outcome.

Not here: one attempt in its process (launcher, attempt).
"""
