"""
A mark, a name and its texts: one row of a report.

Not here: the texts (doctor.examination, topology.plan).
"""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from dkist_processing_core.cli.draw.words import broken, one_line

_LEAST_ROOM = 20
_MOST_LINES = 20


def rows(head: Text, texts: Iterable[tuple[str, str]], console: Console) -> Iterator[Text]:
    """Yield the lines of texts, each with its style, after a head; on a terminal, long texts stay in their column."""
    indent = " " * head.cell_len
    room = max(_LEAST_ROOM, console.width - head.cell_len) if console.is_terminal else None
    for text, style in texts:
        for part in [one_line(text)] if room is None else broken(one_line(text), room, _MOST_LINES, "..."):
            if part:
                yield head.append(part, style)
                head = Text(indent)
