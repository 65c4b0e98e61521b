"""
A console of rich that prints through the `terminal` module's escaping, and what depends on its width and colours.

Not here: plain text, and the choice of the characters that are shown as escapes (terminal).
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from dkist_processing_core.text.terminal import visible, write_line

ATTENTION = "magenta"
"""The colour of what is neither a success nor a failure; yellow can hardly be read on a white background."""
_BEFORE_UNIT = re.compile(r"\d (?:ms|s|min|h|d|B|[KMGTP]B)\b")


class Terminal(Console):
    """A console of rich that passes all text that it prints through `visible`."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable with their text escaped; rich's own control codes are unchanged."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    @property
    def columns(self) -> int | None:
        """The width of the terminal in cells; None if there is no terminal, so that nothing is folded in a file."""
        if not self.file.isatty():
            return None
        if os.environ.get("COLUMNS", "").isdigit():
            return self.width
        # Of a terminal that obeys no escapes, rich only assumes the width.
        return os.get_terminal_size(self.file.fileno()).columns or self.width

    def print_line(self, line: Text, indent: int = 2) -> None:
        """Print a line; on a terminal it is folded at blanks, and its later lines are indented."""
        columns = self.columns
        for part in [line] if columns is None else folded(line, columns, indent):
            self.print(part, soft_wrap=True)


def print_remark(text: str) -> None:
    """Print a text to the standard error stream, separate from output that may be piped."""
    Terminal(stderr=True, highlight=False).print_line(Text.assemble((text, "dim")))


def print_text(text: str, *, err: bool = False) -> None:
    """Print a text to a standard stream; on a terminal each line is folded at blanks."""
    write_line(folded_text(text, err=err), err=err)


def folded_text(text: str, *, err: bool = False) -> str:
    """Return a text as it is printed to a standard stream: if that is a terminal, its lines are folded at blanks."""
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty() or not (columns := Terminal(stderr=err).columns):
        return text
    lines = (part for line in text.split("\n") for part in folded(Text(visible(line)), columns, 2))
    return "\n".join(part.plain for part in lines)


def folded(line: Text, width: int, indent: int) -> Iterator[Text]:
    """
    Yield a line as lines of at most `width` cells, the later ones indented; a word is only cut if it fits in no line.

    A width below 4 counts as 4: a character may take two cells.
    """
    width = max(4, width)
    head, rest = Text(), line
    while head.cell_len + rest.cell_len > width:
        room = width - head.cell_len
        cut = _fitting(rest.plain, room)
        at = _last_gap(rest.plain, cut)
        first = head + rest[:at]
        first.rstrip()
        yield first
        rest = rest[at:]
        rest = rest[len(rest.plain) - len(rest.plain.lstrip(" ")) :]
        head = Text(" " * min(indent, width // 2))
    if rest or not head:
        yield head + rest


def _last_gap(text: str, cut: int) -> int:
    """Return the place of the last blank up to `cut` that follows a word, if possible not one before a unit."""
    blanks = [at for at in range(cut, -1, -1) if text[at : at + 1] == " " and text[:at].strip()]
    return next((at for at in blanks if not _BEFORE_UNIT.match(text, at - 1)), next(iter(blanks), cut))


def _fitting(text: str, width: int) -> int:
    """Return the number of characters that fit into a width."""
    cells = 0
    for at, character in enumerate(text):
        cells += cell_len(character)
        if cells > width:
            return at
    return len(text)
