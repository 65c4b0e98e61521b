"""
The doctor's checks of RabbitMQ: whether it answers, accepts the login, and routes an event to a consumer.

Not here: AMQP (bus).
"""

import secrets
from collections.abc import Iterator, Sequence

from dkist_processing_core.bus.amqp import tls
from dkist_processing_core.bus.amqp.bus import AmqpBus
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.bus.topology import (
    ARCHIVE_QUEUE,
    Binding,
    Exchange,
    Queue,
    Topology,
    whole_topology,
)
from dkist_processing_core.cli.doctor.archive import check_archive_of_broker
from dkist_processing_core.cli.doctor.check import Check, Status, ok, skipped, wrong
from dkist_processing_core.cli.doctor.consumers import check_consumers
from dkist_processing_core.errors import BusError, BusRefusedError, ConfigurationError
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.settings.interface import Settings

_STEPS = ("broker", "credentials", "virtual host", "topology", "publish", "subscribe", "archive")
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 5.0
_TOPOLOGY_ADVICE = "to compare them, run `dkist-core topology plan` as an account with the configure permission"


def check_broker(settings: Settings, inboxes: Sequence[str]) -> Iterator[Check]:
    """Yield the checks in order; after a failed check, the remaining checks have no result."""
    answered = 0
    for check in _answers(settings, inboxes):
        answered += 1
        yield check
        if check.status is Status.WRONG:
            break
    for step in _STEPS[answered:]:
        yield skipped(step, "not checked, since an earlier check failed")


def _answers(settings: Settings, inboxes: Sequence[str]) -> Iterator[Check]:
    try:
        link = AmqpLink.open(settings, _CONNECT_SECONDS)
    except (BusError, ConfigurationError) as error:
        yield from _refused(settings, error)
        return
    with link:
        yield from _accepted(settings, up_to=3)
        yield _check_topology(settings, link)
        yield _check_publishing(settings, link)
        yield _check_subscribing(settings, link)
    # A request that the broker has refused may have ended the link.
    yield check_archive_of_broker(settings, _CONNECT_SECONDS)
    yield from check_consumers(settings, inboxes, _CONNECT_SECONDS)


def _accepted(settings: Settings, up_to: int) -> Iterator[Check]:
    service = settings.isb_mesh_service
    over = " over TLS" if tls.is_wanted(settings) else ""
    details = (
        f"RabbitMQ at {service.host}:{service.port} answers{over}",
        f"the login of {settings.isb_username!r} is accepted",
        f"this user has access to {settings.isb_vhost!r}",
    )
    yield from (ok(step, detail) for step, detail in zip(_STEPS[:up_to], details[:up_to], strict=True))


def _refused(settings: Settings, error: Exception) -> Iterator[Check]:
    """Yield the checks up to the one that failed, determined by the variable that the error names."""
    found = str(error)
    if isinstance(error, BusRefusedError) and "ISB_VHOST" in found:
        yield from _accepted(settings, up_to=2)
        advice = (
            "set ISB_VHOST to an existing virtual host, or grant this user permissions on it "
            "(rabbitmqctl set_permissions)"
        )
        yield wrong("virtual host", found, advice)
    elif isinstance(error, BusRefusedError) and "ISB_USERNAME" in found:
        yield from _accepted(settings, up_to=1)
        yield wrong("credentials", found, "set ISB_USERNAME and ISB_PASSWORD to the login of a user of the broker")
    elif "ISB_TLS_" in found:
        advice = "set the ISB_TLS_* variables as this broker requires; set none of them if it does not use TLS"
        yield wrong("broker", found, advice)
    else:
        # The advice says this in more words.
        found = found.removesuffix("; check that the broker runs, and MESH_CONFIG")
        yield wrong(
            "broker", found, "check that the broker runs, and that MESH_CONFIG names the address of its AMQP port"
        )


def _check_topology(settings: Settings, link: AmqpLink) -> Check:
    # The same as that of `dkist-core topology plan`, so that both give one answer.
    topology = whole_topology(settings, {})
    items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
    names = ", ".join(item.name for item in items)
    missing: list[str] = []
    try:
        missing = [
            item.name
            for item in items
            if link.exists("exchange" if isinstance(item, Exchange) else "queue", item.name) is False
        ]
        link.declare(topology)
    except BusError as error:
        lacking = f"{', '.join(missing)} missing and cannot be created: " if missing else ""
        return wrong(
            "topology", f"{lacking}{error}", "run `dkist-core topology apply` as a user with the configure permission"
        )
    if (lost := AmqpBus(settings).lost_history(link)) is not None:
        return ok("topology", f"created now: {', '.join(missing)}; {lost}")
    if link.unknown:
        # This is not an error: a publisher does not need this permission, and the next check publishes.
        return skipped("topology", f"this account may not query {', '.join(link.unknown)}", _TOPOLOGY_ADVICE)
    return ok("topology", f"created now: {', '.join(missing)}" if missing else f"{names} exist")


def _check_publishing(settings: Settings, link: AmqpLink) -> Check:
    """Publish a probe that only the archive receives: its routing key has fewer words than that of any event."""
    exchange = settings.isb_event_exchange
    try:
        link.publish(_probe(settings, secrets.token_hex(8)), _PROBE_SECONDS)
    except BusError as error:
        if link.blocked_reason:
            return wrong(
                "publish",
                f"the broker blocks publishers: {link.blocked_reason}",
                "free memory or disk space on the host of the broker; until then, events wait in the outbox",
            )
        unbound = f"bind {ARCHIVE_QUEUE} to {exchange} with '#', so that every event reaches a queue"
        advice = unbound if "returned" in str(error) else f"grant this user the write permission on {exchange}"
        return wrong("publish", str(error), advice)
    return ok("publish", f"{exchange} routed and confirmed a probe message")


def _check_subscribing(settings: Settings, link: AmqpLink) -> Check:
    """Bind an exclusive queue by a pattern, and check that it receives a second probe."""
    token = secrets.token_hex(8)
    name = f"workflow.events.doctor.{token}"
    probe = _probe(settings, token)
    exchange = settings.isb_event_exchange
    try:
        link.declare(Topology(queues=(Queue(name, exclusive=True),), bindings=(Binding(exchange, name, f"*.{token}"),)))
        link.consume(name, prefetch=1)
        link.publish(probe, _PROBE_SECONDS)
        received = link.receive(_PROBE_SECONDS)
    except BusRefusedError as error:
        # This is not an error: a publisher does not need this permission.
        return skipped("subscribe", str(error), "to consume events, grant this user the configure and read permissions")
    except BusError as error:
        return wrong("subscribe", str(error))
    if received is None or received.message.body != probe.body:
        return wrong(
            "subscribe",
            f"a probe message was not received within {_PROBE_SECONDS:g} s",
            f"{exchange} may not be a topic exchange: delete it, and the next publisher creates it",
        )
    return ok("subscribe", "a probe message was received by a pattern, as events are")


def _probe(settings: Settings, token: str) -> Message:
    return Message(
        exchange=settings.isb_event_exchange,
        routing_key=f"doctor.{token}",
        body=f'{{"probe":"{token}"}}'.encode(),
        properties=Properties(message_id=token, content_type="application/json", type="doctor.probe"),
    )
