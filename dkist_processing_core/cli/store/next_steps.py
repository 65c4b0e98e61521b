"""
What an operator does next about a family of failures, by the cause of the failures.

Not here: the causes (events.facts), and the drawing (draw.family_sheet).
"""

from collections.abc import Iterator

from dkist_processing_core.collect.questions.answers import Family
from dkist_processing_core.events import Cause

_BY_CAUSE = {
    Cause.EXCEPTION: ("correct the task or its data", "the last frame of the stack raised the exception"),
    Cause.OUT_OF_MEMORY: ("give the task more memory, or less data", "its memory limit was reached"),
    Cause.TIMEOUT: ("raise the time limit of the engine, or find out what the task waits for", "the limit was reached"),
    Cause.TERMINATED: ("find out who ended it", "an operator, the engine, or a host that was shut down"),
    Cause.SIGNAL: (
        "look into the kernel's log of the host, and the log of the task",
        "SIGKILL comes from outside the task, SIGSEGV and SIGBUS from compiled code",
    ),
    Cause.EXIT_CODE: ("find the call that ends the process", "the task, or a library, called sys.exit or os._exit"),
    Cause.LOST: ("look whether the host was restarted or the engine killed", "no process was left to report the end"),
    Cause.ENVIRONMENT: ("dkist-core environments build", "on that host, it repeats the build and shows its errors"),
    Cause.CONFIGURATION: ("correct the variables of the run", "the task was not started with them"),
}


def next_steps(family: Family, short_id: str) -> Iterator[tuple[str, str]]:
    """
    Yield the steps, each with its reason.

    Args:
        family: The family.
        short_id: The short id of the run in which it occurred last.
    """
    last = family.last
    yield f"dkist-core runs show {short_id}", "the last run, with all its attempts"
    if last.log_url is not None:
        yield "read the log of the last attempt", last.log_url
    by_cause = None if last.cause is None else _BY_CAUSE.get(Cause(last.cause))
    if by_cause is not None:
        yield by_cause
    if family.final:
        yield "then repeat the task", "clear it in Airflow, or run the workflow again"
    else:
        yield "nothing has to be repeated", "another attempt followed each of these"
