"""
Format foreign text and times for a terminal.

Not here: durations, sizes and counts (text), colours, and the texts about an event (runs.wording.facts) or a run
(draw.timeline).
"""

import shlex
import time
from collections.abc import Iterator
from datetime import datetime, tzinfo

from rich.cells import cell_len, set_cell_size

from dkist_processing_core.text import duration
from dkist_processing_core.text.terminal import visible_line


def local_time(moment: datetime, form: str, zone: tzinfo | None) -> str:
    """Return a time as text in a time zone, by default the local one."""
    try:
        return moment.astimezone(zone).strftime(form)
    except (OverflowError, ValueError):
        # At the limits of the calendar, some times cannot be expressed in another zone.
        return moment.strftime(form)


def restriction(since: datetime | None, *, is_of_some: bool, zone: tzinfo | None = None) -> str:
    """Return what restricts a choice, to follow the statement that it has nothing."""
    when = "" if since is None else f" since {local_time(since, '%Y-%m-%d %H:%M:%S', zone)}"
    return f"{' in this choice' if is_of_some else ''}{when}"


def pasted(name: str) -> str | None:
    """Return a name quoted for a shell; None for a name that a terminal does not show unchanged."""
    return shlex.quote(name) if visible_line(name) == name else None


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


def age(moment: float) -> str:
    """Return the time since a moment, in seconds since 1970, as text."""
    return duration(max(0.0, time.time() - moment))
