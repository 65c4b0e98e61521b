"""
Many processes that publish to one journal at the same time.

Not here: a journal that stays locked (test_degradation.py), and the queue for it (bus/test_queue.py).
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Self

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.wait_limit import WAIT_LIMIT_SECONDS
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.spare import take_over_spares
from tests.facts import progressed
from tests.running import ROOT, run_python
from tests.test_degradation import locked
from tests.test_delivery import warnings_in

STORM = """
import os, sys
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed

settings = DKISTProcessingCoreConfiguration()
barrier, begin = os.pipe()
results, result = os.pipe()
for number in range({count}):
    if os.fork() == 0:
        os.close(begin)
        os.read(barrier, 1)
        with Publisher.open(settings) as publisher:
            for sequence in range(3):
                publisher.publish(progressed(f"T{{number}}", sequence))
        os.write(result, f"{{publisher.waited}} {{len(publisher._shelf.memory)}}\\n".encode())
        os._exit(0)
os.close(result)
os.close(begin)
with open(results) as lines:
    print(lines.read())
"""


COUNT = 40


def files_beside(settings: DKISTProcessingCoreConfiguration) -> list[str]:
    """
    Return the names of spare journals, their locks and their logs.
    """
    return sorted(path.name for path in open_bus(settings).journal_path.parent.iterdir() if path.name.count(".") > 1)


def test_of_many_processes_at_once_each_waits_no_longer_than_its_limit_and_nothing_is_lost() -> None:
    """
    Messages for which the shared journal has no time are in spare journals, and all are in the journal after the
    take-over.
    """
    done = run_python(STORM.format(count=COUNT), {})

    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines() if line]
    assert (len(found), {kept_in_memory for _, kept_in_memory in found}) == (COUNT, {"0"})
    # A pause of 0.01 s may be in progress at the limit.
    assert max(float(waited) for waited, _ in found) < 2.5
    with open_bus(DKISTProcessingCoreConfiguration()).open_journal() as journal:
        take_over_spares(journal)
        entries = journal.read(0, 4 * COUNT)
        assert len({entry.message.properties.message_id for entry in entries}) == 3 * COUNT
        names = sorted(path.name for path in journal.path.parent.iterdir())
    assert [name for name in names if name.count(".") > 1] == []


@pytest.mark.soak
@pytest.mark.parametrize("is_remote", [False, True], ids=["embedded", "dead broker"])
def test_of_five_hundred_processes_at_once_each_waits_no_longer_than_its_limit_and_nothing_is_lost(
    refusing_port: int,
    is_remote: bool,  # noqa: FBT001 - a parameter of pytest
    print_line: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Each event is in the journal, the books are exact, and no spare file is left after the take-over.
    """
    count = 500
    if is_remote:
        mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
        monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))
    done = subprocess.run(
        [sys.executable, "-c", STORM.format(count=count)],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    found = [line.split() for line in done.stdout.splitlines() if line]
    waits = sorted(float(waited) for waited, _ in found)
    settings = DKISTProcessingCoreConfiguration()
    spares = len([name for name in files_beside(settings) if name.endswith(".db")])
    print_line(
        f"waits of {count} processes: median {waits[count // 2]:.2f} s, longest {waits[-1]:.2f} s; {spares} spares left"
    )
    with open_bus(settings).open_journal() as journal:
        while not take_over_spares(journal):
            pass
        entries, books = journal.read(0, 4 * count), journal.books()
    assert done.returncode == 0, done.stderr[-2000:]
    assert (len(found), {kept_in_memory for _, kept_in_memory in found}) == (count, {"0"})
    assert waits[-1] < WAIT_LIMIT_SECONDS + 0.1
    assert len({entry.message.properties.message_id for entry in entries}) == 3 * count
    assert (books.published, books.pending, books.confirmed, books.set_aside) == (len(entries), len(entries), 0, 0)
    assert files_beside(settings) == []


LEFT_BEHIND = """
import os
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import progressed
bus = open_bus(DKISTProcessingCoreConfiguration())
spares = [bus.open_spare() for _ in range(3)]
for number, spare in enumerate(spares):
    spare.journal.append([to_message(progressed("A", number), "x")])
os._exit(0)
"""


def logs_beside(settings: DKISTProcessingCoreConfiguration) -> int:
    """
    Return the number of spare journals that were not opened since their processes were killed. Opening removes their
    logs.
    """
    return len([name for name in files_beside(settings) if name.endswith("-wal")])


def test_what_a_storm_has_left_is_left_alone_while_the_journal_is_busy_or_the_time_is_over() -> None:
    """
    Otherwise each process of the next storm would open all spare journals in vain.
    """
    settings = DKISTProcessingCoreConfiguration()
    with open_bus(settings).open_journal() as journal:
        assert run_python(LEFT_BEHIND, {}).returncode == 0
        is_done = take_over_spares(journal, seconds=0.0)
        in_no_time = logs_beside(settings)
        with closing(locked(settings)):
            take_over_spares(journal)
        while_busy = logs_beside(settings)
        take_over_spares(journal)

        assert (is_done, in_no_time, while_busy, files_beside(settings)) == (False, 3, 2, [])
        assert journal.books().pending == 3


def test_a_journal_that_is_locked_anew_before_each_step_of_one_call_delays_by_the_limit_in_all() -> None:
    """
    The end makes four appends, and another process locks the journal before each.
    """
    settings = DKISTProcessingCoreConfiguration()
    publisher = Publisher.open(settings, wait_limit=0.5)
    events = [progressed("A", number) for number in range(4)]
    for number, event in enumerate(events):
        publisher._shelf.memory.add([to_message(event, publisher.bus.event_exchange)], once=number % 2 > 0)
    with Intruder(publisher) as intruder:
        publisher.close()

    assert len(intruder.releases) > 1
    assert publisher.waited < 0.6
    with open_bus(settings).open_journal() as journal:
        assert [entry.message.properties.message_id for entry in journal.read(0, 100)] == [event.id for event in events]


class Intruder:
    """
    Locks a publisher's journal before each of its transactions, for less than the publisher would wait.
    """

    def __init__(self, publisher: Publisher) -> None:
        """
        Register a callback that SQLite calls before each statement.
        """
        assert publisher._shelf.journal is not None
        self._connection = sqlite3.connect(publisher.bus.journal_path, isolation_level=None, check_same_thread=False)
        self._is_due = True
        self.releases: list[threading.Timer] = []
        publisher._shelf.journal.connection.set_trace_callback(self._before)

    def _before(self, statement: str) -> None:
        if statement == "BEGIN IMMEDIATE" and self._is_due:
            self._is_due = False
            self._connection.execute(statement)
            self.releases.append(threading.Timer(0.3, self._connection.execute, ["ROLLBACK"]))
            self.releases[-1].start()
        elif statement == "COMMIT":
            self._is_due = True

    def __enter__(self) -> Self:
        """
        Return this object.
        """
        return self

    def __exit__(self, *_: object) -> None:
        """
        Wait for the releases, and close the connection.
        """
        for release in self.releases:
            release.join()
        self._connection.close()


def test_a_journal_that_is_busy_now_and_then_delays_by_the_limit_in_all(caplog: pytest.LogCaptureFixture) -> None:
    """
    The waiting time of one call is subtracted from that of the next, even if the journal was free in between.
    """
    settings = DKISTProcessingCoreConfiguration()
    with Publisher.open(settings, wait_limit=0.6) as publisher:
        for number in range(4):
            holder = sqlite3.connect(publisher.bus.journal_path, isolation_level=None, check_same_thread=False)
            holder.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.15, holder.close)
            release.start()
            publisher.publish(progressed("A", 2 * number))
            release.join()
            publisher.publish(progressed("A", 2 * number + 1))

        assert publisher.waited <= 0.6
        (told,) = warnings_in(caplog)
        assert "database is locked. Events are kept in" in told
    with open_bus(settings).open_journal() as journal:
        assert [entry.message.properties.message_id for entry in journal.read(0, 100)] == [
            progressed("A", number).id for number in range(8)
        ]
