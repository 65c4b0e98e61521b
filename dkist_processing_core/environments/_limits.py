"""
How patient an installer is, and how much the cache may hold.

Not here: who asks (_build).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dkist_processing_core.errors import ConfigurationError

if TYPE_CHECKING:
    from dkist_processing_core.config import DKISTProcessingCoreConfiguration

DEFAULT_DAYS = 30.0
DEFAULT_BYTES = 20_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Of each request the timeout in seconds and the retries; days since the last use; bytes of all environments.

    `longest` is how many seconds a build, or the wait for another process's, may take: far more than any needs.
    """

    timeout: int = 15
    retries: int = 5
    max_age_days: float = DEFAULT_DAYS
    max_bytes: int = DEFAULT_BYTES
    longest: float = 3600.0

    @classmethod
    def read(cls) -> Self:
        """
        Return what the settings say; where they are wrong, the defaults.

        Whoever reads them for what they are about says that they are wrong: an environment can be built all the same.
        """
        from dkist_processing_core.config import DKISTProcessingCoreConfiguration  # noqa: PLC0415 - only to build

        try:
            return cls.of(DKISTProcessingCoreConfiguration.read_leniently()[0])
        except ConfigurationError:
            return cls()

    @classmethod
    def of(cls, settings: "DKISTProcessingCoreConfiguration") -> Self:
        """Return the limits that settings hold."""
        return cls(
            timeout=settings.pip_timeout,
            retries=settings.pip_retries,
            max_age_days=settings.dkist_core_environments_max_days,
            max_bytes=settings.dkist_core_environments_max_bytes,
        )
