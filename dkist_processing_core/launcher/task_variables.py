"""
The environment variables of a task's process: the launcher's variables without the engine's, plus the task's own.

Not here: the environment in which the task's packages are installed (environments).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from dkist_processing_core.environments import Environment
from dkist_processing_core.identity import PREFIX, Attempt, Run
from dkist_processing_core.identity.trace_context import TRACEPARENT, TRACESTATE, attempt_traceparent
from dkist_processing_core.launcher.assignment import (
    DELIVERED,
    ENGINE_FD,
    EXTRAS,
    OVERDUE_AFTER,
    PACKAGE,
    QUEUE,
    QUEUED_AT,
    RECORD_FD,
    Assignment,
)
from dkist_processing_core.launcher.bootstrap import FILE, FLAGS, LOADING, MODULE, SEARCH_PATH, variables
from dkist_processing_core.recorder.region import VARIABLE as RECORDER_FD
from dkist_processing_core.settings import origin

# The engine's settings, connections and variables, under all the names under which Airflow and Celery read them.
_ENGINES = re.compile(r"_*AIRFLOW__|_+AIRFLOW|AIRFLOW_(CONN|VAR)_|CELERY|.*SQL_ALCHEMY", re.IGNORECASE)
_LAUNCHERS = frozenset(
    {
        *Attempt(
            Run("", "", "", 0), "", 1, 1, log_url="", report_fd=0, started_fd=0, start_id="", process_began=0.0
        ).to_environ(),
        *(
            MODULE,
            FILE,
            FLAGS,
            SEARCH_PATH,
            LOADING,
            PACKAGE,
            EXTRAS,
            OVERDUE_AFTER,
            QUEUE,
            QUEUED_AT,
            DELIVERED,
            ENGINE_FD,
            RECORD_FD,
            RECORDER_FD,
            f"{PREFIX}PYTHON",
        ),
        origin.VARIABLE,
    }
)
# Variables by which this interpreter finds its packages; they do not apply to another interpreter.
_INTERPRETERS = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"})


def without_launchers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables except those that identify a launcher or a launched task."""
    return {name: value for name, value in environ.items() if name not in _LAUNCHERS}


def task_environ(
    environ: Mapping[str, str],
    assignment: Assignment,
    environment: Environment | None,
    *,
    report_fd: int,
    started_fd: int,
    start_id: str,
    recorder_fd: int | None = None,
    process_began: float | None = None,
    carrier: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """
    Return the variables of the task's process, with the task's own environment activated if it has one.

    Args:
        environ: The launcher's variables.
        assignment: The attempt and the location of the task.
        environment: The task's own environment; None if it runs in the launcher's.
        report_fd: The descriptor on which the task reports.
        started_fd: The descriptor on which the task receives notices.
        start_id: The id by which the task notes its end on this host.
        recorder_fd: The descriptor of the memory in which the task records what it does; None without a recorder.
        process_began: When the process is started, in the time of `time.monotonic`.
        carrier: The context of the attempt's span, as variables. None if that span is not created yet; it will
            have the ids that are derived from the attempt.
    """
    attempt = assignment.attempt
    kept = {name: value for name, value in without_launchers(environ).items() if not _ENGINES.match(name)}
    if carrier is None:
        carrier = {TRACEPARENT: attempt_traceparent(attempt, environ)}
    else:
        kept.pop(TRACESTATE, None)
    located = assignment.located
    if environment is not None:
        located = {MODULE: located[MODULE]}
        kept = {name: value for name, value in kept.items() if name not in _INTERPRETERS}
        kept["VIRTUAL_ENV"] = environment.folder
        kept["PATH"] = os.pathsep.join([environment.bin, kept.get("PATH", os.defpath)])
    return (
        kept
        | replace(
            attempt, report_fd=report_fd, started_fd=started_fd, start_id=start_id, process_began=process_began
        ).to_environ()
        | located
        | origin.Origin.of_process().to_environ()
        | dict(carrier)
        | {"PYTHONUNBUFFERED": "1"}
        | ({} if recorder_fd is None else {RECORDER_FD: str(recorder_fd)})
        | variables()
    )
