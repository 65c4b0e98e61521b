"""
Values as short texts for messages: any value, a duration, a size, a number of things, an amount of progress.

Not here: cleaning and clipping of longer texts (_cleaning).
"""

import operator
import re
import reprlib
from collections.abc import Mapping

from dkist_processing_core.text.exception_text import class_name, plain
from dkist_processing_core.text.redaction import redact

_MOST_DIGITS = 15
_UNITS, _THOUSAND = ("B", "KB", "MB", "GB", "TB", "PB"), 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MOST_DAYS = 99_999
_LONGEST_ERROR = 160
_PHASES, _SHORTEST_SECONDS = ("pre_run", "run", "post_run"), 0.1


def show(value: object, length: int = 40) -> str:
    """
    Return the repr of any value in at most `length` characters; it never raises an exception.

    A text is redacted before it is cut: a part of a secret would not be recognised.
    """
    brief = reprlib.Repr()
    brief.maxstring = brief.maxlong = brief.maxother = length
    brief.maxlevel = 2
    try:
        text = plain(brief.repr(redact(value) if type(value) is str else value))
    except BaseException:  # noqa: BLE001 - a foreign __repr__ may raise anything, and an int of 4300 digits has none
        text = f"<{class_name(type(value))}>"
    # Some reprs have several lines, for example that of a table of numbers; a message is one line.
    text = re.sub(r"\s*[\r\n]\s*", " ", text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def error_line(error_type: object, message: object) -> str:
    """
    Return an error as one line of at most 160 characters, without secrets; "" if it has no type.

    >>> error_line("solar.LimbError", "no limb in frame 3")
    'LimbError: no limb in frame 3'
    """
    if not error_type:
        return ""
    name = str(error_type).rpartition(".")[2]
    # Redacted before it is cut: a part of a secret would not be recognised.
    first = next((line.strip() for line in redact(str(message or "")).splitlines() if line.strip()), "")
    text = f"{name}: {first}" if first else name
    return text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR - 1]}…"


def size(count: int) -> str:
    """
    Return a number of bytes in the largest decimal unit that leaves a whole part.

    >>> [size(each) for each in (512, 183_500_000, 2_640_000_000)]
    ['512 B', '184 MB', '2.6 GB']
    """
    value, unit = float(min(count, 10**_MOST_DIGITS)), 0
    while value >= _THOUSAND - 0.5 and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 10 and unit else f"{value:.0f} {_UNITS[unit]}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """
    Return a duration as text in at most two units.

    >>> [duration(each) for each in (0.0123, 2.14, 12.36, 125, 8040, 273600)]
    ['12 ms', '2.1 s', '12.4 s', '2 min 05 s', '2 h 14 min', '3 d 4 h']
    """
    if seconds < 0.0995:  # noqa: PLR2004 - below it, one decimal of a second is too coarse
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f} s"
    if seconds > _MOST_DAYS * _DAY:
        # A sum of long durations may be infinite.
        return f"over {_MOST_DAYS} d"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def parts_of_attempt(phases: Mapping[str, float], preparation_seconds: float | None = None) -> str:
    """
    Return the times beside an attempt's duration as text, each with its name: its environment, then its phases.

    A phase of less than 0.1 s is left out, except `run`.

    >>> parts_of_attempt({"pre_run": 0.0, "run": 0.002, "post_run": 1.25}, preparation_seconds=3.0)
    'environment 3.0 s, 2 ms in run, 1.2 s in post_run'
    """
    # Only the known phases: an event may come from a foreign publisher.
    entered = {name: phases[name] for name in _PHASES if name in phases}
    shown = [
        f"{duration(seconds)} in {name}"
        for name, seconds in entered.items()
        if name == "run" or seconds >= _SHORTEST_SECONDS
    ]
    prepared = [] if preparation_seconds is None else [f"environment {duration(preparation_seconds)}"]
    return ", ".join([*prepared, *shown])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """
    Return a number of things, with the noun in the singular for one thing, otherwise in the plural.

    >>> [counted(0, "task"), counted(1, "task"), counted(12, "retry", "retries")]
    ['0 tasks', '1 task', '12 retries']
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def amount(done: float, total: float | None, unit: str | None) -> str:
    """
    Return a text for an amount of progress.

    >>> amount(3, 12, "frame"), amount(0.5, None, None)
    ('3/12 frame', '0.5')
    """
    text = _number(done) if total is None else f"{_number(done)}/{_number(total)}"
    return f"{text} {unit}" if unit else text


def _number(value: float) -> str:
    # Up to this limit every whole number is exact as a float; beyond it, an int may be longer than any line.
    if abs(value) >= 10**_MOST_DIGITS:
        return "very many"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def whole_number(value: object) -> int | None:
    """Return a value of any integer class, such as those of tables, as an int; None for a bool or anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type] # any value is tried
    except Exception:  # noqa: BLE001 - a foreign class may raise anything
        return None
