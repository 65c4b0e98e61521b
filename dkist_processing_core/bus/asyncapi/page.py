"""
The page of the documentation that shows the AsyncAPI document.

    python -m dkist_processing_core.bus.asyncapi.page docs/reference/bus.md

Not here: the document (document), and the page about the data of the events (events.page).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dkist_processing_core.bus.asyncapi.document import ARGUMENTS, PROPERTIES, default_document

_HEAD = """\
# Messages on RabbitMQ

`telemetry/asyncapi.json` describes the messages for programs in any language. It is an
[AsyncAPI 3.0](https://www.asyncapi.com/docs/reference/specification/v3.0.0) document with bindings of AMQP, and its
schemas are JSON Schema of draft 7. `dkist-core topology asyncapi` writes it for your settings. This page is generated
from it by `make events`. [Consume events in other languages](../how-to/other-languages.md) has complete programs.

The tables show the default names; `ISB_EVENT_EXCHANGE` and `ISB_EXCHANGE` change those of the exchanges.
"""
_EVENTS_PAGE = "events.md"


def page(document: dict[str, Any]) -> str:
    """Return the page about a document."""
    messages = document["components"]["messages"]
    event, *_, failure = messages.values()
    body = document["components"]["schemas"][failure["payload"]["$ref"].rpartition("/")[2]]
    lines = [
        _HEAD,
        "## Servers\n",
        *_servers(document["servers"]),
        *(line for name, channel in document["channels"].items() for line in _channel(name, channel, document)),
        "## An event as a message\n",
        "The content type, the properties and the attributes are the same for each event. `data` is that of",
        f"[the event]({_EVENTS_PAGE}).\n",
        *_table("property", event[PROPERTIES]),
        *_table("header", _descriptions(event["headers"])),
        *_table("attribute", _attributes(event["payload"])),
        f"## `{failure['name']}` as a message\n",
        f"{failure['summary']}\n",
        *_table("property", failure[PROPERTIES]),
        *_table("field", _attributes(body)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _servers(servers: dict[str, Any]) -> Iterator[str]:
    yield "| address | protocol | account |"
    yield "|---|---|---|"
    for server in servers.values():
        address = f"{server['protocol']}://{server['host']}{server['pathname']}"
        port = server["variables"]["port"]["default"]
        yield f"| `{address}`, port {port} by default | AMQP {server['protocolVersion']} | user and password |"
    yield ""


def _channel(name: str, channel: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    """Yield the section of a channel."""
    binding = channel["bindings"]["amqp"]
    yield f"## {channel['title']}\n\n{channel['description']}\n"
    if binding["is"] == "queue":
        queue = binding["queue"]
        arguments = ", ".join(f"`{key}` {value}" for key, value in queue[ARGUMENTS].items())
        yield f"* queue: `{queue['name']}`, durable, with {arguments}"
    else:
        exchange = binding["exchange"]
        yield f"* exchange: `{exchange['name']}`, durable, {exchange['type']}"
        yield f"* routing key: `{channel['address']}`"
    for each, operation in document["operations"].items():
        if operation["channel"]["$ref"].endswith(f"/{name}"):
            yield f"* operation `{each}` ({operation['action']}): {operation['summary']}"
    yield ""
    yield from _table("parameter", _parameters(channel.get("parameters", {})))
    yield f"Messages: {', '.join(_link(each) for each in channel['messages'])}.\n"


def _link(name: str) -> str:
    """Return the link to the section about a message."""
    anchor = re.sub(r"[^\w-]", "", name)
    is_event = not name.endswith(".m")
    return f"[`{name}`]({_EVENTS_PAGE}#{anchor})" if is_event else f"[`{name}`](#{anchor}-as-a-message)"


def _parameters(parameters: dict[str, Any]) -> dict[str, str]:
    return {
        f"{{{name}}}": " ".join([made["description"], *([_one_of(made["enum"])] if "enum" in made else [])])
        for name, made in parameters.items()
    }


def _one_of(values: list[str]) -> str:
    return f"One of {', '.join(f'`{value}`' for value in values)}."


def _descriptions(made: dict[str, Any]) -> dict[str, str]:
    return {name: part["description"] for name, part in made["properties"].items()}


def _attributes(made: dict[str, Any]) -> dict[str, str]:
    """Return the meaning of each property of a schema that has one, and whether a message always has it."""
    always = set(made["required"])
    return {
        name: f"{part['description']}{'' if name in always else ' Not always present.'}"
        for name, part in made["properties"].items()
        if "description" in part
    }


def _table(title: str, rows: dict[str, str]) -> Iterator[str]:
    if rows:
        yield f"| {title} | content |"
        yield "|---|---|"
        yield from (f"| `{name}` | {text} |" for name, text in rows.items())
        yield ""


def main(path: str) -> None:
    """Write the page at a path."""
    Path(path).write_text(page(default_document()))


if __name__ == "__main__":
    main(*sys.argv[1:])
