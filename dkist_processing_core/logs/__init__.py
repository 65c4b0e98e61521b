"""
The form of log records: the fields that identify a run or attempt, and the lines of a terminal or of a JSON stream.

It needs only the standard library and the settings' sources, since a task's process loads it before the author's code.
Not here: the records of a process (tracing), and their export (tracing).
"""
