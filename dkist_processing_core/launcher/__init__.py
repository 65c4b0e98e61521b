"""
The parent of a task's process: it prepares the environment, starts the task, and reports the end if the task does not.

    python -m dkist_processing_core.launcher

All its input comes from environment variables (assignment). It publishes `task.dispatched` and `task.started`. It
forwards SIGTERM to the task and kills the task's process group 4 s later. It publishes the end of a task that has not
reported its own end, exports the attempt's span, and exits with the task's exit status. This module imports nothing, so
that signals can be blocked before anything else is imported. Not here: the task's process (bootstrap, attempt).
"""
