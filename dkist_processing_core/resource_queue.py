"""
The queues that a node's task can ask for.

Not here: what a queue means on a site, which its worker pools decide.
"""

from enum import StrEnum, auto


class ResourceQueue(StrEnum):
    """
    A kind of worker, by the name of the queue it listens to.

    Values are the lower-case names; an exported DAG uses them as ``queue`` and ``{queue}_pool`` as ``pool``.
    """

    DEFAULT = auto()
    HIGH_MEMORY = auto()
    MULTI_CORE = auto()
    GPU = auto()
