"""
How long each process may wait while it observes an attempt: the table behind the promise of two seconds.

The processes that observe one attempt follow each other, so their waits add up. Each has a share of
`EVENT_FLUSH_TIMEOUT`, during which it waits for the bus and for the collector at the same time, and a limit in seconds
for a journal that another process keeps locked. The time that a process has waited for the journal is subtracted from
its share.
Not here: the waiting (delivery, tracing).
"""

import math
from typing import NamedTuple


class Allowance(NamedTuple):
    """How long one process may wait."""

    bus: float
    """The wait for the bus and the collector, as a share of `EVENT_FLUSH_TIMEOUT`."""
    journal: float
    """The wait for its journal, in seconds."""
    other: float = 0.0
    """The wait for anything else in place of the bus, in seconds."""
    most: float = math.inf
    """The limit on the wait for the bus and the collector, in seconds, however long `EVENT_FLUSH_TIMEOUT` is."""

    def for_bus(self, timeout: float) -> float:
        """Return the wait for the bus and the collector, in seconds, where `EVENT_FLUSH_TIMEOUT` is `timeout`."""
        return min(self.bus * timeout, self.most)

    def cost(self, timeout: float) -> float:
        """Return the longest wait of the process, in seconds, where `EVENT_FLUSH_TIMEOUT` is `timeout`."""
        return max(self.for_bus(timeout), self.journal, self.other)


ENGINE_SECONDS = 0.6
"""The wait for Airflow's answer to a callback's query; the bus gets the rest of the callback's time."""
LEAST_SECONDS = 0.2
"""The least time that a callback waits for the bus, however long its process has waited before."""
TELEMETRY_JOURNAL_SECONDS = 0.3
"""
How long all appends of a process to the journal of telemetry wait together, before its end, for other processes.

At its end the process waits for collector and journal within its share, from which this is subtracted.
"""


CALLED_TASK = Allowance(bus=0.8, journal=2.0)
LAUNCHED_TASK = Allowance(bus=0.3, journal=0.6)
LAUNCHER = Allowance(bus=0.3, journal=0.6)
LOCAL_ENGINE = Allowance(bus=0.2, journal=0.4)
ORPHANED_LAUNCHER = Allowance(bus=5.0, journal=0.6, most=10.0)
"""A launcher whose parent process has died: no process waits for it, and it may have to connect to the broker first."""
CALLBACKS = Allowance(bus=0.3, journal=0.4, other=ENGINE_SECONDS + LEAST_SECONDS)
"""The wait of all callbacks of one attempt together; only the last one waits, the earlier ones only append."""
RUN_CALLBACK = Allowance(bus=1.0, journal=0.4)
"""The callback at the end of a run, for which no task waits."""
RUN_COLLECTOR = Allowance(bus=1.0, journal=TELEMETRY_JOURNAL_SECONDS)
"""The wait of this callback for the collector of the run's span, after that for the bus."""

PATHS: dict[str, tuple[Allowance, ...]] = {
    "a task that is called": (CALLED_TASK,),
    "a task of a local run": (LOCAL_ENGINE, LAUNCHER, LAUNCHED_TASK),
    "a task of the engine": (LAUNCHER, LAUNCHED_TASK, CALLBACKS),
    "the end of a run of the engine": (RUN_CALLBACK,),
    "the span of a run of the engine": (RUN_COLLECTOR,),
}
"""Which processes observe an attempt or a run, by how it is run."""

FIRST_CONNECTION = 0.7
"""The timeout of a process's first connection, as a share of `EVENT_FLUSH_TIMEOUT`: it ends before the process does."""
START_SECONDS = 0.3
"""
How long a launched task waits for its start in the journal before it reports progress, while its launcher waits for
that journal.
"""
START_BEFORE_END_SECONDS = 10.0
"""
How long a launched task waits for its start in the journal before it reports its end.

This does not prolong the attempt: its launcher, which loads more than the task, must report the start before it can
end, and waits for the journal within its own limit. The time is only needed in full if the launcher is stopped.
"""
DYING_SECONDS = 0.5
"""How long a terminating task checks whether its launcher exists; a launcher that has ended waits for nothing."""
FORK_SECONDS = 2.0
"""How long a fork of a task waits at its end for the journal of telemetry, while other processes append to it."""
STILL_JOURNAL_SECONDS = 0.3
"""How long a fork waits at its end for the journal of telemetry, if no process appends to it."""
SILENT_COLLECTOR_SECONDS = 0.15
"""
How long a launcher waits for a collector that accepts no connection, or does not answer: telemetry is on disk, and the
next process of the host delivers it.
"""
BUS, LOOK, COLLECTOR = "bus", "look", "collector"
CALLBACK_PROCESS = {BUS: 16.0, LOOK: 18.0, COLLECTOR: 8.0}
"""
The longest total wait of all callbacks of one process, in seconds, for each kind of wait: for the bus, for what is on
the bus, and for the collector of the runs' spans.

Airflow hands the ends of all runs of a file to one process, one after the other, and kills it after 50 s by default.
"""
