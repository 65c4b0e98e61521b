"""
Remove secrets from texts of the command line.

Not here: what counts as a secret (text.redaction, config).
"""

from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import secrets_in
from dkist_processing_core.text import redact


def without_secrets(text: str, settings: Settings | None) -> str:
    """Return a text without the secrets of the environment and of the settings, which may come from `.env`."""
    return redact(text, also=secrets_in(settings))
