"""
What rich prints, through the door to the terminal.

Not here: plain text, and which characters are shown as escapes (terminal).
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from dkist_processing_core.terminal import visible


class Terminal(Console):
    """A console of rich's that shows the text of everything it prints as `visible` does."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return what a renderable consists of; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
