"""
The queues that a node's task can request.

Not here: the meaning of a queue at a site, which depends on the site's worker pools.
"""

from enum import StrEnum, auto


class ResourceQueue(StrEnum):
    """
    A kind of worker, named by the queue that it serves.

    The values are the lower-case names; an exported DAG uses them as ``queue``, and ``{queue}_pool`` as ``pool``.
    """

    DEFAULT = auto()
    HIGH_MEMORY = auto()
    MULTI_CORE = auto()
    GPU = auto()
