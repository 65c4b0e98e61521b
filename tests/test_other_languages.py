"""
Consumers without this library: the programs in `examples/consumers`, run as a user runs them.

Not here: the document from which such programs can be written (test_asyncapi).
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError
from typer.testing import CliRunner

from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.bus.asyncapi.document import PROPERTIES, default_document
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, consumer_topology, publisher_topology
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import EVENT_CLASSES, Event, RecipeRunFailureMessage, encode
from tests.facts import failed, finished, make
from tests.services.broker import Broker

PROGRAMS = Path(__file__).parents[1] / "examples" / "consumers"
QUEUE, PATTERN = "announcer", "task.failed.#"
SECONDS = 100.0
PROGRAM = {
    "pika": [sys.executable, "with_pika.py", QUEUE, PATTERN],
    "amqplib": ["node", "with_amqplib.js", QUEUE, PATTERN],
    "amqp10": ["node", "with_amqp10.js", f"/queues/{QUEUE}"],
}
each_program = pytest.mark.parametrize("command", PROGRAM.values(), ids=PROGRAM)
each_that_declares = pytest.mark.parametrize("command", [PROGRAM["pika"], PROGRAM["amqplib"]], ids=["pika", "amqplib"])
# Before RabbitMQ 4, AMQP 1.0 is in a plugin, which has other addresses.
PLUGIN = """
    Folders = filelib:wildcard("/usr/lib/rabbitmq/lib/*/plugins/{amqp10_common,amqp_client,rabbitmq_amqp1_0}-*/ebin"),
    [code:add_pathz(Folder) || Folder <- Folders],
    {ok, _} = application:ensure_all_started(rabbitmq_amqp1_0), code:ensure_loaded(rabbit_amqp1_0_reader).
"""


@pytest.fixture
def environment(owned: Broker, node_modules: Path) -> dict[str, str]:
    """
    The variables of a program. An account is no argument, since all users of a host can read those.
    """
    settings = DKISTProcessingCoreConfiguration.read()
    with AmqpLink.open(settings, SECONDS) as link:
        link.declare(publisher_topology(settings))
    user, password, vhost = (quote(each, safe="") for each in (owned.username, owned.password, owned.vhost))
    url = f"amqp://{user}:{password}@{owned.host}:{owned.port}/{vhost}"
    return {**os.environ, "AMQP_URL": url, "NODE_PATH": str(node_modules)}


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """
    Run a program of the examples, and end it by SIGTERM unless it has ended.
    """
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=PROGRAMS, env=environment, text=True, **pipes) as program:
        try:
            yield program
        finally:
            program.send_signal(signal.SIGTERM)


def lines_of(program: subprocess.Popen[str], count: int) -> list[str]:
    """
    Return the next lines that a program prints.
    """
    assert program.stdout is not None
    return [program.stdout.readline().rstrip("\n") for _ in range(count)]


def publish(*events: Event, failure: RecipeRunFailureMessage | None = None) -> None:
    """
    Publish messages to the broker of the settings.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)
        if failure is not None:
            publisher.publish_failure(failure)
        assert publisher.flush(SECONDS)


SAMPLES: dict[str, Any] = dict.fromkeys(("attempt", "sequence", "limit_seconds", "done"), 1) | {
    "task_name": "A",
    "cause": "lost",
}
ONE_OF_EACH = [
    make(
        event_class,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        **{name: fact for name, fact in SAMPLES.items() if name in event_class.__struct_fields__},
    )
    for event_class in EVENT_CLASSES
]
FAILURE = RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r")


def for_version(command: list[str], broker: Broker) -> list[str]:
    """
    Return the command for the version of a broker.
    """
    if not broker.node.eval("rabbit_misc:version().").startswith('"3.'):
        return command
    broker.node.eval(PLUGIN)
    return [part.replace("/queues/", "/amq/queue/") for part in command]


@each_program
def test_a_program_in_another_language_prints_each_occurrence_once(
    command: list[str], owned: Broker, environment: dict[str, str]
) -> None:
    """
    Its queue is as `topology apply --consumer` creates it. A message that is not an event does not end the program.
    """
    settings = DKISTProcessingCoreConfiguration.read()
    with AmqpLink.open(settings, SECONDS) as link:
        link.declare(consumer_topology(settings, QUEUE, [PATTERN]))
    failure = failed("Right", error_type="KeyError", message="'missing'")
    publish(failure, finished("Left"), failure, failed("Right", reported_by="engine", provisional=True))
    with owned.connect() as connection:
        for body in (b"\xff", b"7", b'{"id": "1"}'):
            connection.channel().basic_publish("workflow.events.x", "task.failed.W.A", body)
    publish(failed("Last"))

    with running(for_version(command, owned), environment) as program:
        first, *refused, last = lines_of(program, 5)

    assert first == "edu.nso.dkist.task.failed W/Right: KeyError: 'missing'"
    assert [line.partition(": ")[0] for line in refused] == ["not an event"] * 3
    assert last == "edu.nso.dkist.task.failed W/Last"
    assert program.returncode == 0
    with owned.connect() as connection:
        assert connection.channel().queue_declare(QUEUE, passive=True).method.message_count == 0


@each_that_declares
def test_a_program_in_another_language_creates_its_queue_as_this_library_does(
    command: list[str], owned: Broker, environment: dict[str, str]
) -> None:
    """
    Afterwards `topology plan --consumer` finds no difference.
    """
    with running(command, environment) as program, owned.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # The queue of the archive would accept the message.
        channel.queue_delete(ARCHIVE_QUEUE)
        while not is_routed(channel, encode(failed("A"))):
            connection.process_data_events(0.02)
        printed = lines_of(program, 1)

    planned = CliRunner().invoke(app, ["topology", "plan", "--consumer", f"{QUEUE}={PATTERN}", "--json"]).stdout
    states = {item.get("name"): item["state"] for item in json.loads(planned)["items"] if item["kind"] == "queue"}
    assert printed == ["edu.nso.dkist.task.failed W/A"]
    assert states[QUEUE] == "there"


def is_routed(channel: BlockingChannel, body: bytes) -> bool:
    """
    Publish an event, and return whether a queue has it.
    """
    with suppress(UnroutableError):
        channel.basic_publish("workflow.events.x", "task.failed.W.A", body, mandatory=True)
        return True
    return False


@each_that_declares
def test_a_program_in_another_language_ends_with_its_connection(
    command: list[str], owned: Broker, environment: dict[str, str]
) -> None:
    """
    A service manager starts it again, and the broker delivers what it had not acknowledged.
    """
    settings = DKISTProcessingCoreConfiguration.read()
    with AmqpLink.open(settings, SECONDS) as link:
        link.declare(consumer_topology(settings, QUEUE, [PATTERN]))
    publish(failed("A"))

    with running(command, environment) as program:
        before = lines_of(program, 1)
        owned.close_connections()
        status = program.wait(SECONDS)
        publish(failed("B"))
    with running(command, environment) as program:
        after = lines_of(program, 1)
        # The connection may have ended before the acknowledgement.
        after = lines_of(program, 1) if after == before else after

    assert status not in {0, -signal.SIGTERM}
    assert [*before, *after] == ["edu.nso.dkist.task.failed W/A", "edu.nso.dkist.task.failed W/B"]


def test_messages_have_the_properties_that_the_document_states(owned: Broker, environment: dict[str, str]) -> None:
    """
    Each event, and the failure message, as plain pika receives them.
    """
    del environment
    received: dict[str, tuple[Any, Any, bytes]] = {}
    with owned.connect() as connection:
        channel = connection.channel()
        channel.queue_declare("all.q")
        channel.queue_bind("all.q", "workflow.events.x", "#")
        channel.queue_bind("all.q", "master.direct.x", RecipeRunFailureMessage.routing_key)
        publish(*ONE_OF_EACH, failure=FAILURE)
        while (message := channel.basic_get("all.q", auto_ack=True))[0] is not None:
            key = message[0].routing_key
            received[key if key == RecipeRunFailureMessage.routing_key else ".".join(key.split(".")[:2])] = message
    document = default_document()

    assert set(received) == set(document["components"]["messages"])
    for channel_of in document["channels"].values():
        binding = channel_of["bindings"]["amqp"]
        if binding["is"] == "routingKey":
            pattern = re.sub(r"\\{\w+\\}", "[^.]+", re.escape(channel_of["address"]))
            for name in channel_of["messages"]:
                method = received[name][0]
                assert method.exchange == binding["exchange"]["name"]
                assert re.fullmatch(pattern, method.routing_key)
    for name, (_, properties, body) in received.items():
        stated = document["components"]["messages"][name]
        assert set(stated[PROPERTIES]) | ({"headers"} if "headers" in stated else set()) == {
            each for each, value in vars(properties).items() if value is not None
        }
        event = json.loads(body)
        assert properties.content_type == stated["contentType"]
        assert properties.type == stated["bindings"]["amqp"].get("messageType")
        assert properties.message_id == event.get("id", FAILURE.id)
        assert properties.correlation_id == event.get("data", event)["dagRunId"]
        assert set(properties.headers or {}) == set(stated.get("headers", {}).get("properties", {}))
        assert (properties.delivery_mode, properties.app_id) == (2, "dkist-processing-core")
