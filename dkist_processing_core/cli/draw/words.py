"""
Format sizes and foreign text for a terminal.

Not here: durations and counts (text), colours, and the texts about an event (draw.facts) or a run (draw.timeline).
"""

import shlex
from collections.abc import Iterator
from datetime import datetime, tzinfo

from rich.cells import cell_len, set_cell_size

from dkist_processing_core.text.terminal import visible, visible_line

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000
_MOST_DIGITS = 15


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


def named_recipe_run(recipe_run_id: int | None) -> str:
    """Return a text for a recipe run; a run without a usable recipe run id has no number."""
    return "no recipe run" if recipe_run_id is None else f"recipe run {recipe_run_id}"


def local_time(moment: datetime, form: str, zone: tzinfo | None) -> str:
    """Return a time as text in a time zone, by default the local one."""
    try:
        return moment.astimezone(zone).strftime(form)
    except (OverflowError, ValueError):
        # At the limits of the calendar, some times cannot be expressed in another zone.
        return moment.strftime(form)


def one_line(text: str) -> str:
    """Return the first line of a text that is not blank, with single spaces, escaped: suitable for a row."""
    return visible(next((evened for line in text.splitlines() if (evened := " ".join(line.split()))), ""))


def pasted(name: str) -> str | None:
    """Return a name quoted for a shell; None for a name that a terminal does not show unchanged."""
    return shlex.quote(name) if visible_line(name) == name else None


def short_type(error_type: str) -> str:
    """
    Return the name of an error's class without its modules.

    >>> short_type("solar_calibration.errors.LimbNotFoundError")
    'LimbNotFoundError'
    """
    return one_line(error_type).rpartition(".")[2]


def fitted(text: str, width: int, ellipsis: str) -> str:
    """Return a text in exactly `width` cells of a terminal: padded, or cut with an ellipsis."""
    if cell_len(text) > width >= len(ellipsis):
        return set_cell_size(text, width - len(ellipsis)) + ellipsis
    return set_cell_size(text, width)


def broken(text: str, width: int, lines: int, ellipsis: str) -> Iterator[str]:
    """Yield a text in at most `lines` lines of `width` cells, broken between words if possible; the last is cut."""
    rest = text
    for _ in range(lines - 1):
        if cell_len(rest) <= width:
            break
        cut = len(set_cell_size(rest, width))
        # A character of two cells at the border was counted, but does not fit.
        cut -= cell_len(rest[:cut]) > width
        space = rest.rfind(" ", 0, cut + 1)
        at = space if space > cut // 2 else cut
        yield rest[:at].rstrip()
        rest = rest[at:].lstrip()
    if rest:
        yield fitted(rest, width, ellipsis).rstrip()
