"""
Time until the first line of the commands that show past events, and until their end, with many events on the bus.

    .venv/bin/python -m benchmarks.reading 36000 1000000

For each number of events: a journal of that many, appended as real messages, and a private RabbitMQ with that many in
its archive. The times include the start of Python, which has compiled all modules before, as those of an installed
package are. Not here: decoding (events) and folding (folding).
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from benchmarks.folding import BEGAN, EVENTS_PER_RUN, events_by_run
from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.interface import Bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import Message, to_message
from tests.services.rabbitmq import RabbitMQNode

COMMANDS = (
    ("events", "list", "--limit", "100"),
    ("events", "list", "--limit", "100", "--type", "task.failed"),
    ("events", "list", "--limit", "1", "--workflow", "unknown"),
    ("events", "list"),
    ("timeline",),
)
_ROUNDS = 3
_EVENTS_PER_TURN = 5000
_RUN = timedelta(minutes=12)
_TIMES = ("time", "started_at", "ended_at")
_CONFIRM_SECONDS = 30.0
# With this variable, Python would compile each module at each start: that takes 50 to 100 ms.
_UNCOMPILED = "PYTHONDONTWRITEBYTECODE"


def fill(bus: Bus, count: int) -> None:
    """Put that many events on a bus, one run after the other until now, without waiting for the disk."""
    runs, number = events_by_run(count), count // EVENTS_PER_RUN
    shifts = (datetime.now(UTC) - BEGAN - _RUN * (number - each) for each in range(number))
    shifted = (_later(event, shift) for run, shift in zip(runs, shifts, strict=True) for event in run)
    while events := list(itertools.islice(shifted, _EVENTS_PER_TURN)):
        _publish(bus, [to_message(event, bus.event_exchange) for event in events])


def _later(event: Event, shift: timedelta) -> Event:
    times = {name: value for name in _TIMES if (value := getattr(event, name, None)) is not None}
    return msgspec.structs.replace(event, **{name: value + shift for name, value in times.items()})


def _publish(bus: Bus, messages: list[Message]) -> None:
    if not isinstance(bus, AmqpBus):
        with bus.open_journal(synced=False) as journal:
            journal.append(messages)
        return
    with bus.open_link() as link:
        for number, message in enumerate(messages):
            while not link.has_room:
                link.settle(_CONFIRM_SECONDS)
            link.send(number, message)
        while link.unsettled:
            link.settle(_CONFIRM_SECONDS)


def times(arguments: tuple[str, ...], variables: dict[str, str]) -> tuple[float, float]:
    """Return the seconds until the first line of a command, and until its end."""
    command = [sys.executable, "-m", "dkist_processing_core.cli", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != _UNCOMPILED}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**environment, **variables}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.monotonic() - began
        process.stdout.read()
    return first, time.monotonic() - began


def measure(name: str, count: int, variables: dict[str, str]) -> Iterator[str]:
    """Yield a line for each command, with the medians of its times."""
    for arguments in COMMANDS:
        times(arguments, variables)  # compiles the modules
        found = [times(arguments, variables) for _ in range(_ROUNDS)]
        first, end = (sorted(column)[_ROUNDS // 2] for column in zip(*found, strict=True))
        yield f"{count:>9,} events, {name:<8}: first line {first:6.2f} s, end {end:6.2f} s: {' '.join(arguments)}"


def main() -> None:
    """Measure the numbers on the command line, each on both buses."""
    for count in [int(argument) for argument in sys.argv[1:]] or [36_000]:
        with tempfile.TemporaryDirectory() as folder, RabbitMQNode(Path(folder, "node")) as node:
            state = {"DKIST_CORE_STATE_DIR": folder}
            place = {"mesh_address": node.host, "mesh_port": node.port}
            broker = {
                **state,
                "MESH_CONFIG": json.dumps({"interservice-bus": place}),
                "ISB_USERNAME": node.username,
                "ISB_PASSWORD": node.password,
            }
            for name, variables in (("journal", {**state, "MESH_CONFIG": "{}"}), ("RabbitMQ", broker)):
                os.environ.update(variables)
                fill(open_bus(DKISTProcessingCoreConfiguration()), count // EVENTS_PER_RUN * EVENTS_PER_RUN)
                for line in measure(name, count, variables):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
