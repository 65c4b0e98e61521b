"""
Metrics of the long-running processes: their declarations, one snapshot of their values, and the two ways it is read.

Not here: the values themselves (collect, consumer, outbox), and the meters of a task's author (tracing).
"""
