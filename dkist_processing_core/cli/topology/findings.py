"""
Compare a topology with a broker: each item exists, is missing or differs; and create missing items.

Not here: AMQP (bus), and the output of the findings (topology.plan).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from dkist_processing_core.bus.topology import Binding, Exchange, Queue, Topology
from dkist_processing_core.cli.topology.differences import Difference, advice, differences
from dkist_processing_core.errors import BusError

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink

Item = Exchange | Queue | Binding


RIGHT_NEEDED = "run this as an account with the configure permission; a publisher needs it only if something is missing"


class State(StrEnum):
    """The state of an item."""

    THERE = "there"
    MADE = "made"
    ENSURED = "ensured"
    """A binding that was declared: AMQP does not report whether it existed or was created."""
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """The broker does not report the state to this user."""
    UNASKED = "not asked"
    """A binding, which AMQP cannot query."""


GOOD = frozenset({State.THERE, State.MADE, State.ENSURED, State.UNASKED})


@dataclass(frozen=True, slots=True)
class Finding:
    """An item, its state, the reason and advice."""

    item: Item
    state: State
    reason: str = ""
    advice: str | None = None
    differences: list[Difference] = field(default_factory=list)


def findings(link: "AmqpLink", topology: Topology, vhost: str, *, making: bool) -> Iterator[Finding]:
    """
    Yield for each item whether it exists and equals its declaration, and create missing items if requested.

    No existing item is changed or deleted. Items that differ are bound nevertheless, as publishers do.
    """
    states: dict[tuple[type, str], State] = {}
    items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
    for item in items:
        found = _compare(link, item, vhost)
        if making and found.state is State.MISSING:
            found = _create(link, item)
        states[type(item), item.name] = found.state
        yield found
    for binding in topology.bindings:
        yield _bind(link, binding, (states[Exchange, binding.exchange], states[Queue, binding.queue]), making=making)


def _compare(link: "AmqpLink", item: Exchange | Queue, vhost: str) -> Finding:
    try:
        if link.exists("exchange" if isinstance(item, Exchange) else "queue", item.name) is None:
            reason = "whether it exists is not known: this account has no permission on it"
            return Finding(item, State.UNKNOWN, reason, RIGHT_NEEDED)
        found = differences(link, item)
    except BusError as error:
        if not link.is_connected:
            raise
        if "ACCESS_REFUSED" not in str(error):
            return Finding(item, State.UNKNOWN, str(error))
        reason = "it exists, and can be compared only with the configure permission"
        return Finding(item, State.UNKNOWN, reason, RIGHT_NEEDED)
    if found is None:
        return Finding(item, State.MISSING)
    different, sentence = found
    if different or sentence:
        reason = sentence or "; ".join(map(str, different))
        return Finding(item, State.DIFFERENT, reason, advice(item, different, vhost), different)
    return Finding(item, State.THERE)


def _create(link: "AmqpLink", item: Exchange | Queue) -> Finding:
    error = link.restore(Topology(exchanges=(item,)) if isinstance(item, Exchange) else Topology(queues=(item,)))
    if error is None:
        return Finding(item, State.MADE)
    needed = RIGHT_NEEDED if "ACCESS_REFUSED" in str(error) else None
    return Finding(item, State.MISSING, f"not created: {error}", needed)


def _bind(link: "AmqpLink", binding: Binding, ends: tuple[State, State], *, making: bool) -> Finding:
    if State.MISSING in ends:
        # A binding is missing if its exchange or its queue is missing.
        return Finding(binding, State.MISSING)
    if not making:
        return Finding(binding, State.UNASKED, "AMQP cannot query it; apply creates it")
    error = link.restore(Topology(bindings=(binding,)))
    if error is not None:
        return Finding(binding, State.UNKNOWN, f"not declared again: {error}")
    return Finding(binding, State.MADE if State.MADE in ends else State.ENSURED)
