"""
A mark, a name and its texts: one row of a report.

Not here: the texts (doctor.examination, topology.plan).
"""

from collections.abc import Iterable, Iterator

from rich.text import Text

from dkist_processing_core.cli.draw.words import broken
from dkist_processing_core.text.console import Terminal
from dkist_processing_core.text.terminal import one_line

_LEAST_ROOM = 20
_MOST_LINES = 20


def rows(head: Text, texts: Iterable[tuple[str, str]], console: Terminal) -> Iterator[Text]:
    """Yield the lines of texts, each with its style, after a head; on a terminal, long texts stay in their column."""
    indent = " " * head.cell_len
    columns = console.columns
    room = None if columns is None else max(_LEAST_ROOM, columns - head.cell_len)
    for text, style in texts:
        for part in [one_line(text)] if room is None else broken(one_line(text), room, _MOST_LINES, "..."):
            if part:
                yield head.append(part, style)
                head = Text(indent)
