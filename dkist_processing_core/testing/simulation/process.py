"""
The processes of a simulated consumer: started, killed and started again, until everything has happened.

Not here: what happens (history), and what survives (world).
"""

import gc
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dkist_processing_core.consumer.declaration import Declaration
from dkist_processing_core.testing.simulation.consumer_process import run_consumer
from dkist_processing_core.testing.simulation.steps import KilledError, Steps, clear, is_own
from dkist_processing_core.testing.simulation.world import RefusedError, World

# A supervisor gives a program up that makes no progress.
_FRUITLESS_STARTS = 4
_RETURNED = "it returns"
Start = Callable[[World], Any]


class StuckError(Exception):
    """The consumer ends again and again, and makes no progress."""

    def __repr__(self) -> str:
        """Return a sentence for a person."""
        return repr(f"it makes no progress: {self}")


def live_through(start: Start, world: World) -> None:
    """
    Run a consumer through all of a history, as a supervisor does that starts it again after each end.

    Args:
        start: The program: the loop of a consumer, or a function that returns a `Consumer`.
        world: Its world.

    Raises:
        StuckError: It makes no progress.
    """
    fruitless = 0
    with world.bus, world.clock:
        while True:
            before = (world.position, _unsettled(world))
            end = _live_once(start, world)
            if end == _RETURNED and world.has_ended and not _unsettled(world):
                if not world.bus.has_dropped:
                    return
                # The next start compares the inbox with the archive.
                world.bus.has_dropped = False
            elif (world.position, _unsettled(world)) != before:
                fruitless = 0
            elif end is not None:
                fruitless += 1
                if fruitless == _FRUITLESS_STARTS:
                    raise StuckError(end)


def _unsettled(world: World) -> int:
    return sum(len(queue.ready) + len(queue.unsettled) for queue in world.bus.queues.values())


def _live_once(start: Start, world: World) -> str | None:
    """Run one process to its end, and return how it has ended by itself; None if it was killed or refused an effect."""
    # The files and connections of a process end with it, and here they end with the objects that hold them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        # After a kill the interpreter may still count its exception as one that the thread handles.
        with ThreadPoolExecutor(1, "simulated-process") as thread:
            end = thread.submit(_life, start, world).result()
        gc.collect()
    return end


def _life(start: Start, world: World) -> str | None:
    world.starts += 1
    world.bus.steps = steps = Steps(world.bus.steps.trail)
    world.happened.append(f"the process starts{'' if world.starts == 1 else ' again'}")
    end: str | None = _RETURNED
    # What exists already is not searched for garbage at the end of the process.
    gc.freeze()
    try:
        with steps.of_lines():
            found = start(world)
            if isinstance(found, Declaration):
                run_consumer(found, world, again=lambda: start(world))
    except KilledError as killed:
        world.happened.append(f"  it is killed after: {steps.place or 'its start'}")
        end = None
        clear(killed)
    except Exception as error:  # noqa: BLE001 - any error of the consumer under test ends its process
        frames = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(frames) if is_own(frame.filename)), frames[-1])
        end = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        world.happened.append(f"  it ends with {end}")
        if isinstance(error, RefusedError):
            end = None
        clear(error)
    else:
        world.happened.append(f"  {_RETURNED}")
    steps.is_dead = True
    world.bus.end_process()
    return end
