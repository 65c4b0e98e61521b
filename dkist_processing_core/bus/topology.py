"""
The exchanges, queues and bindings on RabbitMQ, as immutable dataclasses.

Not here: declaring them (bus.amqp.declaring), and choosing a consumer's bindings (consumer).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.journal.retention import MAX_UNREAD
from dkist_processing_core.settings.interface import Settings

ARCHIVE_QUEUE = "workflow.events.archive.q"
DEAD_LETTER_EXCHANGE = "workflow.events.dlx"
DEAD_LETTERS_SUFFIX = ".dlq"
DEAD_LETTER_ARCHIVE_SUFFIX = ".dla"
MAX_QUEUE_LENGTH = MAX_UNREAD
QUEUE_EXPIRES_MS = 7 * 24 * 3600 * 1000
MAX_DEAD_LETTERS = 10_000
# Since RabbitMQ 4.0, a quorum queue by default drops a message that was returned 20 times. Older releases do not accept
# -1 as no limit.
DELIVERY_LIMIT_ARGUMENT, DELIVERY_LIMIT = "x-delivery-limit", 2**31 - 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue; an exclusive queue exists as long as its connection."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue to an exchange, for a routing key or a pattern."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """The required exchanges, queues and bindings, in the order in which they can be declared."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


def publisher_topology(settings: Settings) -> Topology:
    """Return the topology of a publisher: two exchanges, the archive of all events, the queue of failure messages."""
    events, failures = settings.isb_event_exchange, settings.isb_exchange
    return Topology(
        exchanges=(
            Exchange(events, "topic"),
            Exchange(failures, "direct"),
        ),
        queues=(
            Queue(
                ARCHIVE_QUEUE,
                {
                    "x-queue-type": "stream",
                    "x-max-age": "7D",
                    "x-stream-max-segment-size-bytes": 50_000_000,
                    "x-max-length-bytes": settings.isb_archive_max_bytes,
                },
            ),
            # The arguments equal those of existing consumers: otherwise the broker would refuse their declaration.
            Queue(RecipeRunFailureMessage.queue, {"x-queue-type": settings.isb_queue_type}),
        ),
        bindings=(
            Binding(events, ARCHIVE_QUEUE, "#"),
            Binding(failures, RecipeRunFailureMessage.queue, RecipeRunFailureMessage.routing_key),
        ),
    )


def consumer_topology(settings: Settings, queue: str, patterns: Iterable[str]) -> Topology:
    """
    Return the topology of a named consumer: its queue, bound for each pattern, and a queue of dead letters.

    A full queue drops its oldest events; the consumer can replay them from the archive. Publishers are not affected,
    as they would be with `reject-publish`. Dropped events are not dead-lettered: no dead-letter exchange is set.
    """
    events = settings.isb_event_exchange
    limits: dict[str, Any] = {"x-max-length": MAX_QUEUE_LENGTH, "x-overflow": "drop-head"}
    kind: dict[str, Any] = {"x-queue-type": settings.isb_queue_type}
    if settings.isb_queue_type == "quorum":
        kind[DELIVERY_LIMIT_ARGUMENT] = DELIVERY_LIMIT
    dead = f"{queue}{DEAD_LETTERS_SUFFIX}"
    return Topology(
        exchanges=(Exchange(DEAD_LETTER_EXCHANGE, "direct"),),
        queues=(
            Queue(queue, {**kind, **limits, "x-expires": QUEUE_EXPIRES_MS}),
            Queue(dead, {**kind, "x-max-length": MAX_DEAD_LETTERS, "x-overflow": "drop-head"}),
        ),
        bindings=(
            *(Binding(events, queue, pattern) for pattern in patterns),
            Binding(DEAD_LETTER_EXCHANGE, dead, queue),
        ),
    )


def dead_letter_archive(settings: Settings, queue: str) -> Topology:
    """Return the topology of the dead letters that an operator puts away: a queue with the same limits as theirs."""
    dead = consumer_topology(settings, queue, ()).queues[1]
    return Topology(queues=(Queue(f"{queue}{DEAD_LETTER_ARCHIVE_SUFFIX}", dead.arguments),))


def whole_topology(settings: Settings, consumers: Mapping[str, Iterable[str]] | None = None) -> Topology:
    """Return the complete topology: publishers, dead letters, and the consumers, given as patterns by name."""
    parts = [publisher_topology(settings), Topology(exchanges=(Exchange(DEAD_LETTER_EXCHANGE, "direct"),))]
    parts += [consumer_topology(settings, name, patterns) for name, patterns in (consumers or {}).items()]
    return Topology(
        exchanges=tuple(dict.fromkeys(exchange for part in parts for exchange in part.exchanges)),
        queues=tuple(queue for part in parts for queue in part.queues),
        bindings=tuple(dict.fromkeys(binding for part in parts for binding in part.bindings)),
    )


def definitions(topology: Topology, vhost: str) -> dict[str, Any]:
    """Return a topology in the form that `rabbitmqctl import_definitions` reads, without users and permissions."""
    place = {"vhost": vhost}
    lasting = {"durable": True, "auto_delete": False}
    return {
        # A node that loads these definitions at its first start does not create a virtual host by itself.
        "vhosts": [{"name": vhost}],
        "exchanges": [
            {"name": each.name, **place, "type": each.type, **lasting, "internal": False, "arguments": {}}
            for each in topology.exchanges
        ],
        "queues": [
            {"name": each.name, **place, **lasting, "arguments": dict(each.arguments)} for each in topology.queues
        ],
        "bindings": [
            {
                "source": each.exchange,
                **place,
                "destination": each.queue,
                "destination_type": "queue",
                "routing_key": each.routing_key,
                "arguments": {},
            }
            for each in topology.bindings
        ],
    }
