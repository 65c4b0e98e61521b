"""
A process of a `Consumer` in a simulation: intake, workers and timed work take turns in one thread.

Not here: the threads of a real process (consumer.service), and programs that are a loop (testing.simulation.process).
"""

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing.simulation.world import World

if TYPE_CHECKING:
    from dkist_processing_core.consumer.declaration import Declaration
    from dkist_processing_core.consumer.service import ConsumerService

_TICK_SECONDS = 1e-3


def run_consumer(consumer: "Declaration", world: World) -> None:
    """
    Run a consumer until all of the history has happened and none of its rows waits.

    Its inbox is the one that it names, or that of the world. For a row that waits for its next try, or for a firm
    report, the clock is advanced.
    """
    # Imported here, since a simulated loop needs no database.
    from dkist_processing_core.consumer.service import ConsumerService  # noqa: PLC0415
    from dkist_processing_core.inbox import Database  # noqa: PLC0415

    world.has_inbox = True
    url = consumer.inbox or world.inbox
    file = Path(world.inbox.removeprefix("sqlite:///"))
    if url == world.inbox and not file.exists():
        file.write_bytes(_empty_inbox())
    service = ConsumerService(
        consumer,
        world.bus,
        Database.open(url, read_settings()),
        clock=world.clock,
        random=world.random,
        steps=world.bus.steps.take,
    )
    try:
        while _take_turns(service, world):
            pass
    finally:
        # The operating system releases as much when a process is killed.
        service.close()


def _take_turns(service: "ConsumerService", world: World) -> bool:
    """Let each part do its next step, and return False if nothing is left to do."""
    if service.intake is not None:
        service.intake.step(0.0)
    for worker in service.workers:
        while worker.step() is not None:
            pass
    if service.consumer.timers:
        service.timers.step()
    if not world.has_ended or (service.intake is not None and service.intake.quiet_at is None):
        return True
    due = service.inbox.next_due()
    if due is None:
        return False
    # The clock has whole microseconds, and must not stop just before that time.
    world.clock.advance(max(0.0, due - world.clock()) + _TICK_SECONDS)
    return True


@lru_cache(maxsize=1)
def _empty_inbox() -> bytes:
    """Return the file of an inbox without rows: making the tables takes longer than most histories."""
    from dkist_processing_core.inbox import Database  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inbox.db"
        Database.open(f"sqlite:///{file}", read_settings()).close()
        return file.read_bytes()
