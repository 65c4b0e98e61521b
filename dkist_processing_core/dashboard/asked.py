"""
What a page is asked for, and what it answers: values for a template.

A page is a function of `Asked`; it neither reads the clock nor writes HTML. Not here: the pages (pages), and rendering
them (html.rendering).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.dashboard.site import Site


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a page."""

    path: str
    query: Mapping[str, str]
    """The parameters of the address; of a repeated one, the last."""
    questions: Questions
    """One state of the store."""
    now: datetime
    at: datetime | None
    """The time of the past that is asked for; None for the present."""
    site: Site

    def text(self, name: str) -> str | None:
        """Return a parameter; None if it is missing or empty."""
        return self.query.get(name) or None

    def check_past(self, latest: datetime, meaning: str) -> None:
        """
        Refuse a time of the past that is later than the latest one of which something is known.

        Raises:
            PageError: It is later; the message has the meaning of the latest time.
        """
        if self.at is not None and self.at > latest:
            msg = f"found at={self.at.isoformat()}, expected a time that is not later than {meaning}"
            raise PageError(msg)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows: the values for its template."""

    title: str
    template: str
    values: Mapping[str, object]
    status: int = 200
    is_live: bool = True
    """Whether it is rendered again after each change; False if that would ask more than the store."""


PageFunction = Callable[[Asked], Page]


class PageError(Exception):
    """A page cannot be shown: the address is wrong, or what it names does not exist. The message is for the viewer."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Store what was found and what was expected, and the status of the answer."""
        super().__init__(message)
        self.status = status


def no_runs_of(workflow_name: str) -> PageError:
    """Return the error for a workflow that the store does not know."""
    msg = f"the store has no run of the workflow {workflow_name!r}, expected the name of a workflow with runs"
    return PageError(msg, 404)
