"""
The setting `RETRY_CONFIG`: how a client of this configuration retries its connections.

Not here: the addresses of services (services).
"""

from pydantic import BaseModel, ConfigDict


class RetryConfig(BaseModel):
    """How a client of this configuration retries its own connections; seconds, and -1 tries without a limit."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    retry_delay: float = 1
    retry_backoff: float = 2
    retry_jitter: tuple[float, float] = (1, 10)
    retry_max_delay: float = 300
    retry_tries: int = -1
