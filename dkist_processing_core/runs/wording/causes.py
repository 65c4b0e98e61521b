"""
What each cause of a failure means, in a sentence for readers who see it for the first time.

Not here: the causes (events), and the text of one failure (facts).
"""

from dkist_processing_core.events import Cause

_MEANINGS: dict[str, str] = {
    Cause.LOST: "No process reported the end of the attempt: its host or its worker disappeared, or was restarted.",
    Cause.EXIT_CODE: "The process ended by itself with an exit code that means a failure, without an exception.",
    Cause.SIGNAL: "The process was ended from outside by a signal, so that it could not report anything itself.",
    Cause.TERMINATED: "The attempt was asked to end, by a person, the engine or the shutdown of its host.",
    Cause.TIMEOUT: "The attempt took longer than the engine allows, and was ended.",
    Cause.OUT_OF_MEMORY: "The processes needed more memory than their control group or host has, and were ended.",
    Cause.EXCEPTION: "The code of the task raised an exception; the stack shows where.",
    Cause.ENVIRONMENT: "The environment of the task could not be built or started; the code of the task did not run.",
    Cause.CONFIGURATION: "A setting is wrong or missing; the code of the task did not run.",
}


def meaning_of(cause: str) -> str | None:
    """Return what a cause means; None for a cause of a newer release."""
    return _MEANINGS.get(cause)
