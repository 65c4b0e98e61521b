"""
The queues that a node's task can request.

Not here: the meaning of a queue at a site, which depends on the site's worker pools.
"""

from enum import StrEnum, auto


class ResourceQueue(StrEnum):
    """
    A kind of worker, named by the queue that it serves.

    The values are the lower-case names. An exported DAG uses them as `queue`, and `{queue}_pool` as `pool`: Airflow
    gives the task to a worker that serves this queue, and runs at most as many tasks at once as the pool has slots. A
    run on this host reports the queue and has no other use for it.
    """

    DEFAULT = auto()
    """Any worker."""
    HIGH_MEMORY = auto()
    """A worker with more memory."""
    MULTI_CORE = auto()
    """A worker with more processors."""
    GPU = auto()
    """A worker with a graphics processor."""
