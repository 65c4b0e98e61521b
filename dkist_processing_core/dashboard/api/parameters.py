"""
The parameters of requests to the API, read from the query.

Each function raises a PageError for a text that is not of its kind. Not here: their declarations (endpoints), and a run
or a choice of runs, which are read as the pages do (one_run.chosen, dashboard.pages.runs).
"""

from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.identity import MAX_NUMBER


def text_of(asked: Asked, name: str) -> str:
    """Return a text that must be there."""
    text = asked.text(name)
    if text is None:
        msg = f"the parameter {name!r} is missing"
        raise PageError(msg)
    return text


def number_of(asked: Asked, name: str, least: int, *, default: int | None = None, most: int = MAX_NUMBER) -> int:
    """Return a whole number from `least` to `most`; without a default it must be there."""
    text = text_of(asked, name) if default is None else asked.text(name) or str(default)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) else None
    if number is None or not least <= number <= most:
        msg = f"found {name}={text!r}, expected a whole number from {least} to {most}"
        raise PageError(msg)
    return number
