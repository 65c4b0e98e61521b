"""
The published events, the arrived events, and the journal's counts: no event may be lost between the two ends.

The far end is a queue read by plain pika, the near end the lines that `tests.killed` prints. Not here: the path in
between.
"""

import itertools
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.journal import Books, Journal
from dkist_processing_core.journal.spare import spares_of
from tests.bus.contract import SECONDS
from tests.killed import Plan
from tests.running import ROOT
from tests.services.broker import Broker
from tests.waiting import wait_until

_QUEUE = "arrivals"
_EXCHANGE = "workflow.events.x"


class Arrivals:
    """
    Every event that has reached a durable classic queue since this object was created, including repetitions.
    """

    def __init__(self, broker: Broker, settings: DKISTProcessingCoreConfiguration) -> None:
        """
        Create the exchange and binding that publishers need, and the queue.
        """
        AmqpBus(settings).open_link().close()
        self._broker = broker
        self.received: list[tuple[str, bytes]] = []
        with broker.connect() as connection:
            channel = connection.channel()
            channel.queue_declare(_QUEUE, durable=True)
            channel.queue_bind(_QUEUE, _EXCHANGE, "#")

    @property
    def counts(self) -> Counter[str]:
        """
        How often each id has arrived.
        """
        return Counter(identifier for identifier, _ in self.received)

    @property
    def ids(self) -> list[str]:
        """
        The ids in the order in which each came last.
        """
        return list(dict.fromkeys(identifier for identifier, _ in reversed(self.received)))[::-1]

    def read(self) -> int:
        """
        Consume the queue, into which nothing may be published any more, and return the total number of arrivals.
        """
        with self._broker.connect() as connection:
            channel = connection.channel()
            while count := channel.queue_declare(_QUEUE, passive=True).method.message_count:
                delivered = channel.consume(_QUEUE, inactivity_timeout=SECONDS)
                for method, properties, body in itertools.islice(delivered, count):
                    self.received.append((properties.message_id, body))
                    channel.basic_ack(method.delivery_tag)
                channel.cancel()
        return len(self.received)


class Child:
    """
    A process of `tests.killed`, which ends with the block at the latest.
    """

    def __init__(
        self, plan: Plan, environment: Mapping[str, str], report: Path, *, under: Sequence[str | Path] = ()
    ) -> None:
        """
        Start it. Its output goes into the file `report`, which remains however the process ends.

        `under` is a command that runs a command, such as strace with its options.
        """
        self.plan = plan
        self._report = report
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        with report.open("wb") as output, report.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "tests.killed", plan.as_argument],
                cwd=ROOT,
                env=inherited | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )
        self._descriptor = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Self:
        """
        Return the child itself.
        """
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        End it, even if it is stopped by SIGSTOP.
        """
        self.process.kill()
        self.process.wait()
        os.close(self._descriptor)

    def wait_for_end(self, seconds: float) -> bool:
        """
        Return True if it ends within that many seconds.
        """
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def wait_for_stop(self) -> None:
        """
        Return when it is stopped; a child that ends instead is a failure.
        """
        found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED, self.output

    def wait_for_output(self) -> None:
        """
        Return when it has begun to publish.
        """
        wait_until(lambda: self._report.stat().st_size > 0 or self.wait_for_end(0))

    @property
    def output(self) -> str:
        """
        All its output so far, including its warnings.
        """
        return self._report.read_text() + self._report.with_suffix(".log").read_text()

    def output_of(self, kind: str) -> list[str]:
        """
        Return its output lines of one kind so far, such as the ids whose publish `returned`.
        """
        # A line is written at once, except one that a kill has cut.
        lines = [line for line in self._report.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line.split()[1] for line in lines if line.startswith(f"{kind} ")]

    @property
    def seconds(self) -> float:
        """
        Seconds from before its publisher was opened until that was closed.
        """
        return float(self.output_of("took")[0])


@dataclass
class Ledger:
    """
    Both ends of every event, and the journal's counts.
    """

    settings: DKISTProcessingCoreConfiguration
    arrivals: Arrivals
    attempted: dict[str, str] = field(default_factory=dict)
    """The publisher of each id: the point at which it was killed."""
    returned: set[str] = field(default_factory=set)

    def note(self, attempted: Iterable[str], returned: Iterable[str], whose: str) -> None:
        """
        Record the lines that a publisher has printed.
        """
        self.attempted |= dict.fromkeys(attempted, whose)
        self.returned |= set(returned)

    def note_child(self, child: Child, whose: str) -> None:
        """
        Record the lines that a child has printed.
        """
        self.note(child.output_of("attempted"), child.output_of("returned"), whose)

    @property
    def books(self) -> Books:
        """
        The counts of the outbox.
        """
        with open_bus(self.settings).open_journal() as journal:
            return journal.books()

    def assert_nothing_lost(self, *, counts_each_once: bool = True) -> None:
        """
        Returned within received within attempted; duplicates are equal; the counts are exact and no event is pending.

        The counts may include an event twice that was in two journals, and may miss one that a publisher sent from
        memory while the journal was locked. In these cases `counts_each_once` is False.
        """
        self.arrivals.read()
        received = set(self.arrivals.ids)
        bodies = set(self.arrivals.received)
        books = self.books

        assert self.returned - received == set(), "lost"
        assert received - self.attempted.keys() == set(), "never published"
        assert len(bodies) == len(received), "one id with several bodies"
        assert books == Books(published=books.published, confirmed=books.published, pending=0, set_aside=0)
        assert books.published == len(received) or not counts_each_once, f"{len(received)} received, {books}"

    def table(self) -> str:
        """
        Return the counts of each point and of the journals as text, even if a run was cut short.
        """
        self.arrivals.read()
        counts = self.arrivals.counts
        lines = [f"{'point':<14}{'attempted':>10}{'returned':>10}{'received':>10}{'duplicates':>12}"]
        for point in sorted(set(self.attempted.values())):
            ids = {identifier for identifier, whose in self.attempted.items() if whose == point}
            arrived = {identifier for identifier in ids if counts[identifier]}
            duplicates = sum(counts[identifier] - 1 for identifier in arrived)
            lines.append(f"{point:<14}{len(ids):>10}{len(ids & self.returned):>10}{len(arrived):>10}{duplicates:>12}")
        books = self.books
        lost = self.returned - counts.keys() - ids_on_disk(self.settings)
        lines.append(
            f"books: published {books.published} = confirmed {books.confirmed} + pending {books.pending}"
            f" + set aside {books.set_aside}; lost {len(lost)}"
        )
        return "\n".join(lines)


def ids_on_disk(settings: DKISTProcessingCoreConfiguration) -> set[str]:
    """
    Return the ids of the pending messages in the outbox and in its spare files, without changing any file.
    """
    shared = open_bus(settings).journal_path
    found: set[str] = set()
    for path in (shared, *spares_of(shared)):
        with Journal.open(path) as journal:
            found |= {entry.message.properties.message_id for entry in journal.read(0, 1_000_000)}
    return found
