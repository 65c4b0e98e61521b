"""
What the doctor finds out, one question at a time.

Not here: the questions (_check_journal, _check_broker, _check_collector).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from dkist_processing_core.config import DKISTProcessingCoreConfiguration, secrets_in
from dkist_processing_core.text import redact


class Status(StrEnum):
    """What became of a check."""

    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "skipped"
    """Not in use, or not to be told before something else is right."""


@dataclass(frozen=True, slots=True)
class Check:
    """The answer to one question, and what to do about it."""

    name: str
    status: Status
    detail: str
    advice: str | None = None

    def without_secrets(self, settings: DKISTProcessingCoreConfiguration | None) -> "Check":
        """Return the check as it may be shown: an error's text may come from anywhere."""
        advice = None if self.advice is None else without_secrets(self.advice, settings)
        return replace(self, detail=without_secrets(self.detail, settings), advice=advice)


def without_secrets(text: str, settings: DKISTProcessingCoreConfiguration | None) -> str:
    """Return a text without the secrets of the environment and of the settings, which `.env` may hold."""
    return redact(text, also=secrets_in(settings))


def ok(name: str, detail: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, Status.OK, detail)


def wrong(name: str, detail: str, advice: str | None = None) -> Check:
    """Return a check that found something wrong, with what to do about it where the detail does not say."""
    return Check(name, Status.WRONG, detail, advice)


def skipped(name: str, detail: str, advice: str | None = None) -> Check:
    """Return a check that has no answer."""
    return Check(name, Status.SKIPPED, detail, advice)
