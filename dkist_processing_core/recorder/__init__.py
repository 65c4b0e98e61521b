"""
The recorder of one attempt: shared memory in which a task's process leaves what it does, for its launcher to read.

It needs only the standard library, since a task's process loads it before the author's code. Not here: the events that
contain what was recorded (events), and the launcher's use of it (launcher).
"""
