"""
Remove secrets from texts of the command line.

Not here: what counts as a secret (text.redaction, config).
"""

from typing import TYPE_CHECKING

from dkist_processing_core.text.redaction import redact

if TYPE_CHECKING:
    from dkist_processing_core.settings.interface import Settings


def without_secrets(text: str, settings: "Settings | None") -> str:
    """
    Return a text without the secrets of the environment and of the settings, which may come from `.env`.

    Without settings, these are those of the file alone.
    """
    from dkist_processing_core.settings.reading import secrets_in  # noqa: PLC0415 - most commands start without it

    return redact(text, also=secrets_in(settings))
