"""Tests for the handover of appended messages to the drainer of their process, beside what it reads from the outbox."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration, MeshService
from dkist_processing_core.delivery.backlog import Backlog
from dkist_processing_core.delivery.handover import Handover
from dkist_processing_core.delivery.in_memory_queue import InMemoryQueue
from dkist_processing_core.delivery.outbox_warnings import OutboxWarnings
from dkist_processing_core.delivery.refusals import Refusals
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message, to_message
from tests.facts import started

_STEPS = st.tuples(
    st.sampled_from(
        ["own", "own, read before it is handed over", "own, failed", "own, left out", "other's", "confirm", "reconnect"]
    ),
    st.integers(1, 7),
    st.booleans(),
)


class _Outbox:
    """One outbox with a publisher and a drainer of this process, and another process's publisher."""

    def __init__(self, bus: AmqpBus, journal: Journal, other: Journal) -> None:
        self.bus, self.journal, self.other = bus, journal, other
        self.handover = Handover(max_messages=9, max_bytes=6000)
        self.backlog = Backlog(
            journal, Refusals(bus, OutboxWarnings(bus.journal_path, InMemoryQueue(0))), self.handover
        )
        self.backlog.begin()
        self.appended: dict[int, Message] = {}
        self.sent: list[tuple[int, Message]] = []
        self.unconfirmed: list[int] = []

    def append(self, journal: Journal, count: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Append messages as a publisher does; its own are handed over, after something else was done meanwhile."""
        plain = to_message(started("A"), self.bus.event_exchange)
        messages = [replace(plain, body=bytes(500 * number)) for number in range(count)]
        if journal is self.journal:
            self.handover.expect()
        seqs = journal.append(messages)
        self.appended.update(zip(seqs, messages, strict=True))
        meanwhile()
        if journal is self.journal:
            self.handover.give(journal.file, seqs, messages)

    def append_twice(self, count: int) -> None:
        """Append messages of which the outbox has received all but one before, and leaves those out."""
        messages = [to_message(started("A"), self.bus.event_exchange) for _ in range(count)]
        for each in (messages[1:], messages):
            self.handover.expect()
            seqs = self.journal.append(each, once=True)
            self.appended.update(zip(seqs, each[: len(seqs)], strict=True))
            self.handover.give(self.journal.file, seqs, each)

    def send(self) -> None:
        """Send what the drainer finds."""
        while (entry := self.backlog.next(is_alone=False)) is not None:
            self.sent.append((entry.seq, entry.message))
            self.unconfirmed.append(entry.seq)

    def confirm(self, count: int) -> None:
        """Confirm the oldest messages that were sent."""
        seqs, self.unconfirmed = self.unconfirmed[:count], self.unconfirmed[count:]
        self.backlog.confirm(seqs, is_last=not self.unconfirmed)

    def reconnect(self) -> None:
        """Confirm everything, and begin on another connection."""
        self.confirm(len(self.unconfirmed))
        self.backlog.close()
        self.backlog.begin()


@given(st.lists(_STEPS, max_size=25))
def test_whatever_is_handed_over_or_read_each_message_is_sent_once_and_in_order(
    steps: Sequence[tuple[str, int, bool]],
) -> None:
    """The rows of several processes alternate, room is limited, and appends fail: none is left out or sent twice."""
    with tempfile.TemporaryDirectory() as folder:
        settings = DKISTProcessingCoreConfiguration(
            mesh_config={"interservice-bus": MeshService(host="127.0.0.1", port=9)}, dkist_core_state_dir=Path(folder)
        )
        bus = AmqpBus(settings)
        with bus.open_journal(synced=False) as journal, bus.open_journal(synced=False) as other:
            outbox = _Outbox(bus, journal, other)
            for kind, count, is_sending in steps:
                match kind:
                    case "own":
                        outbox.append(journal, count)
                    case "own, read before it is handed over":
                        outbox.append(journal, count, meanwhile=outbox.send)
                    case "own, failed":
                        outbox.handover.expect()
                    case "own, left out":
                        outbox.append_twice(count)
                    case "other's":
                        outbox.append(other, count)
                    case "confirm":
                        outbox.confirm(count)
                    case _:
                        outbox.reconnect()
                if is_sending:
                    outbox.send()
            # An append ends the wait for one that has failed.
            outbox.append(journal, 1)
            outbox.send()

            assert outbox.backlog.is_at_end
            assert [seq for seq, _ in outbox.sent] == sorted(outbox.appended)
            assert all(len(message.body) == len(outbox.appended[seq].body) for seq, message in outbox.sent)
            outbox.reconnect()
            books = journal.books()
            assert (books.published, books.confirmed, books.pending) == (len(outbox.sent), len(outbox.sent), 0)


def test_messages_that_follow_directly_are_not_read_from_the_outbox(tmp_path: Path) -> None:
    """A message that is handed over can be sent while its row is no longer there: it is not looked for."""
    settings = DKISTProcessingCoreConfiguration(
        mesh_config={"interservice-bus": MeshService(host="127.0.0.1", port=9)}, dkist_core_state_dir=tmp_path
    )
    bus = AmqpBus(settings)
    with bus.open_journal() as journal, bus.open_journal() as other:
        outbox = _Outbox(bus, journal, other)
        outbox.append(other, 1)
        outbox.send()
        outbox.append(journal, 3)
        other.remove_confirmed(outbox.appended)

        outbox.send()
        assert [seq for seq, _ in outbox.sent] == sorted(outbox.appended)


def test_without_a_connection_nothing_is_handed_over(tmp_path: Path) -> None:
    """A process whose messages another one delivers keeps none of them in memory."""
    settings = DKISTProcessingCoreConfiguration(
        mesh_config={"interservice-bus": MeshService(host="127.0.0.1", port=9)}, dkist_core_state_dir=tmp_path
    )
    bus = AmqpBus(settings)
    with bus.open_journal() as journal, bus.open_journal() as other:
        outbox = _Outbox(bus, journal, other)
        outbox.backlog.close()
        outbox.append(journal, 3)

        assert outbox.handover.first is None
