"""
The facts of an attempt that its own process knows, as fields of events: cause of failure, progress, processor time.

Not here: the description of an exception (events).
"""

import resource
import signal
from typing import Any

from dkist_processing_core.events import Cause, describe
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.text import show, whole_number


def failure_of(error: BaseException) -> dict[str, Any]:
    """Return the facts of a failure, derived from the exception that the attempt raised."""
    failure: dict[str, Any] = {**describe(error)}
    # Read by the type, and by the slot of SystemExit: properties of the same names would run the author's code.
    if issubclass(type(error), TerminationError):
        failure |= {"cause": Cause.TERMINATED, "signal": vars(error)["signal"].name}
    elif issubclass(type(error), SystemExit):
        code = vars(SystemExit)["code"].__get__(error)
        # As the interpreter and the system do: None is 0; a value that is not a number is printed and exits 1; of a
        # number the lowest eight bits are kept.
        number = int.__and__(code, 0xFF) if issubclass(type(code), int) else int(code is not None)
        failure |= {"cause": Cause.EXIT_CODE, "exit_code": number}
    elif issubclass(type(error), KeyboardInterrupt):
        failure |= {"cause": Cause.SIGNAL, "signal": signal.SIGINT.name}
    return failure


def plain(value: Any) -> Any:
    """Return a number or text as a value of a built-in type; anything else as text that no event reads as a number."""
    if value is None or type(value) in (int, float, str, bool):
        return value
    if issubclass(type(value), str):
        return str.__str__(value)
    number = whole_number(value)
    try:
        return float(value) if number is None else number
    except Exception:  # noqa: BLE001 - an author's value may raise anything
        return show(value)


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
