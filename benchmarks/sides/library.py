"""Functions shared by the sides that run the library itself."""

import time
from pathlib import Path

from benchmarks.sides.job import Job, Prepared
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.message import Message, Properties

PATIENCE_SECONDS = 300.0


def settings_of(job: Job) -> DKISTProcessingCoreConfiguration:
    """Return settings that name the job's broker and state folder."""
    return DKISTProcessingCoreConfiguration(
        mesh_config={"interservice-bus": {"mesh_address": job.host, "mesh_port": job.port}},
        isb_vhost=job.vhost,
        isb_username=job.username,
        isb_password=job.password,
        isb_event_exchange=job.exchange,
        dkist_core_state_dir=Path(job.state_dir),
    )


def to_messages(prepared: list[Prepared], exchange: str) -> list[Message]:
    """Return prepared messages in the form that the journal accepts."""
    return [
        Message(
            exchange,
            message.routing_key,
            message.body,
            Properties(
                message.message_id, message.content_type, message.type, message.timestamp, message.correlation_id
            ),
        )
        for message in prepared
    ]


def wait_until_delivered(publisher: Publisher, journal: Journal) -> None:
    """Return when the broker has confirmed all messages of the journal, including those of other processes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not publisher.flush(1.0) or journal.pending(0, 1):
        if time.monotonic() > deadline:
            msg = f"not delivered within {PATIENCE_SECONDS:g} s: {journal.books()}"
            raise TimeoutError(msg)
        time.sleep(0.005)


def check_books(journal: Journal, published: int) -> None:
    """Raise an error if a message was lost or set aside."""
    books = journal.books()
    if (books.published, books.confirmed) != (published, published):
        msg = f"{published} messages were published, the journal says {books}"
        raise RuntimeError(msg)
