"""
A publisher that is cut off for long: its memory does not grow, and it catches up in order when the broker returns.

Not here: single faults (test_network_faults.py).
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise

import pytest

from dkist_processing_core.events import TaskProgressed, decode
from dkist_processing_core.journal import Books
from tests.running import ROOT
from tests.services.broker import Broker
from tests.services.proxy import Proxy
from tests.test_delivery import books_of, settings_of
from tests.test_network_faults import WITNESS, witness

MAX_GROWTH_MIB = 30
PROGRAM = """
import json, re, sys
from pathlib import Path
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed, started

def done(what):
    memory[what] = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    print(what, flush=True)
    sys.stdin.readline()

memory, count, size = {}, int(sys.argv[1]), int(sys.argv[2])
with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:
    publisher.publish(started("A"), started("B"))
    publisher.flush(20.0)
    done("idle")
    for first in range(0, count, 200):
        numbers = range(first, min(count, first + 200))
        publisher.publish(*[progressed("AB"[number % 2], number, note="x" * size) for number in numbers])
    done("cut off")
    while publisher.is_pending:
        publisher.flush(5.0)
    done("caught up")
print(json.dumps(memory))
"""


def memory_while_cut_off(proxied: tuple[Broker, Proxy], count: int, size: int) -> dict[str, float]:
    """
    Cut a publisher's process off while it publishes that many events, and return its peak memory in MiB at each stage.
    """
    broker, proxy = proxied
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(count), str(size)],
        cwd=ROOT,
        env=os.environ | broker.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for stage in ("idle", "cut off", "caught up"):
            assert process.stdout.readline().strip() == stage
            if stage == "idle":
                proxy.refuse()
                proxy.cut()
            elif stage == "cut off":
                proxy.accept()
            process.stdin.write("\n")
            process.stdin.flush()
        memory: dict[str, float] = json.loads(process.stdout.readline())
    return memory


def progress_by_task(broker: Broker) -> dict[str, list[int]]:
    """
    Return the numbers of each task's progress, in the order in which they arrived first.
    """
    arrived: dict[str, dict[int, None]] = defaultdict(dict)
    with broker.connect() as connection:
        channel = connection.channel()
        count = channel.queue_declare(WITNESS, passive=True).method.message_count
        for method, _, body in channel.consume(WITNESS, auto_ack=True):
            event = decode(body)
            if isinstance(event, TaskProgressed):
                arrived[event.task_name][event.sequence] = None
            if method.delivery_tag == count:
                break
    return {task: list(numbers) for task, numbers in arrived.items()}


def assert_catches_up(proxied: tuple[Broker, Proxy], count: int, size: int) -> dict[str, float]:
    """
    Cut a publisher off for that many events of that many bytes; all of them arrive, in order. Return its peak memory.
    """
    broker, _ = proxied
    witness(broker)

    memory = memory_while_cut_off(proxied, count, size)

    assert books_of(settings_of(broker)) == Books(published=count + 2, confirmed=count + 2, pending=0, set_aside=0)
    progress = progress_by_task(broker)
    assert {task: len(numbers) for task, numbers in progress.items()} == {"A": count // 2, "B": count // 2}
    assert all(earlier < later for numbers in progress.values() for earlier, later in pairwise(numbers))
    return memory


def test_a_publisher_that_was_cut_off_catches_up_in_order(proxied: tuple[Broker, Proxy]) -> None:
    """
    Pending events are on disk: bodies of 16 KiB occupy no more memory than small ones.
    """
    memory = assert_catches_up(proxied, 4000, 15_000)

    assert memory["caught up"] - memory["idle"] < MAX_GROWTH_MIB


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_events_take_no_memory(
    proxied: tuple[Broker, Proxy], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    This holds for an outage of any length.
    """
    memory = assert_catches_up(proxied, 100_000, 500)

    with capsys.disabled():
        print(f"\ncut off for 100,000 events, peak memory in MiB: {memory}")  # noqa: T201
    assert memory["caught up"] - memory["idle"] < MAX_GROWTH_MIB
