"""
The lines of a sheet about one thing: texts beside a name, and blocks of lines below a title.

Not here: the texts (draw.task_sheet, draw.stack_sheet).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from dkist_processing_core.text.console import folded
from dkist_processing_core.text.terminal import visible

WITHOUT_TERMINAL = 200
"""The width of what needs one, without a terminal."""
LABEL = 16
INDENT = 2


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet in a terminal of a width; without a terminal nothing is cut or folded."""

    width: int | None

    @property
    def room(self) -> int:
        """The width, also without a terminal."""
        return self.width or WITHOUT_TERMINAL

    def rows(self, rows: Iterable[tuple[str, str]]) -> Iterator[Text]:
        """Yield names and texts beside them."""
        for name, text in rows:
            yield from self.row(name, text)

    def row(self, name: str, text: str) -> Iterator[Text]:
        """Yield a name and a text beside it; nothing without a text."""
        if text:
            yield from self.line(Text.assemble((f"{name:<{LABEL}}", "dim"), visible(text)), indent=INDENT + LABEL)

    def block(self, title: str, lines: Sequence[str]) -> Iterator[Text]:
        """Yield a title and the lines of a text below it."""
        yield from self.line(title, "dim")
        for each in lines:
            yield from self.line(Text(f"  {visible(each.expandtabs(4))}".rstrip()), indent=3 * INDENT)

    def line(self, words: "str | Text", style: str = "", *, indent: int = 2 * INDENT) -> Iterator[Text]:
        """Yield a text on as many lines as it needs."""
        text = Text.assemble(" " * INDENT, words if isinstance(words, Text) else (visible(words), style))
        text.rstrip()
        yield from [text] if self.width is None else folded(text, self.width, indent)
