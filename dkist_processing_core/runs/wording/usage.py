"""
What an attempt has used, as texts: beside what was planned, where the control group states that.

Not here: the course of it (cli.draw.course).
"""

from collections.abc import Callable, Iterator

from dkist_processing_core.events import Resources
from dkist_processing_core.text import counted, duration, size

_MOST_PROCESSORS = 1e6


def used(resources: Resources, seconds: float | None) -> Iterator[tuple[str, str]]:
    """
    Yield a text for each kind of use, with its name; what was not measured is left out.

    Args:
        resources: What was used.
        seconds: In which time, for the mean; None if it is not known.
    """
    rows = {
        "memory": _memory(resources),
        "CPU": _cpu(resources, seconds),
        "storage": _read_and_written(resources.read_bytes, resources.write_bytes),
        "system calls": _read_and_written(resources.rchar, resources.wchar, resources.syscr, resources.syscw),
        "most at a time" if resources.rss is None else "now": _numbers(resources),
        "switches": _joined(
            _number(resources.vol_ctxt, "voluntary"),
            _number(resources.inv_ctxt, "involuntary"),
        ),
        "pressure": _pressure(resources),
    }
    yield from ((name, text) for name, text in rows.items() if text)


def share(part: float, whole: float) -> str:
    """
    Return a part of a whole as text; "" of nothing.

    >>> share(184, 2000)
    '9 %'
    """
    return f"{part / whole * 100:.0f} %" if whole else ""


def _memory(resources: Resources) -> str:
    now = None if resources.rss is None else f"{size(resources.rss)} now"
    peak, limit = resources.peak_rss, resources.memory_limit_bytes
    most = None if peak is None else f"{size(peak)} at most"
    planned = None
    if limit is not None:
        of_limit = f" ({share(peak, limit)})" if peak is not None and limit else ""
        planned = f"of {size(limit)}{of_limit}"
    text = _joined(now, most)
    return f"{text} {planned}" if text and planned else text


def _cpu(resources: Resources, seconds: float | None) -> str:
    user, system = resources.cpu_user_seconds, resources.cpu_system_seconds
    if user is None and system is None:
        return ""
    total = (user or 0.0) + (system or 0.0)
    text = f"{duration(total)} ({_joined(_seconds(user, 'user'), _seconds(system, 'system'))})"
    if not seconds:
        return text
    planned = "" if resources.cpu_limit is None else f" of {resources.cpu_limit:g}"
    return f"{text}, {total / seconds:.1f}{planned} processors on average"


def _read_and_written(
    read: int | None, written: int | None, reads: int | None = None, writes: int | None = None
) -> str:
    def one(count: int | None, calls: int | None, verb: str) -> str | None:
        in_calls = "" if calls is None else f" in {counted(calls, 'call')}"
        return None if count is None else f"{size(count)} {verb}{in_calls}"

    return _joined(one(read, reads, "read"), one(written, writes, "written"))


def _numbers(resources: Resources) -> str:
    return _joined(
        None if resources.processes is None else counted(resources.processes, "process", "processes"),
        None if resources.threads is None else counted(resources.threads, "thread"),
        None if resources.open_files is None else counted(resources.open_files, "open file"),
    )


def _pressure(resources: Resources) -> str:
    seconds = {
        "CPU": resources.cpu_pressure_seconds,
        "memory": resources.memory_pressure_seconds,
        "input or output": resources.io_pressure_seconds,
    }
    text = _joined(*(None if each is None else f"{name} {duration(each)}" for name, each in seconds.items()))
    # Of all processes in it, whether the attempt waited or not.
    return f"of its control group: {text}" if text else ""


def _number(count: int | None, what: str) -> str | None:
    return None if count is None else f"{count:,} {what}"


def _seconds(seconds: float | None, what: str) -> str | None:
    return None if seconds is None else f"{duration(seconds)} {what}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part is not None)


def _size(count: float) -> str:
    return size(round(count))


def _processors(share: float) -> str:
    return f"{min(share, _MOST_PROCESSORS):.1f} processors"


def _rate(count: float) -> str:
    return f"{_size(count)}/s"


KINDS_OF_USE: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("memory", _size),
    ("CPU", _processors),
    ("read", _rate),
    ("written", _rate),
)
"""The kinds of use in a point of a profile, in the order of its values, each with the function that words a value."""
