"""
The parameters of requests to the API, read from the query.

Each function raises a PageError for a text that is not of its kind. Not here: their declarations (endpoints).
"""

from datetime import UTC, datetime

from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.identity import MAX_NUMBER, Run
from dkist_processing_core.runs import State


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


def moment_of(asked: Asked, name: str) -> datetime | None:
    """Return a time; None without one."""
    text = asked.text(name)
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        msg = f"found {name}={text!r}, expected a time by ISO 8601, as 2026-11-29T12:00:00Z"
        raise PageError(msg) from None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def run_in(asked: Asked, prefix: str = "") -> Run:
    """Return the run that `workflow`, `version` and `id` name; the last two may have a prefix."""
    version, run_id = (f"{prefix}_version", prefix) if prefix else ("version", "id")
    return Run(text_of(asked, "workflow"), asked.query.get(version, ""), text_of(asked, run_id), None)


def choice_of(asked: Asked) -> Choice:
    """Return the choice of runs and failures."""
    state = asked.text("state")
    if state is not None and state not in list(State):
        msg = f"found state={state!r}, expected one of {', '.join(State)}"
        raise PageError(msg)
    return Choice(
        since=moment_of(asked, "since"),
        until=moment_of(asked, "until"),
        workflow=asked.text("workflow"),
        version=asked.text("version"),
        states=() if state is None else (State(state),),
        cause=asked.text("cause"),
        recipe_run_id=number_of(asked, "recipe", 0) if asked.text("recipe") else None,
        family=asked.text("family"),
        text=asked.text("q"),
    )
