"""
The facts of an attempt that its own process knows, as fields of events: cause of failure, progress, processor time.

Not here: the description of an exception (events).
"""

import contextlib
import resource
import signal
from typing import Any

from dkist_processing_core.events import Cause, Resources, describe
from dkist_processing_core.process.peak_memory import peak_memory_bytes
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.text import show, whole_number

_RESOURCES = frozenset(Resources.__struct_fields__)
_IO = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes")


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


def used_so_far() -> dict[str, float]:
    """Return what this process, and its children that have ended, have used, as fields of `Resources`."""
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used: dict[str, float] = {
        name: sum(getattr(each, field) for each in usages)
        for name, field in (
            ("cpu_user_seconds", "ru_utime"),
            ("cpu_system_seconds", "ru_stime"),
            ("vol_ctxt", "ru_nvcsw"),
            ("inv_ctxt", "ru_nivcsw"),
        )
    }
    # Some sandboxes have no such file.
    with contextlib.suppress(OSError, ValueError), open("/proc/self/io", "rb") as file:  # noqa: PTH123 - as proc is read
        found = dict(line.decode().split(": ") for line in file)
        used |= {name: int(found[name]) for name in _IO if name in found}
    return used


def measurements(before: dict[str, float], samples: dict[str, Any]) -> dict[str, Any]:
    """
    Return the measurements of an attempt that ends now, as fields of `TaskEnd`.

    Args:
        before: What this process had used before the attempt.
        samples: What a launcher measured of all processes a moment ago: `resources` and `profile`; empty without one.
    """
    own = {name: max(0, value - before.get(name, 0)) for name, value in used_so_far().items()}
    peak_memory = peak_memory_bytes()
    facts: dict[str, Any] = {
        "cpu_seconds": own["cpu_user_seconds"] + own["cpu_system_seconds"],
        "peak_memory_bytes": peak_memory,
    }
    # A newer launcher may measure more.
    sampled = {name: value for name, value in samples.get("resources", {}).items() if name in _RESOURCES}
    if sampled and peak_memory is not None:
        own["peak_rss"] = peak_memory
    # Neither includes all: the one was measured earlier, the other without the children that live.
    facts["resources"] = Resources(**sampled | {name: max(value, sampled.get(name, 0)) for name, value in own.items()})
    if profile := samples.get("profile"):
        facts["profile"] = tuple(map(tuple, profile))
    return facts
