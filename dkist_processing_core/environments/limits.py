"""
The timeouts and retries of an installer, and the size limits of the cache.

Not here: their use (_build).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dkist_processing_core.errors import ConfigurationError

if TYPE_CHECKING:
    from dkist_processing_core.settings.interface import Settings

DEFAULT_DAYS = 30.0
DEFAULT_BYTES = 20_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The timeout in seconds and the retries of each request; days since the last use; bytes of all environments.

    `longest` is the maximum time in seconds of a build, or of the wait for another process's build: far more than any
    needs.
    """

    timeout: int = 15
    retries: int = 5
    max_age_days: float = DEFAULT_DAYS
    max_bytes: int = DEFAULT_BYTES
    longest: float = 3600.0

    @classmethod
    def read(cls) -> Self:
        """
        Return the limits in the settings, or the defaults if the settings are wrong.

        The code that reads the settings for their main purpose reports that they are wrong: an environment can be built
        anyway.
        """
        from dkist_processing_core.settings.reading import read_leniently  # noqa: PLC0415 - only to build

        try:
            return cls.of(read_leniently()[0])
        except ConfigurationError:
            return cls()

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Return the limits that settings hold."""
        return cls(
            timeout=settings.pip_timeout,
            retries=settings.pip_retries,
            max_age_days=settings.dkist_core_environments_max_days,
            max_bytes=settings.dkist_core_environments_max_bytes,
        )
