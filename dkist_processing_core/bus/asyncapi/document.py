"""
The AsyncAPI 3.0 document of the messages on RabbitMQ, with bindings of AMQP 0.3.0.

    python -m dkist_processing_core.bus.asyncapi.document telemetry/asyncapi.json

Not here: the schemas of the bodies (schemas), and the page that shows the document (page).
"""

import inspect
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dkist_processing_core.bus.asyncapi.schemas import all_schemas, cloudevent, reference_to
from dkist_processing_core.bus.topology import Exchange, Queue, Topology, publisher_topology
from dkist_processing_core.events import CONTENT_TYPE, EVENT_CLASSES, TYPE_PREFIX, Event, RecipeRunFailureMessage
from dkist_processing_core.journal.message import APP_ID
from dkist_processing_core.settings.interface import Settings

PROPERTIES = "x-amqp-properties"
"""The extension of a message that lists its AMQP properties, for which the bindings have no place."""
ARGUMENTS = "x-arguments"
"""The extension of a queue that lists the arguments of its declaration."""
_BINDING_VERSION = {"bindingVersion": "0.3.0"}
_FAILURE = RecipeRunFailureMessage.routing_key
_NAMES = {"workflow": ["workflow"], "task": ["workflow", "task"]}
_NAME_AS_WORD = (
    "with each dot replaced by `-`; a name of more than 100 bytes is cut, and gets `-` and 8 hexadecimal digits at its "
    "end. Compare names in the body."
)
_COMMON_PROPERTIES = {"delivery_mode": "2, which means persistent", "app_id": f"`{APP_ID}`"}
_EVENT_PROPERTIES = {
    "content_type": f"`{CONTENT_TYPE}`",
    "message_id": "the `id` of the event",
    "type": "the `type` of the event",
    "timestamp": "the `time` of the event, in whole seconds",
    "correlation_id": "`dagRunId`, its first 255 bytes",
}
_FAILURE_PROPERTIES = {
    "content_type": "`application/json`",
    "message_id": "a UUID that is derived from run and task: the failure is not announced twice",
    "correlation_id": "`dagRunId`, its first 255 bytes; not set without a run",
}


def asyncapi(settings: Settings) -> dict[str, Any]:
    """Return the document for the names and limits of these settings; it names no host and no account."""
    topology = publisher_topology(settings)
    events, failures = topology.exchanges
    archive, failure_queue = topology.queues
    entities = list(dict.fromkeys(event_class.name.partition(".")[0] for event_class in EVENT_CLASSES))
    names = [event_class.name for event_class in EVENT_CLASSES]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:dkist-processing-core:bus",
        "info": {
            "title": "Events of scientific workflow tasks",
            "version": version("dkist-processing-core"),
            "description": "The messages that dkist-processing-core publishes on RabbitMQ. Events are CloudEvents 1.0 "
            "in structured mode. Each message is delivered at least once, and repetitions have the same id.",
            "license": {"name": "BSD-3-Clause"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"broker": _server("amqp", "5672"), "brokerOverTls": _server("amqps", "5671")},
        "channels": {
            **{f"{entity}Events": _event_channel(events, entity) for entity in entities},
            "pastEvents": _past_events(archive, names),
            "failures": _failures(failures, failure_queue, topology),
        },
        "operations": {
            **{f"publish{entity.title()}Events": _sending(f"{entity}Events", timestamp=True) for entity in entities},
            "readPastEvents": {
                "action": "receive",
                "channel": {"$ref": "#/channels/pastEvents"},
                "summary": "Read the stream queue with a prefetch count and the argument `x-stream-offset`.",
                "bindings": {"amqp": {"ack": True, **_BINDING_VERSION}},
            },
            "announceFailure": _sending("failures", timestamp=False),
        },
        "components": {
            "messages": {event_class.name: _event(event_class) for event_class in EVENT_CLASSES}
            | {_FAILURE: _failure_message()},
            "schemas": all_schemas(),
            "securitySchemes": {"account": {"type": "userPassword", "description": "An account of the broker."}},
        },
    }


def text_of(document: dict[str, Any]) -> str:
    """Return the text of the document's file."""
    return json.dumps(document, indent=2) + "\n"


def _server(protocol: str, port: str) -> dict[str, Any]:
    return {
        "host": "{host}:{port}",
        "pathname": "/{vhost}",
        "protocol": protocol,
        "protocolVersion": "0.9.1",
        "variables": {
            "host": {"description": "The broker's host: `mesh_address` in MESH_CONFIG."},
            "port": {"default": port, "description": "Its port: `mesh_port` in MESH_CONFIG."},
            "vhost": {"default": "/", "description": "The virtual host: ISB_VHOST, percent-encoded in a URL."},
        },
        "security": [{"$ref": "#/components/securitySchemes/account"}],
    }


def _event_channel(exchange: Exchange, entity: str) -> dict[str, Any]:
    kinds = [event_class for event_class in EVENT_CLASSES if event_class.name.partition(".")[0] == entity]
    subject = "attempts of tasks" if entity == "task" else "runs of workflows"
    parameters: dict[str, Any] = {
        "verb": {"enum": [kind.name.partition(".")[2] for kind in kinds], "description": "What happened."},
        **{name: {"description": f"The name of the {name}, {_NAME_AS_WORD}"} for name in _NAMES[entity]},
    }
    return {
        "address": ".".join([entity, *(f"{{{name}}}" for name in parameters)]),
        "title": f"Events about {subject}",
        "description": "The address is the routing key.",
        "parameters": parameters,
        "messages": _references(kind.name for kind in kinds),
        "bindings": {"amqp": _exchange(exchange)},
    }


def _past_events(queue: Queue, names: Iterable[str]) -> dict[str, Any]:
    return {
        "address": queue.name,
        "title": "Past events",
        "description": "A stream queue that is bound to all events. Reading does not remove them.",
        "messages": _references(names),
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": queue.name,
                    "durable": True,
                    "exclusive": False,
                    "autoDelete": False,
                    ARGUMENTS: dict(queue.arguments),
                },
                **_BINDING_VERSION,
            }
        },
    }


def _failures(exchange: Exchange, queue: Queue, topology: Topology) -> dict[str, Any]:
    (key,) = (binding.routing_key for binding in topology.bindings if binding.queue == queue.name)
    return {
        "address": key,
        "title": "Failures of recipe runs",
        "description": f"The established message of release 7.x. Its queue is `{queue.name}`.",
        "messages": _references([_FAILURE]),
        "bindings": {"amqp": _exchange(exchange)},
    }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    described = {"name": exchange.name, "type": exchange.type, "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": described, **_BINDING_VERSION}


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _sending(channel: str, *, timestamp: bool) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": "Each message is published as persistent and mandatory, and the broker confirms it.",
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "timestamp": timestamp, **_BINDING_VERSION}},
    }


def _event(event_class: type[Event]) -> dict[str, Any]:
    return {
        "name": event_class.name,
        "title": event_class.name,
        "summary": inspect.getdoc(event_class),
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {"traceparent": {"type": "string", "description": "The `traceparent` of the event."}},
        },
        "payload": cloudevent(event_class),
        "correlationId": {"location": "$message.payload#/data/dagRunId", "description": "The id of the run."},
        "bindings": {"amqp": {"messageType": TYPE_PREFIX + event_class.name, **_BINDING_VERSION}},
        PROPERTIES: _EVENT_PROPERTIES | _COMMON_PROPERTIES,
    }


def _failure_message() -> dict[str, Any]:
    return {
        "name": _FAILURE,
        "title": _FAILURE,
        "summary": inspect.getdoc(RecipeRunFailureMessage),
        "contentType": "application/json",
        "payload": reference_to("failureMessage"),
        "correlationId": {"location": "$message.payload#/dagRunId", "description": "The id of the run."},
        "bindings": {"amqp": _BINDING_VERSION},
        PROPERTIES: _FAILURE_PROPERTIES | _COMMON_PROPERTIES,
    }


def default_document() -> dict[str, Any]:
    """Return the document of the default settings, independent of the environment."""
    from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration  # noqa: PLC0415 - pydantic

    return asyncapi(DKISTProcessingCoreConfiguration.model_construct())


def main(path: str) -> None:
    """Write the document of the default settings."""
    Path(path).write_text(text_of(default_document()))


if __name__ == "__main__":
    main(*sys.argv[1:])
