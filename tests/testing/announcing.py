"""
A program with a variable of its module, as a service has it; a test of the simulation executes it as new processes do.

Not here: programs without such a variable (loops).
"""

from dkist_processing_core import subscribe
from dkist_processing_core.testing import World

announced: set[str] = set()


def announce(world: World) -> None:
    """Announce each failure that this process has not announced."""
    for event in subscribe("task.failed", name="operators", every_report=True):
        if event.id not in announced:
            announced.add(event.id)
            world.effect(event.id)
