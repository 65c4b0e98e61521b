"""
Texts that fit into a drawing, in which no text can wrap.

Not here: the places of the texts (graph).
"""

import unicodedata
from functools import lru_cache

from dkist_processing_core.text.terminal import visible_line

_ELLIPSIS = "…"
# A page that goes on shows the same names again and again.
_MOST_KNOWN = 8192


@lru_cache(maxsize=_MOST_KNOWN)
def fitted(text: str, columns: int) -> str:
    """
    Return a text in at most `columns` columns: one for most characters, two for wide ones as in Chinese.

    Of a longer text the middle is left out, since names often differ at their end. Characters that are not shown, or
    that would turn the direction of the text, are escapes.

    >>> fitted("AssembleMovieOfTheFirstDay", 15)
    'Assembl…irstDay'
    """
    shown = visible_line(text)
    if columns_of(shown) <= columns:
        return shown
    half = (columns - 1) // 2
    return f"{_cut(shown, columns - 1 - half)}{_ELLIPSIS}{_cut(shown[::-1], half)[::-1]}"


def columns_of(text: str) -> int:
    """Return the number of columns that a text takes."""
    return len(text) if text.isascii() else len(text) + sum(unicodedata.east_asian_width(each) in "WF" for each in text)


def _cut(text: str, columns: int) -> str:
    if text.isascii():
        return text[:columns]
    left = columns
    for place, character in enumerate(text):
        left -= columns_of(character)
        if left < 0:
            return text[:place]
    return text
