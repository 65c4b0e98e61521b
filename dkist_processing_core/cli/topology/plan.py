"""
`dkist-core topology`: show or create the exchanges, queues and bindings for events, or write them for RabbitMQ to
import.

Not here: the requests to the broker (topology.findings).
"""

from collections.abc import Iterable, Iterator
from functools import partial

import typer

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.asyncapi.document import asyncapi
from dkist_processing_core.bus.topology import Topology, definitions, whole_topology
from dkist_processing_core.cli.redaction import without_secrets
from dkist_processing_core.cli.topology.findings import GOOD, Finding, State, findings
from dkist_processing_core.cli.topology.report import as_json, show_findings
from dkist_processing_core.consumer import Selection, check_name
from dkist_processing_core.errors import BusError
from dkist_processing_core.events import EVENT_CLASSES
from dkist_processing_core.settings.addresses import ISB_SERVICE
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.text.terminal import write_json, write_line

_MISSING = 3
_CONNECT_SECONDS = 5.0
_MAX_PATTERN_BYTES = 255
_EVENT_WORDS = (3, 4)


def show(consumers: list[str], *, making: bool, in_json: bool) -> int:
    """Print each item of the topology, create missing items if requested, and return the exit code."""
    settings = read_settings()
    hide = partial(without_secrets, settings=settings)
    bus = hide(open_bus(settings).where)
    topology = whole_topology(settings, parse_consumers(consumers))
    found = _findings(settings, topology, making=making)
    if in_json:
        items = list(found)
        report = {"bus": bus, "items": [as_json(each, hide) for each in items]}
        write_json(report)
    elif settings.names_broker:
        items = show_findings(found, topology, bus, hide)
    else:
        items = []
        write_line(f"nothing to create: MESH_CONFIG names no {ISB_SERVICE}, and {bus} has neither exchanges nor queues")
    states = {each.state for each in items}
    if states <= GOOD:
        return 0
    return _MISSING if not making and states <= {*GOOD, State.MISSING} else 1


def show_definitions(consumers: list[str]) -> None:
    """Print the topology in RabbitMQ's own format."""
    settings = read_settings()
    topology = whole_topology(settings, parse_consumers(consumers))
    write_json(definitions(topology, settings.isb_vhost))


def show_asyncapi() -> None:
    """Print the AsyncAPI document of the settings."""
    write_json(asyncapi(read_settings()))


def parse_consumers(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """
    Return the patterns of each consumer, from `NAME`, `NAME=EVENT` or `NAME=PATTERN`.

    >>> parse_consumers(["operators=task.failed", "operators=workflow.#", "all"])
    {'operators': ('task.failed.*.#', 'workflow.#'), 'all': ('*.*.*.#',)}
    """
    consumers: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, separator, pattern = text.partition("=")
        try:
            check_name(name)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if (separator and not pattern) or len(pattern.encode()) > _MAX_PATTERN_BYTES:
            msg = (
                f"the pattern of {name!r} is {pattern!r}, expected 1 to {_MAX_PATTERN_BYTES} bytes, for "
                f"example task.failed"
            )
            raise typer.BadParameter(msg)
        events = [event_class.name for event_class in EVENT_CLASSES]
        is_event = pattern in events
        if pattern and not is_event and not _may_match(pattern):
            msg = (
                f"the pattern of {name!r} is {pattern!r}, which no event matches; expected three or four "
                f"words, for example "
                f"task.failed.*.*, or '#' for any number of words, for example task.failed.#, or one of "
                f"{', '.join(events)}"
            )
            raise typer.BadParameter(msg)
        patterns = Selection((pattern,) if is_event else ()).patterns if is_event or not pattern else (pattern,)
        consumers[name] = (*consumers.get(name, ()), *patterns)
    return consumers


def _may_match(pattern: str) -> bool:
    """Return True if an event's routing key (entity, verb, workflow and perhaps task) can match the pattern."""
    words = pattern.split(".")
    counted = len(words) - words.count("#")
    return all(words) and counted <= max(_EVENT_WORDS) and ("#" in words or counted in _EVENT_WORDS)


def _findings(settings: Settings, topology: Topology, *, making: bool) -> Iterator[Finding]:
    if not settings.names_broker:
        return
    from dkist_processing_core.bus.amqp.link import AmqpLink  # noqa: PLC0415 - the journal needs no pika

    try:
        with AmqpLink.open(settings, _CONNECT_SECONDS) as link:
            yield from findings(link, topology, settings.isb_vhost, making=making)
    except BusError as error:
        # The cause is left out: it may hold the secrets that are redacted here.
        raise type(error)(without_secrets(str(error), settings)) from None
