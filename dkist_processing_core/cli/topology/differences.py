"""
The differences of an exchange or queue from its declaration, from the broker's messages, and advice to correct them.

Not here: other problems of an exchange or queue (topology.findings).
"""

import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dkist_processing_core.bus.topology import DELIVERY_LIMIT, DELIVERY_LIMIT_ARGUMENT, Exchange, Queue

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.link import AmqpLink

_VALUE = r"(?:none|(?:the value )?'(.*?)'(?: of type '\w+')?)"
_NAMED = re.compile(rf"inequivalent arg '(.+?)' for .*: received {_VALUE} but current is {_VALUE} \(")
_VARIABLES = {"x-max-length-bytes": "ISB_ARCHIVE_MAX_BYTES", "x-queue-type": "ISB_QUEUE_TYPE"}


@dataclass(frozen=True, slots=True)
class Difference:
    """An argument or another property that differs from the declaration; a value is None if it is not set."""

    argument: str
    found: str | None
    expected: str | None

    def __str__(self) -> str:
        """Return the difference as a text for an operator."""
        found = "not set" if self.found is None else self.found
        return f"{self.argument} is {found}, expected {'none' if self.expected is None else self.expected}"


def differences(link: "AmqpLink", item: Exchange | Queue) -> tuple[list[Difference], str] | None:
    """
    Return the differences of an existing item, or else the broker's message about them; None if it does not exist.

    The broker names the first argument that differs. A new declaration with the broker's value of this argument makes
    the broker name the next one.
    """
    kind = "exchange" if isinstance(item, Exchange) else "queue"
    declared: Exchange | Queue = item
    found: list[Difference] = []
    # Check this before each comparison, which would create an item that was deleted in the meantime.
    while link.exists(kind, item.name):
        sentence = link.compare(declared)
        if sentence is None:
            return found, ""
        named = _NAMED.search(sentence)
        if named is None or named[1] in {known.argument for known in found}:
            return found, "" if found else sentence
        found.append(Difference(named[1], named[3], named[2]))
        if isinstance(declared, Exchange) or not named[1].startswith("x-"):
            return found, ""
        declared = _with(declared, named[1], named[3])
    return None


def _with(queue: Queue, argument: str, value: str | None) -> Queue:
    others = {name: each for name, each in queue.arguments.items() if name != argument}
    if value is None:
        return replace(queue, arguments=others)
    typed: str | int = int(value) if value.isdecimal() else {"true": True, "false": False}.get(value, value)
    return replace(queue, arguments={**others, argument: typed})


def advice(item: Exchange | Queue, found: list[Difference], vhost: str) -> str:
    """Return advice to recreate the item as declared, or to adapt the settings to the existing item."""
    name, place = shlex.quote(item.name), shlex.quote(vhost)
    limit = [each for each in found if each.argument == DELIVERY_LIMIT_ARGUMENT]
    if found == limit != []:
        pattern, policy = shlex.quote(f"^{re.escape(item.name)}$"), json.dumps({"delivery-limit": DELIVERY_LIMIT})
        label = shlex.quote(f"{item.name} returns")
        return (
            "RabbitMQ 4 drops a message that was returned 20 times; to set the limit by a policy, "
            "which plan cannot see: "
            f"`rabbitmqctl --vhost {place} set_policy --apply-to queues {label} {pattern} '{policy}'`"
        )
    # The delivery limit depends on the queue's type.
    found = [each for each in found if each not in limit]
    if isinstance(item, Exchange):
        return (
            "it is used as it is; to create it again, with its bindings: "
            f"`rabbitmqadmin --vhost={place} delete exchange name={name}`, then apply"
        )
    variables = [
        f"{_VARIABLES[each.argument]}={each.found}"
        for each in found
        if each.argument in _VARIABLES and each.found is not None and each.expected != "stream"
    ]
    adopted = f"or set {' '.join(variables)}" if len(variables) == len(found) > 0 else ""
    return (
        "it is used as it is; to create it again, consume its messages, "
        f"`rabbitmqctl --vhost {place} delete_queue {name}`, then apply{adopted and f'; {adopted}'}"
    )
