"""
A console of rich that prints through the `terminal` module's escaping.

Not here: plain text, and the choice of the characters that are shown as escapes (terminal).
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from dkist_processing_core.text.terminal import visible


class Terminal(Console):
    """A console of rich that passes all text that it prints through `visible`."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable with their text escaped; rich's own control codes are unchanged."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
