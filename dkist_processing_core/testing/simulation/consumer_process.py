"""
The processes of a `Consumer` in a simulation: intake, workers and timed work take turns in one thread.

Two processes of one name share an inbox on SQLite, where one works and the other takes over. On PostgreSQL both work,
which one thread cannot show, since a statement of one may wait for the other: tests with real processes kill those. Not
here: the threads of a real process (consumer.service), and programs that are a loop (testing.simulation.process).
"""

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing.simulation.steps import KilledError, Steps, clear
from dkist_processing_core.testing.simulation.world import World

if TYPE_CHECKING:
    from dkist_processing_core.consumer.declaration import Declaration

# The intake looks each second for what waits for a proof.
_TICK_SECONDS = 1.0


def run_consumer(consumer: "Declaration", world: World, *, again: Callable[[], "Declaration"]) -> None:
    """
    Run a consumer until all of the history has happened and none of its rows waits.

    Its inbox is the one that it names, or that of the world. For a row that waits for its next try, or for a firm
    report, the clock is advanced.

    Args:
        consumer: The consumer.
        world: Its world.
        again: Returns the consumer as another process has it. If there is a second process, one of the two is killed
            and started again while the other goes on.
    """
    processes = [_Process(consumer, world, world.bus.steps)]
    try:
        while True:
            if world.has_second and len(processes) == 1:
                processes.append(_Process(again(), world, Steps(world.bus.steps.trail)))
            process = processes[0] if len(processes) == 1 else world.random.choice(processes)
            try:
                if not process.take_turns():
                    return
            except KilledError as killed:
                if len(processes) == 1:
                    raise
                world.happened.append("  one of the two processes is killed, and starts again")
                world.starts += 1
                clear(killed)
                process.close()
                world.bus.end_process()
                processes[processes.index(process)] = _Process(again(), world, Steps(world.bus.steps.trail))
    finally:
        # The operating system releases as much when a process is killed.
        for process in processes:
            process.close()


class _Process:
    """A process of a consumer, whose parts take turns."""

    def __init__(self, consumer: "Declaration", world: World, steps: Steps) -> None:
        # Imported here, since a simulated loop needs no database.
        from sqlalchemy import event  # noqa: PLC0415

        from dkist_processing_core.consumer.service import ConsumerService  # noqa: PLC0415
        from dkist_processing_core.inbox import Database  # noqa: PLC0415

        world.has_inbox = True
        url = consumer.inbox or world.inbox
        file = Path(world.inbox.removeprefix("sqlite:///"))
        if url == world.inbox and not file.exists():
            file.write_bytes(_empty_inbox())
        database = Database.open(url, read_settings())
        for name in ("before_cursor_execute", "commit"):
            event.listen(database.engine, name, lambda *_: world.use_database())
        self._world = world
        self._steps = steps
        self._service = ConsumerService(
            consumer, world.bus, database, clock=world.clock, random=world.random, steps=steps.take
        )

    def take_turns(self) -> bool:
        """Let each part do its next step, and return False if nothing is left to do."""
        service, self._world.bus.steps = self._service, self._steps
        with self._steps.of_lines():
            if service.intake is not None:
                service.intake.step(0.0)
            for worker in service.workers:
                while worker.step() is not None:
                    pass
            if service.consumer.timers:
                service.timers.step()
        try:
            return not self._is_idle() or self._wait()
        except InboxUnavailableError:
            return True

    def _is_idle(self) -> bool:
        intake = self._service.intake
        if intake is not None and (intake.quiet_at is None or not intake.is_receiving):
            # The other process receives, and knows what is left.
            return False
        return self._world.has_ended

    def _wait(self) -> bool:
        """
        Advance the clock to the time when the next row is due; return False if there is none.

        Also return False if its workers have left a row that is due, since they would never claim it, and if the queue
        has dropped something: a real consumer would compare its inbox with the archive before that time, and here the
        next start of the process compares it.
        """
        due, now = self._service.inbox.next_due(), self._world.clock()
        if due is None or self._world.bus.has_dropped or (due <= now and self._service.inbox.become_claimer()):
            return False
        # The clock has whole microseconds, and must not stop just before that time.
        self._world.clock.advance(max(0.0, due - now) + _TICK_SECONDS)
        return True

    def close(self) -> None:
        """Release what the process holds."""
        self._steps.is_dead = True
        self._service.close()


@lru_cache(maxsize=1)
def _empty_inbox() -> bytes:
    """Return the file of an inbox without rows: making the tables takes longer than most histories."""
    from dkist_processing_core.inbox import Database  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inbox.db"
        Database.open(f"sqlite:///{file}", read_settings()).close()
        return file.read_bytes()
