"""
Text cleaned of characters that events may not hold, and clipped to a limit.

Not here: the removal of secrets (redaction).
"""

import re
from collections.abc import Callable

from dkist_processing_core.text.redaction import REPLACEMENT, UNCLEAN

CUT = "[cut]"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_UNCLEAN_IN_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Return the text with control characters (except newline and tab) and lone surrogates replaced by U+FFFD."""
    return UNCLEAN.sub(REPLACEMENT, text)


def encodable(text: str) -> str:
    """Return the text with lone surrogates replaced by U+FFFD: UTF-8 has none, and names of files may have them."""
    return text if text.isascii() else _SURROGATES.sub(REPLACEMENT, text)


def clean_line(text: str) -> str:
    """Return the cleaned text with newlines and tabs replaced too, which an attribute of a CloudEvent may not hold."""
    # Most texts need no cleaning, and this check takes half the time of the search.
    return text if text.isascii() and text.isprintable() else _UNCLEAN_IN_LINE.sub(REPLACEMENT, text)


def clip(text: str, fits: Callable[[str], bool], *, keep_end: bool = False) -> str:
    """
    Return the longest part of `text` that `fits`, with a mark at the cut; "" if not even the mark fits.

    `fits` must be monotonic: if a text fits, every shorter part of it must fit too.
    """
    if fits(text):
        return text
    if not fits(_marked(text, 0, keep_end=keep_end)):
        return ""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_marked(text, middle, keep_end=keep_end)) else (low, middle - 1)
    return _marked(text, low, keep_end=keep_end)


def _marked(text: str, length: int, *, keep_end: bool) -> str:
    return f"{CUT}\n{text[len(text) - length :]}" if keep_end else f"{text[:length]}{CUT}"
