"""
The results of the doctor's checks.

Not here: the checks themselves (doctor.journal, doctor.broker, doctor.collectors).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.settings.interface import Settings


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "skipped"
    """The checked part is not in use, or cannot be checked until another problem is solved."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, with advice."""

    name: str
    status: Status
    detail: str
    advice: str | None = None

    def without_secrets(self, settings: Settings | None) -> "Check":
        """Return the check without secrets, since an error's text may come from any source."""
        advice = None if self.advice is None else without_secrets(self.advice, settings)
        return replace(self, detail=without_secrets(self.detail, settings), advice=advice)


def ok(name: str, detail: str, advice: str | None = None) -> Check:
    """Return a check that found nothing wrong, with advice if there is something to do all the same."""
    return Check(name, Status.OK, detail, advice)


def wrong(name: str, detail: str, advice: str | None = None) -> Check:
    """Return a check that found a problem, with advice if the detail does not contain it."""
    return Check(name, Status.WRONG, detail, advice)


def skipped(name: str, detail: str, advice: str | None = None) -> Check:
    """Return a check without a result."""
    return Check(name, Status.SKIPPED, detail, advice)
