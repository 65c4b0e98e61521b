"""
The topology: planned, applied, imported, and used with limited permissions.

    python -m tests.test_topology      prints the content of config/rabbitmq/definitions.json
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika.exceptions
import pytest
from typer.testing import CliRunner, Result

from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, consumer_topology, definitions, whole_topology
from dkist_processing_core.cli import app
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, RecipeRunFailureMessage
from tests.facts import finished, progressed, started
from tests.generated import generated_by
from tests.services.broker import Broker

ROOT = Path(__file__).parent.parent
DEFINITIONS = ROOT / "config" / "rabbitmq" / "definitions.json"
PAGE = (ROOT / "docs" / "how-to" / "rabbitmq.md").read_text(encoding="utf-8")
# The permissions of a user, in the order of `rabbitmqctl set_permissions`: configure, write, read.
RIGHTS = {
    user: tuple(rights)
    for user, *rights in re.findall(r"(?m)^ *rabbitmqctl set_permissions (\w+) '(.*)' '(.*)' '(.*)'$", PAGE)
}
EVERYTHING = {
    "exchange": ["master.direct.x", "workflow.events.dlx", "workflow.events.x"],
    "queue": ["recipe.run.failure.q", "workflow.events.archive.q"],
}
SECONDS = 100.0


def definitions_file() -> str:
    """
    Return the text of `config/rabbitmq/definitions.json` for the default settings, independent of the environment.
    """
    settings = DKISTProcessingCoreConfiguration.model_construct()
    return json.dumps(definitions(whole_topology(settings), settings.isb_vhost), indent=2) + "\n"


def topology(*arguments: str) -> Result:
    """
    Run a topology command.
    """
    return CliRunner().invoke(app, ["topology", *arguments], catch_exceptions=False)


def states(*arguments: str) -> list[tuple[str, str, str]]:
    """
    Return kind, name and state of every item in a command's output.
    """
    items = json.loads(topology(*arguments, "--json").stdout)["items"]
    return [(item["kind"], item.get("name") or item["queue"], item["state"]) for item in items]


def found(*arguments: str) -> dict[str, dict[str, Any]]:
    """
    Return every exchange and queue in a command's output, by name.
    """
    items = json.loads(topology(*arguments, "--json").stdout)["items"]
    return {item["name"]: item for item in items if item["kind"] != "binding"}


def there_is(broker: Broker) -> dict[str, list[str]]:
    """
    Return the names of the exchanges and queues in a virtual host, except the broker's own exchanges.
    """
    place = f'<<"{broker.vhost}">>'
    queues = f"[amqqueue:get_name(Queue) || Queue <- rabbit_amqqueue:list({place})]"
    exchanges = f"[element(2, Exchange) || Exchange <- rabbit_exchange:list({place})]"
    names = {
        kind: json.loads(broker.node.eval(f"lists:sort([binary_to_list(element(4, Name)) || Name <- {found}])."))
        for kind, found in (("exchange", exchanges), ("queue", queues))
    }
    return {kind: [name for name in each if name and not name.startswith("amq.")] for kind, each in names.items()}


def exported(broker: Broker, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """
    Return the node's export of a virtual host, in the form of the definitions.
    """
    broker.node.ctl("export_definitions", str(folder / "exported.json"))
    everything = json.loads((folder / "exported.json").read_text())
    kinds = ("exchanges", "queues", "bindings")
    there = {kind: [each for each in everything[kind] if each["vhost"] == broker.vhost] for kind in kinds}
    for queue in there["queues"]:
        # The node repeats the argument x-queue-type here.
        del queue["type"]
    return there


def in_order(kinds: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """
    Return definitions sorted, with the keys that the export of a node has.
    """
    return {
        kind: sorted(
            ({key: value for key, value in each.items() if key != "internal"} for each in kinds[kind]),
            key=lambda each: json.dumps(each, sort_keys=True),
        )
        for kind in ("exchanges", "queues", "bindings")
    }


def publish(*events: Event, failure: RecipeRunFailureMessage | None = None) -> tuple[int, int]:
    """
    Publish events, and return the numbers of confirmed and of other messages.
    """
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        publisher.publish(*events)
        if failure is not None:
            publisher.publish_failure(failure)
        publisher.flush(SECONDS)
        with publisher.bus.open_journal() as journal:
            books = journal.books()
    return books.confirmed, books.pending + books.set_aside


def limited(broker: Broker, name: str) -> Broker:
    """
    Return a broker with a user who has the permissions that the documentation gives to the user of this name.
    """
    configure, write, read = RIGHTS[name]
    return broker.as_user(configure=configure, write=write, read=read)


def answers_everybody(broker: Broker) -> bool:
    """
    Return True if this version answers a passive declare of an account without any permission on the queue.
    """
    with channel_of(broker) as channel:
        channel.queue_declare("seen", durable=True)
    with channel_of(broker.as_user()) as channel:
        try:
            channel.queue_declare("seen", passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        finally:
            with channel_of(broker) as another:
                another.queue_delete("seen")
    return True


@contextmanager
def channel_of(broker: Broker) -> Iterator[Any]:
    """
    Yield a channel that does not use the code under test.
    """
    with broker.connect() as connection:
        yield connection.channel()


# Plan and apply


def test_a_plan_of_nothing_lists_everything_and_makes_nothing(owned: Broker) -> None:
    """
    Missing items are listed with their properties, and the exit code is 3.
    """
    told = topology("plan", "--consumer", "operators")

    assert there_is(owned) == {"exchange": [], "queue": []}
    assert told.exit_code == 3
    assert told.stdout.endswith("\n11 missing\n")
    assert "○ exchange  workflow.events.x          missing: topic\n" in told.stdout
    assert "○ queue     recipe.run.failure.q       missing: x-queue-type=classic\n" in told.stdout
    assert "○ binding   workflow.events.archive.q  missing: from workflow.events.x with '#'\n" in told.stdout


def test_apply_makes_everything_and_then_nothing(owned: Broker, tmp_path: Path) -> None:
    """
    The items of the node equal the declared ones, and a plan calls them equal.
    """
    first, second, plan = topology("apply"), topology("apply"), topology("plan")

    declared = definitions(whole_topology(DKISTProcessingCoreConfiguration.read()), owned.vhost)
    assert in_order(exported(owned, tmp_path)) == in_order(declared)
    assert [first.exit_code, second.exit_code, plan.exit_code] == [0, 0, 0]
    assert [each.stdout.splitlines()[-1] for each in (first, second, plan)] == [
        "7 made",
        "5 there, 2 ensured",
        "5 there, 2 not asked",
    ]


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_a_queue_that_has_yet_to_start_hides_no_other(owned: Broker, command: str) -> None:
    """
    It is listed with the broker's reason, and all other items are listed.
    """
    topology("apply")
    everything = found("plan")
    with owned.absent(ARCHIVE_QUEUE):
        told = found(command)

    assert set(told) == set(everything)
    assert "is not ready: NOT_FOUND - " in told[ARCHIVE_QUEUE]["reason"]
    others = {name: item["state"] for name, item in told.items() if name != ARCHIVE_QUEUE}
    assert set(others.values()) == {"there"}


def test_a_lost_binding_is_made_again(owned: Broker, tmp_path: Path) -> None:
    """
    A plan cannot query bindings, and states that.
    """
    topology("apply")
    with channel_of(owned) as channel:
        channel.queue_unbind("workflow.events.archive.q", "workflow.events.x", "#")
    plan = topology("plan")

    mended = topology("apply")

    assert "binding   workflow.events.archive.q  ensured: from workflow.events.x with '#'\n" in mended.stdout
    assert "with '#'; AMQP cannot query it; apply creates it" in plan.stdout
    bindings = exported(owned, tmp_path)["bindings"]
    assert sorted(each["routing_key"] for each in bindings) == ["#", "recipe.run.failure.m"]


def test_what_is_different_is_told_and_left(owned: Broker) -> None:
    """
    All different arguments are listed, although the broker names only the first, with the command that corrects them.
    """
    with channel_of(owned) as channel:
        # RabbitMQ from 4.0 on stores this argument for a queue that was declared without a type.
        channel.queue_declare("workflow.events.archive.q", durable=True, arguments={"x-queue-type": "classic"})

    plan, told = topology("plan"), found("plan")["workflow.events.archive.q"]
    apply = topology("apply")

    assert (plan.exit_code, apply.exit_code, told["state"]) == (1, 1, "different")
    assert told["differences"] == [
        {"argument": "x-max-length-bytes", "found": None, "expected": "5000000000"},
        {"argument": "x-queue-type", "found": "classic", "expected": "stream"},
    ]
    assert "✗ queue     workflow.events.archive.q  different: x-max-length-bytes is not set" in apply.stdout
    assert apply.stdout.splitlines()[-1] == "6 made, 1 different"
    assert found("plan")["workflow.events.archive.q"] == told

    mending = shlex.split(re.findall(r"`rabbitmqctl (.*?)`", told["advice"])[0])
    owned.node.ctl(*mending)
    assert topology("apply").exit_code == 0


def test_every_argument_that_differs_is_told(owned: Broker) -> None:
    """
    This includes arguments of each type, and arguments that must not be set.
    """
    limits = {"x-max-length": 5, "x-overflow": "drop-head", "x-single-active-consumer": True, "x-queue-mode": "lazy"}
    with channel_of(owned) as channel:
        channel.queue_declare("operators", durable=True, arguments=limits)

    told = found("plan", "--consumer", "operators")["operators"]

    assert sorted(told["reason"].split("; ")) == [
        "x-expires is not set, expected 604800000",
        "x-max-length is 5, expected 100000",
        "x-queue-mode is lazy, expected none",
        "x-single-active-consumer is true, expected none",
    ]


def test_a_sentence_that_the_broker_cuts_is_told_as_it_is(owned: Broker) -> None:
    """
    AMQP limits the text to 255 bytes, which a long name exceeds.
    """
    name = "ä" * 120
    with channel_of(owned) as channel:
        channel.queue_declare(name, durable=True)

    told = found("plan", "--consumer", name)

    # RabbitMQ 4 closes the connection if it cuts the text inside a character.
    assert (told[name]["state"], told[name]["reason"].partition(" closed the connection: ")[2]) in (
        ("different", ""),
        (
            "unknown",
            "INTERNAL_ERROR (541): it differs, or this account may not compare it; the answer was too long to be sent",
        ),
    )
    if told[name]["state"] == "different":
        assert "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'ääää" in told[name]["reason"]
    assert told[f"{name}.dlq"]["state"] == "missing"


def test_an_exchange_of_another_type_is_told(owned: Broker) -> None:
    """
    Other properties than arguments are compared, too.
    """
    with channel_of(owned) as channel:
        channel.exchange_declare("workflow.events.x", "fanout", durable=True)
        channel.queue_declare("recipe.run.failure.q", auto_delete=True)

        told = found("plan")

    assert told["workflow.events.x"]["reason"] == "type is fanout, expected topic"
    assert "rabbitmqadmin" in told["workflow.events.x"]["advice"]
    assert told["recipe.run.failure.q"]["reason"] == "durable is false, expected true"


@pytest.mark.usefixtures("owned")
def test_the_type_of_queues_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After a change of the setting, the advice names the setting for the existing queue.
    """
    monkeypatch.setenv("ISB_QUEUE_TYPE", "quorum")
    planned = found("plan")["recipe.run.failure.q"]
    topology("apply")
    monkeypatch.setenv("ISB_QUEUE_TYPE", "classic")

    told = found("plan")["recipe.run.failure.q"]

    assert (planned["state"], planned["arguments"]) == ("missing", {"x-queue-type": "quorum"})
    assert told["reason"] == "x-queue-type is quorum, expected classic"
    assert told["advice"].endswith("; or set ISB_QUEUE_TYPE=quorum")


@pytest.mark.parametrize("name", ["it's", "ä" * 100, "[bold]x"], ids=["quote", "long", "markup"])
def test_consumers_queues_are_made_before_they_come(owned: Broker, tmp_path: Path, name: str) -> None:
    """
    The queues equal those that a subscription with that name would create, for any name.
    """
    asked = ["--consumer", f"{name}=task.failed", "--consumer", f"{name}=workflow.#"]

    applied = topology("apply", *asked)
    plan = topology("plan", *asked)

    declared = consumer_topology(DKISTProcessingCoreConfiguration.read(), name, ["task.failed.*.#", "workflow.#"])
    there = exported(owned, tmp_path)
    queues = {each["name"]: each["arguments"] for each in there["queues"]}
    assert {queue.name: dict(queue.arguments) for queue in declared.queues}.items() <= queues.items()
    assert sorted(each["routing_key"] for each in there["bindings"] if each["destination"] == name) == [
        "task.failed.*.#",
        "workflow.#",
    ]
    assert (applied.exit_code, plan.exit_code) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("operators=", "the pattern of 'operators' is '', expected 1 to 255 bytes"),
        ("=task.failed", "the subscription's name is ''"),
        (
            "operators=task.fail",
            "the pattern of 'operators' is 'task.fail', which no event matches; expected three or four words",
        ),
        ("operators=task.fail", "task.finished"),
        ("operators=task..W.A", "is 'task..W.A', which no event matches"),
        ("operators=task.failed.#.", "is 'task.failed.#.', which no event matches"),
        ("operators=task.failed.W.A.x", "is 'task.failed.W.A.x', which no event matches"),
        ("operators=*.*.*.*.*.#", "is '*.*.*.*.*.#', which no event matches"),
        ("operators.dlq", "expected a name that does not begin with 'amq.' or end with '.dlq'"),
        ("workflow.events.archive.q", "expected another name: this queue has its own use"),
    ],
)
def test_a_consumer_that_there_cannot_be_is_refused(asked: str, complaint: str) -> None:
    """
    It is a usage error, reported before any broker is contacted.
    """
    told = topology("plan", "--consumer", asked)

    assert told.exit_code == 2
    assert complaint in " ".join(told.output.split())


# Limited permissions


def test_a_user_without_the_configure_right_learns_what_is_missing(
    broker: Broker, use: Callable[[Broker], None]
) -> None:
    """
    The output lists the missing items, and that this user cannot create them.
    """
    use(broker.as_user(write=".*", read=".*"))

    plan, apply = topology("plan"), topology("apply")

    assert (plan.exit_code, apply.exit_code) == (3, 1)
    assert "missing: topic; not created: RabbitMQ at" in apply.stdout
    assert "ACCESS_REFUSED" in apply.stdout
    assert apply.stdout.count("run this as an account with the configure permission") == 1
    assert there_is(broker) == {"exchange": [], "queue": []}


def test_a_user_without_the_configure_right_learns_what_is_there(owned: Broker, use: Callable[[Broker], None]) -> None:
    """
    The broker does not report whether they are equal. From RabbitMQ 4.2 on, it does not report whether they exist.
    """
    topology("apply")
    use(owned.as_user())

    plan, apply = topology("plan"), states("apply")

    assert plan.exit_code == 1
    is_told = answers_everybody(owned)
    assert plan.stdout.count("it exists, and can be compared only with the configure permission") == 5 * is_told
    assert plan.stdout.count("whether it exists is not known: this account has no permission") == 5 * (not is_told)
    assert (
        plan.stdout.count(
            "run this as an account with the configure permission; a publisher needs it only if something is missing"
        )
        == 1
    )
    assert {state for _, _, state in apply} == {"unknown"}


def test_a_publisher_needs_no_more_than_to_write(owned: Broker, use: Callable[[Broker], None]) -> None:
    """
    If the topology exists, its events and its failure message are confirmed.
    """
    topology("apply")
    use(limited(owned, "publisher"))

    failure = RecipeRunFailureMessage(
        workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r", log_url="http://log/1"
    )
    outcome = publish(started("A"), finished("A"), failure=failure)

    assert RIGHTS["publisher"] == ("^$", r"^(workflow\.events\.x|master\.direct\.x)$", "^$")
    assert outcome == (3, 0)


def test_a_consumer_needs_no_configure_right(owned: Broker, use: Callable[[Broker], None]) -> None:
    """
    If its queues exist, it receives events and dead-letters messages that cannot be decoded.
    """
    topology("apply", "--consumer", "operators=task.finished")
    use(limited(owned, "consumer"))

    with subscribe("task.finished", name="operators", timeout=SECONDS) as subscription:
        with channel_of(owned) as channel:
            channel.basic_publish("workflow.events.x", "task.finished.W.A", b"nonsense")
        use(owned)
        publish(finished("A"))
        event = next(subscription)
    with channel_of(owned) as channel:
        _, _, buried = channel.basic_get("operators.dlq", auto_ack=True)

    assert (event, buried) == (finished("A"), b"nonsense")


def test_a_reader_of_the_archive_needs_to_read_it(owned: Broker, use: Callable[[Broker], None]) -> None:
    """
    A subscription without a name does not create anything, so the read permission is enough.
    """
    topology("apply")
    publish(started("A"))
    use(limited(owned, "reader"))

    with subscribe(replay=True, timeout=SECONDS) as subscription:
        assert started("A") == next(subscription)


def test_a_consumer_may_count_what_it_has_lost(
    owned: Broker, use: Callable[[Broker], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The permissions that the documentation gives to a consumer are enough.
    """
    monkeypatch.setattr("dkist_processing_core.bus.topology.MAX_QUEUE_LENGTH", 5)
    topology("apply", "--consumer", "operators=task.progressed")
    consumer = limited(owned, "consumer")
    use(consumer)
    with subscribe("task.progressed", name="operators", timeout=SECONDS) as subscription:
        use(owned)
        publish(progressed("A", 0))
        next(subscription).ack()
    publish(*[progressed("A", number) for number in range(1, 9)])
    use(consumer)

    with subscribe("task.progressed", name="operators", timeout=SECONDS) as subscription:
        assert next(subscription) == progressed("A", 4)
        assert subscription.missed == 3


def test_an_operator_may_plan_and_apply(owned: Broker, use: Callable[[Broker], None]) -> None:
    """
    This includes the queues of consumers.
    """
    use(limited(owned, "operator"))

    applied = topology("apply", "--consumer", "operators")
    plan = topology("plan", "--consumer", "operators")

    assert (applied.exit_code, plan.exit_code) == (0, 0)


def test_a_consumers_queue_with_other_arguments_is_used_as_it_is(owned: Broker) -> None:
    """
    Limits that an operator has set stay.
    """
    with channel_of(owned) as channel:
        channel.queue_declare("operators", durable=True)

    with subscribe(name="operators", timeout=SECONDS) as subscription:
        publish(started("A"))
        event = next(subscription)

    assert event == started("A")
    assert found("plan", "--consumer", "operators")["operators"]["state"] == "different"


# No broker


def test_a_port_where_nobody_listens_is_one_line(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    The error is on the standard error stream, without a traceback.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))

    told = topology("plan", "--json")

    assert told.exit_code == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"error: RabbitMQ at 127.0.0.1:{refusing_port} refuses the connection")
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_the_embedded_journal_needs_nothing(command: str, state_dir: Path) -> None:
    """
    The output is one sentence that names the variable for a broker.
    """
    told = topology(command)

    assert told.exit_code == 0
    assert told.stdout == (
        f"nothing to create: MESH_CONFIG names no interservice-bus, and the embedded journal "
        f"{state_dir / 'embedded.db'} "
        "has neither exchanges nor queues\n"
    )


def test_no_secret_is_shown(owned: Broker, use: Callable[[Broker], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A secret is redacted even if it is in the name of an exchange, a virtual host or a user.
    """
    monkeypatch.setenv("ISB_EXCHANGE", owned.password)
    shown = [topology(*each).output for each in (["plan"], ["plan", "--json"], ["apply"])]
    use(replace(owned, vhost=owned.password, username=owned.password))
    shown += [topology("plan").output, topology("apply", "--json").output]
    use(replace(owned, vhost=owned.password))
    shown += [topology("plan").output, topology("apply", "--json").output]

    assert [owned.password in each for each in shown] == [False] * 7


# Definitions


@generated_by(".venv/bin/python -m tests.test_topology > config/rabbitmq/definitions.json")
def test_the_file_of_definitions_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The file has the defaults, the virtual host `/`, and no users or permissions.
    """
    monkeypatch.chdir(tmp_path)

    written = topology("definitions").stdout

    assert DEFINITIONS.read_text(encoding="utf-8") == written == definitions_file()
    assert set(json.loads(written)) == {"vhosts", "exchanges", "queues", "bindings"}


def test_definitions_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The definitions contain the virtual host, names, limits and consumers of the settings and options.
    """
    monkeypatch.setenv("ISB_VHOST", "räume")
    monkeypatch.setenv("ISB_EVENT_EXCHANGE", "events")
    monkeypatch.setenv("ISB_QUEUE_TYPE", "quorum")

    written = json.loads(topology("definitions", "--consumer", "operators").stdout)

    assert written["vhosts"] == [{"name": "räume"}]
    assert {each["vhost"] for kind in ("exchanges", "queues", "bindings") for each in written[kind]} == {"räume"}
    assert {each["name"]: each["arguments"]["x-queue-type"] for each in written["queues"]} == {
        "workflow.events.archive.q": "stream",
        "recipe.run.failure.q": "quorum",
        "operators": "quorum",
        "operators.dlq": "quorum",
    }
    assert written["bindings"][2] == {
        "source": "events",
        "vhost": "räume",
        "destination": "operators",
        "destination_type": "queue",
        "routing_key": "*.*.*.#",
        "arguments": {},
    }


def test_a_node_imports_the_definitions(owned: Broker, tmp_path: Path) -> None:
    """
    After the import, a plan has no changes, and the node's export equals the file.
    """
    text = DEFINITIONS.read_text(encoding="utf-8").replace('"vhost": "/"', f'"vhost": "{owned.vhost}"')
    here = {**json.loads(text), "vhosts": [{"name": owned.vhost}]}
    (tmp_path / "definitions.json").write_text(json.dumps(here))

    owned.node.ctl("import_definitions", str(tmp_path / "definitions.json"))

    assert [state for kind, _, state in states("plan") if kind != "binding"] == ["there"] * 5
    assert in_order(exported(owned, tmp_path)) == in_order(here)
    assert there_is(owned) == EVERYTHING


def test_the_keys_of_the_json_are_in_one_case(owned: Broker) -> None:
    """
    The keys follow the convention of all commands; the arguments of AMQP keep their names.
    """
    del owned

    items = json.loads(topology("plan", "--json").stdout)["items"]

    assert [key for item in items for key in item if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", key)] == []
    assert [item["routingKey"] for item in items if item["kind"] == "binding"] == ["#", "recipe.run.failure.m"]


# Examples in the documentation


def test_the_documentation_shows_what_is_printed(owned: Broker) -> None:
    """
    The page contains the output for a broker with another address.
    """
    shown = [
        topology(command).stdout.replace(f"127.0.0.1:{owned.port}", "broker.example:5672").replace(owned.vhost, "/")
        for command in ("plan", "apply", "plan")
    ]

    assert [each in PAGE for each in shown] == [True] * 3


if __name__ == "__main__":
    sys.stdout.write(definitions_file())
