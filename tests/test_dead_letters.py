"""
Dead letters in inboxes on SQLite and PostgreSQL, in queues of a broker and in the embedded journal: the same commands.

Not here: how messages become dead letters (test_consumer, tests/inbox).
"""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import termios
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from pika import BasicProperties
from rich.cells import cell_len
from sqlalchemy import create_engine, inspect, text
from typer.testing import CliRunner, Result

from dkist_processing_core.bus import Bus, open_bus
from dkist_processing_core.bus.embedded import KEPT_SECONDS
from dkist_processing_core.cli import app
from dkist_processing_core.dead_letters.in_journal import JournalLetters
from dkist_processing_core.dead_letters.in_queue import QueueLetters
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, TaskEvent, decode, encode
from dkist_processing_core.inbox import Arrival, Database, Inbox, Rules
from dkist_processing_core.inbox.migrating import HEAD, VERSION_TABLE
from dkist_processing_core.journal.letters import heads
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.journal.retention import HostTime, keep
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.inbox.parts import TABLES, arrival
from tests.running import command
from tests.services.broker import Broker
from tests.services.postgres import PostgresServer

NAME = "operators"
SECONDS = 100.0
SILENCE = 0.3


def run(*arguments: str) -> Result:
    """
    Run a command about dead letters.
    """
    return CliRunner().invoke(app, ["dead-letters", *arguments], catch_exceptions=False)


class Place(ABC):
    """
    A place with dead letters of the consumer `operators`, and the options that name it.
    """

    options: tuple[str, ...] = ()

    @abstractmethod
    def dead_letter(self, *reasons: str) -> None:
        """
        Have one event after another become a dead letter, for these reasons.
        """

    @abstractmethod
    def handle(self) -> list[str]:
        """
        Handle what the consumer gets now, and return the names of the tasks.
        """

    @abstractmethod
    def bury_again(self, reason: str) -> None:
        """
        Have what the consumer gets now become dead letters once more.
        """

    def groups(self, *options: str) -> list[dict[str, Any]]:
        """
        Return the groups that `list` shows.
        """
        done = run("list", "--json", *options, *self.options)
        assert done.exit_code == 0, done.output
        listed: list[dict[str, Any]] = json.loads(done.stdout)["groups"]
        return listed

    def letters(self, group: str) -> list[dict[str, Any]]:
        """
        Return the letters of a group that `list` shows.
        """
        listed: list[dict[str, Any]] = json.loads(run("list", group, "--json", *self.options).stdout)["letters"]
        return listed

    def change(self, *arguments: str) -> int:
        """
        Run a command that changes letters, and return their number.
        """
        done = run(*arguments, "--json", *self.options)
        assert done.exit_code == 0, done.output
        return int(json.loads(done.stdout)["count"])


def events(count: int) -> list[Event]:
    """
    Return failures of the tasks T0, T1 and so on.
    """
    return [failed(f"T{number}") for number in range(count)]


class OnBus(Place):
    """
    The dead letters of a named subscription to either bus.
    """

    options = ("--consumer", NAME)

    def __init__(self, bus: Bus) -> None:
        """
        Begin the subscription, so that it gets what is published from now on.
        """
        self.bus = bus
        bus.subscribe(["#"], name=NAME).close()

    def dead_letter(self, *reasons: str) -> None:
        """
        Publish events, and dead-letter each with its reason.
        """
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(*events(len(reasons)))
            assert publisher.flush(SECONDS)
        with self.bus.subscribe(["#"], name=NAME) as receiver:
            for reason in reasons:
                received = receiver.receive(SECONDS)
                assert received is not None
                received.dead_letter(reason)

    def handle(self) -> list[str]:
        """
        Acknowledge what the subscription receives.
        """
        tasks = []
        with self.bus.subscribe(["#"], name=NAME) as receiver:
            while (received := receiver.receive(SILENCE)) is not None:
                event = decode(received.message.body)
                assert isinstance(event, TaskEvent)
                tasks.append(event.task_name)
                received.acknowledge(SECONDS)
        return tasks

    def bury_again(self, reason: str) -> None:
        """
        Dead-letter what the subscription receives.
        """
        with self.bus.subscribe(["#"], name=NAME) as receiver:
            while (received := receiver.receive(SILENCE)) is not None:
                received.dead_letter(reason)


class InInbox(Place):
    """
    The dead letters of a consumer with an inbox.
    """

    def __init__(self, database: Database, url: str | None) -> None:
        """
        Open the inbox of the consumer.
        """
        self.options = () if url is None else ("--inbox", url)
        self.inbox = Inbox(database, Rules(NAME, max_tries=1))

    def dead_letter(self, *reasons: str) -> None:
        """
        Store events, and have the handler of each fail with its reason.
        """
        self.inbox.store([arrival(event) for event in events(len(reasons))])
        for row, reason in zip(self.inbox.claim(len(reasons)), reasons, strict=True):
            # A kind of reason has one kind of exception, so that each place groups them alike.
            self.inbox.fail(row, KeyError(reason) if "column" in reason else OSError(reason))

    def handle(self) -> list[str]:
        """
        Mark the claimed rows as done.
        """
        rows = self.inbox.claim(99)
        self.inbox.mark_done(rows)
        return [row.event.task_name for row in rows if isinstance(row.event, TaskEvent)]

    def bury_again(self, reason: str) -> None:
        """
        Have the handlers of all rows fail.
        """
        for row in self.inbox.claim(99):
            self.inbox.fail(row, KeyError(reason))


REASONS = ("no column 'a'", "the disk is full", "no column 'b'")


@pytest.fixture(scope="session")
def inbox_url(postgres: PostgresServer) -> str:
    """
    The address of a database for these tests.
    """
    postgres.create_database("dead_letters")
    return postgres.url("dead_letters", driver="psycopg")


# The fixtures of these two are requested by name, so their marks are not found.
_ON_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.processes)
_ON_RABBITMQ = pytest.param("queue", marks=[pytest.mark.rabbitmq, pytest.mark.versions, pytest.mark.processes])


@pytest.fixture(params=["sqlite", _ON_POSTGRESQL, _ON_RABBITMQ, "journal"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Each place that keeps dead letters.
    """
    if request.param in {"queue", "journal"}:
        if request.param == "queue":
            request.getfixturevalue("owned")
        yield OnBus(open_bus(read_settings()))
        return
    url = request.getfixturevalue("inbox_url") if request.param == "postgresql" else None
    with closing(Database.open(url, read_settings())) as database:
        if url is not None:
            with database.transaction() as transaction:
                transaction.exec_driver_sql(f"TRUNCATE {TABLES} RESTART IDENTITY")
        place = InInbox(database, url)
        yield place
        place.inbox.close()


@pytest.fixture
def queue(owned: Broker) -> OnBus:
    """
    The dead letters of a subscription to RabbitMQ.
    """
    del owned
    return OnBus(open_bus(read_settings()))


def test_equal_failures_are_one_group_with_a_count(place: Place) -> None:
    """
    The values in a message or a reason do not matter.
    """
    place.dead_letter(*REASONS)

    groups = place.groups()

    assert sorted((group["count"], group["consumer"]) for group in groups) == [(1, NAME), (2, NAME)]
    (large,) = (group for group in groups if group["count"] == 2)
    assert {letter["event"]["taskName"] for letter in place.letters(large["id"])} == {"T0", "T2"}
    assert large["firstFailedAt"] <= large["lastFailedAt"]


def test_a_group_is_retried_and_keeps_its_history(place: Place) -> None:
    """
    The consumer gets each of its events once more; what fails again shows how it failed before.
    """
    place.dead_letter(*REASONS)
    (large,) = (group for group in place.groups() if group["count"] == 2)

    assert place.change("retry", large["id"]) == 2
    assert [group["count"] for group in place.groups()] == [1]
    place.bury_again("the disk is full")
    again = [letter for group in place.groups() for letter in place.letters(group["id"])]
    (name,) = (letter["id"] for letter in again if letter["event"]["taskName"] == "T2")
    shown = json.loads(run("show", name, "--json", *place.options).stdout)
    assert len(shown["history"]) == 1
    assert "no column 'b'" in shown["history"][0]["reason"]
    assert place.change("retry", "--all") == 3
    assert sorted(place.handle()) == ["T0", "T1", "T2"]
    assert place.groups() == []


def test_an_archived_letter_is_listed_only_among_the_archived_ones(place: Place) -> None:
    """
    It is neither retried nor discarded with all others, and comes back when it is restored.
    """
    place.dead_letter(*REASONS)
    (large,) = (group for group in place.groups() if group["count"] == 2)

    assert place.change("archive", large["id"]) == 2
    assert [group["count"] for group in place.groups()] == [1]
    assert [group["count"] for group in place.groups("--archived")] == [2]
    assert place.change("retry", "--all") == 1
    assert place.handle() == ["T1"]
    assert place.change("restore", "--all") == 2
    assert place.groups("--archived") == []
    assert [group["count"] for group in place.groups()] == [2]


def test_a_discarded_letter_is_gone(place: Place) -> None:
    """
    The consumer does not get it again.
    """
    place.dead_letter(*REASONS)
    groups = place.groups()
    one = place.letters(groups[0]["id"])[0]["id"]

    assert place.change("discard", one) == 1
    assert sum(group["count"] for group in place.groups()) == 2
    assert place.change("discard", "--all", "--yes") == 2
    assert place.groups() == []
    assert place.handle() == []


def test_an_unknown_name_of_a_consumer_is_a_remark_with_the_known_ones(place: Place) -> None:
    """
    A name without dead letters is known, too.
    """
    place.dead_letter("no column 'a'")
    place.change("discard", "--all", "--yes")

    known = run("list", "--consumer", NAME, *place.options)

    unknown = run("list", "--consumer", "operator", "--consumer", NAME, *place.options)

    assert known.output == "no dead letters\n"
    remark = f"no consumer is known by the name 'operator', expected one of {NAME}"
    assert " ".join(unknown.output.split()) == f"{remark} no dead letters"


def test_with_an_unknown_id_nothing_is_changed(place: Place) -> None:
    """
    The exit code is 2, and the message names the id.
    """
    place.dead_letter("no column 'a'")
    (group,) = place.groups()

    for name in ("i99", "q12345678", "gj12345678", "nonsense", "i" + "9" * 40):
        done = run("retry", group["id"], name, *place.options)
        assert done.exit_code == 2
        assert f"has the id {name}" in " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())
    assert run("show", "i99", *place.options).exit_code == 2
    assert [each["count"] for each in place.groups()] == [1]


def test_a_letter_is_shown_with_its_failure_and_its_message(place: Place) -> None:
    """
    In a terminal of 80 columns no line is wider, except for those of the stack and the message.
    """
    place.dead_letter("no column 'a'")
    (group,) = place.groups()

    shown = run("show", group["newest"]["id"], *place.options).stdout

    head = shown.partition("\nbody")[0]
    assert "no column 'a'" in head
    assert "task.failed W/T0 attempt 1, run r" in head
    assert '"taskName": "T0"' in shown


def test_a_long_failure_is_shown_in_part(place: Place) -> None:
    """
    A message of some megabytes hides all others; JSON has what is stored.
    """
    place.dead_letter("no column " + 100_000 * "x")
    (group,) = place.groups()

    shown = run("show", group["newest"]["id"], *place.options).stdout

    assert "no column xxx" in shown
    assert len(shown) < 15_000


def on_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """
    Return what a command prints on a terminal of this width.
    """
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (50, columns))
    variables = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | variables
    shown = b""
    with subprocess.Popen(command("dead-letters", *arguments), stdout=follower, stderr=follower, env=variables):
        os.close(follower)
        with os.fdopen(leader, "rb", buffering=0) as screen, suppress(OSError):  # Linux ends it with EIO
            while part := screen.read(4096):
                shown += part
    return shown.decode().replace("\r", "")


@pytest.mark.parametrize("place", ["sqlite", "journal"], indirect=True)
@pytest.mark.parametrize(("columns", "options"), [(80, []), (200, ["--archived"])])
def test_lists_fit_the_terminal_with_and_without_colour(place: Place, columns: int, options: list[str]) -> None:
    """
    Colours add nothing to the text.
    """
    place.dead_letter(*REASONS, "no column 'a' " * 30)
    if options:
        place.change("archive", "--all")
    (group, *_) = place.groups(*options)

    plain = on_terminal(columns, "list", *options, TERM="xterm", NO_COLOR="1")
    coloured = on_terminal(columns, "list", *options, TERM="xterm-256color")
    letters = on_terminal(columns, "list", group["id"], *options, TERM="dumb")

    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == re.sub(r"\x1b\[[\d;]*m", "", plain)
    shown = re.sub(r"\x1b\[[\d;]*m", "", plain) + letters
    wide = [line for line in shown.splitlines() if cell_len(line) > columns]
    assert [line for line in wide if " " in line.strip()] == []
    assert "4 dead letters in all" in plain


@pytest.mark.parametrize("is_setting", [True, False])
def test_the_inbox_of_the_settings_or_of_an_option_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_setting: bool
) -> None:
    """
    A file that does not exist is an error for the option, and is not created.
    """
    url = f"sqlite:///{tmp_path}/own.db"
    monkeypatch.setenv("DKIST_CORE_INBOX", url) if is_setting else None
    options = () if is_setting else ("--inbox", url)
    missing = run("list", *options)
    is_there = (tmp_path / "own.db").exists()
    with closing(Database.open(url, read_settings())) as database, closing(Inbox(database, Rules(NAME))) as inbox:
        inbox.store([Arrival(None, b"\xff", reason="the body is not JSON")])

    found = run("list", *options)

    assert not is_there
    assert missing.exit_code == (0 if is_setting else 1)
    assert ("no dead letters" if is_setting else f"there is no inbox {tmp_path}/own.db") in missing.output
    assert "the body is not JSON" in found.output


@pytest.fixture(params=["sqlite", "sqlite+pysqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """
    The address of an inbox that is not made yet: a file without tables, or one that is missing, or a new database.
    """
    if request.param != "postgresql":
        file = tmp_path / "own.db"
        if request.param == "sqlite":
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("CREATE TABLE other (value)")
        yield f"{request.param}:///{file}"
        return
    server = request.getfixturevalue("postgres")
    server.create_database("fresh")
    yield server.url("fresh", driver="psycopg")
    server.drop_database("fresh")


def version_of(url: str, *, becomes: str | None = None) -> str | None:
    """
    Return the version of the tables in a database, if it has some, and change it if requested.
    """
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(VERSION_TABLE):
                return None
            if becomes is not None:
                connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{becomes}'"))
            return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))
    finally:
        engine.dispose()


@pytest.mark.parametrize("is_setting", [True, False])
def test_a_look_makes_no_inbox(
    fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_setting: bool
) -> None:
    """
    A missing file stays missing, and a database of something else as it is. Only an option must name an inbox.
    """
    file = tmp_path / "own.db"
    before = file.read_bytes() if file.exists() else None
    monkeypatch.setenv("DKIST_CORE_INBOX", fresh) if is_setting else None

    found = run("list", *(() if is_setting else ("--inbox", fresh)))

    assert ("no dead letters" if is_setting else "there is no inbox ") in found.output
    assert found.exit_code == (0 if is_setting else 1)
    if fresh.startswith("sqlite"):
        assert (file.read_bytes() if file.exists() else None) == before
    else:
        assert version_of(fresh) is None


@pytest.mark.parametrize("found", ["0001", "9999"])
def test_a_look_leaves_the_tables_of_another_release_as_they_are(fresh: str, found: str) -> None:
    """
    A service of that release may use them. One sentence names both versions.
    """
    Database.open(fresh, read_settings()).close()
    version_of(fresh, becomes=found)

    listed = run("list", "--inbox", fresh)

    assert listed.exit_code == 1
    assert f"have the version {found}, expected {HEAD}" in " ".join(listed.output.split())
    assert version_of(fresh) == found


# RabbitMQ


def test_a_broker_keeps_the_dead_letters_if_the_queue_is_missing(queue: OnBus, owned: Broker) -> None:
    """
    A letter is removed only after the broker has confirmed it in the consumer's queue.
    """
    queue.dead_letter(*REASONS)
    with owned.connect() as connection:
        connection.channel().queue_delete(NAME)

    done = run("retry", "--all", *queue.options)

    assert done.exit_code == 1
    assert "returned it: NO_ROUTE" in done.output
    assert sum(group["count"] for group in queue.groups()) == 3


def test_a_killed_retry_loses_nothing(queue: OnBus, owned: Broker) -> None:
    """
    Each message is in one queue or in both, and the next retry moves the others.
    """
    everything = {str(number) for number in range(3000)}
    with owned.connect() as connection:
        channel = connection.channel()
        for name in everything:
            channel.basic_publish("", f"{NAME}.dlq", b"{}", BasicProperties(message_id=name))
        retry = subprocess.Popen(command("dead-letters", "retry", "--all", *queue.options), stdout=subprocess.PIPE)
        with retry:
            while retry.poll() is None and not channel.queue_declare(NAME, passive=True).method.message_count:
                connection.process_data_events(0.005)
            retry.kill()
        # The broker returns what the killed process had received when it notices that its connection has ended.
        while channel.queue_declare(f"{NAME}.dlq", passive=True).method.consumer_count:
            connection.process_data_events(0.005)

        queue.change("retry", "--all")

        found = set()
        while (properties := channel.basic_get(NAME, auto_ack=True)[1]) is not None:
            found.add(properties.message_id)
    assert found == everything
    assert retry.returncode == -signal.SIGKILL
    assert queue.groups() == []


def test_a_retried_message_is_as_it_was_published(queue: OnBus, owned: Broker) -> None:
    """
    Its properties and headers are those of its publisher, beside the history.
    """
    queue.dead_letter("no column 'a'")
    with owned.connect() as connection:
        channel = connection.channel()
        queue.change("retry", "--all")
        method, properties, body = channel.basic_get(NAME, auto_ack=True)

    event = failed("T0")
    assert method.routing_key == NAME
    assert decode(body) == event
    assert (properties.message_id, properties.type, properties.correlation_id) == (event.id, event.type, "r")
    assert set(properties.headers) == {"x-dead-history"}
    (former,) = json.loads(properties.headers["x-dead-history"])
    assert (former["reason"], former["exchange"]) == ("no column 'a'", "workflow.events.x")
    assert former["routingKey"] == "task.failed.W.T0"


def test_the_order_of_a_queue_survives_a_look(queue: OnBus, owned: Broker) -> None:
    """
    Its messages are received and returned; later ones come behind them.
    """
    queue.dead_letter(*REASONS)

    for _ in range(3):
        queue.groups()

    with owned.connect() as connection:
        channel = connection.channel()
        tasks = [json.loads(channel.basic_get(f"{NAME}.dlq")[2])["data"]["taskName"] for _ in range(3)]
    assert tasks == ["T0", "T1", "T2"]


def test_many_looks_at_a_queue_without_a_delivery_limit_of_ours_lose_nothing(queue: OnBus, owned: Broker) -> None:
    """
    RabbitMQ 4 drops a message that a quorum queue has received back 20 times, and an operator may have created it.
    """
    with owned.connect() as connection:
        channel = connection.channel()
        channel.queue_delete(f"{NAME}.dlq")
        channel.queue_declare(f"{NAME}.dlq", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        for event in events(3):
            channel.basic_publish("", f"{NAME}.dlq", encode(event))

    for _ in range(25):
        (group,) = queue.groups()

    names = [letter["event"]["taskName"] for letter in queue.letters(group["id"])]
    assert names == ["T2", "T1", "T0"]


def test_what_a_retry_makes_dead_again_is_not_retried_for_ever(queue: OnBus) -> None:
    """
    Only the messages that the queue held at the start are retried, also while a consumer refuses each at once.
    """
    queue.dead_letter(*REASONS)
    with queue.bus.subscribe(["#"], name=NAME) as receiver:
        assert queue.change("retry", "--all") == 3
        for _ in range(3):
            received = receiver.receive(SECONDS)
            assert received is not None
            received.dead_letter("no column 'c'")

    assert [group["count"] for group in queue.groups()] == [3]


def test_a_message_of_which_only_the_beginning_was_kept_is_not_retried(queue: OnBus, owned: Broker) -> None:
    """
    The consumer would get something else than was published. The exit code is 1, and the reason is shown.
    """
    with owned.connect() as connection:
        connection.channel().basic_publish("workflow.events.x", "task.failed.W.A", b"x" * (1024 * 1024 + 1))
    queue.bury_again("larger than 1 MiB")

    done = run("retry", "--all", *queue.options)
    (group,) = queue.groups()
    shown = run("show", group["newest"]["id"], *queue.options).stdout

    assert done.exit_code == 1
    assert "only the beginning of its body of 1048577 bytes" in " ".join(done.output.split())
    assert group["newest"]["retryable"] is False
    assert "no event, 1048577 bytes" in shown


def test_dead_letters_of_the_broker_itself_and_of_others_are_shown(queue: OnBus, owned: Broker) -> None:
    """
    A queue may have a dead-letter policy, and any account may write to the queue.
    """
    with owned.connect() as connection:
        channel = connection.channel()
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{NAME}.dlq"}
        channel.queue_declare("policed.q", arguments=arguments)
        channel.basic_publish("", "policed.q", b"\xff\x1b[31m")
        channel.basic_reject(channel.basic_get("policed.q")[0].delivery_tag, requeue=False)
        channel.basic_publish("", f"{NAME}.dlq", b"{}")

    reasons = sorted(group["newest"]["reason"] for group in queue.groups())
    (first,) = (group for group in queue.groups() if "rejected" in group["newest"]["reason"])
    shown = run("show", first["newest"]["id"], *queue.options).stdout

    assert reasons == ["its headers state no reason", "the broker dead-lettered it: rejected"]
    assert "\x1b" not in shown
    assert r"\xff\x1b[31m" in shown


def test_on_a_broker_the_subscriptions_must_be_named(owned: Broker) -> None:
    """
    One remark states it, since AMQP has no query for queues.
    """
    del owned

    done = run("list")

    assert done.exit_code == 0
    assert "no dead letters" in done.output
    assert "name the subscriptions on RabbitMQ by --consumer" in " ".join(done.output.split())


def test_a_consumer_with_an_inbox_on_a_broker_is_looked_at_in_both_places(queue: OnBus) -> None:
    """
    It may have been a subscription without an inbox before.
    """
    queue.dead_letter("no column 'a'")
    with closing(Database.open(None, read_settings())) as database, closing(Inbox(database, Rules(NAME))) as inbox:
        inbox.store([Arrival(None, b"\xff", reason="the body is not JSON")])

    listed = json.loads(run("list", "--json").stdout)["groups"]

    assert sorted(group["newest"]["reason"] for group in listed) == ["no column 'a'", "the body is not JSON"]
    assert run("retry", "--all").stdout == "to be handled once more: 2\n"


def test_a_broker_that_is_down_is_one_sentence(refusing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The exit code is 1.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    monkeypatch.setenv("MESH_CONFIG", json.dumps(mesh))

    done = run("list", "--consumer", NAME)

    assert done.exit_code == 1
    assert "refuses the connection" in done.output


# The embedded journal


@pytest.fixture
def journal() -> OnBus:
    """
    The dead letters of a subscription to the embedded journal.
    """
    return OnBus(open_bus(read_settings()))


def test_a_journal_without_a_file_has_no_dead_letters() -> None:
    """
    Nothing is created.
    """
    path = open_bus(read_settings()).journal_path

    done = run("list")

    assert done.output == "no dead letters\n"
    assert not path.exists()


def test_a_letter_whose_message_the_journal_has_removed_is_not_retried(journal: OnBus) -> None:
    """
    It can be read and discarded.
    """
    journal.dead_letter("no column 'a'")
    with journal.bus.open_journal() as opened:
        opened.remove_confirmed([letter.seq for letter in heads(opened)])

    done = run("retry", "--all")

    assert done.exit_code == 1
    assert "the journal no longer has its message" in " ".join(done.output.split())
    assert journal.change("discard", "--all", "--yes") == 1


def test_of_a_queue_only_so_many_letters_are_read(queue: OnBus) -> None:
    """
    The oldest ones; all of them are in their places afterwards.
    """
    queue.dead_letter("one", "two", "one")
    some = QueueLetters(read_settings(), NAME, most=2).groups(archived=False)

    assert [group.count for group in some] == [1, 1]
    assert [group.count for group in QueueLetters(read_settings(), NAME).groups(archived=False)] == [2, 1]


def test_very_many_letters_of_a_journal_are_counted_and_listed_without_their_messages(journal: OnBus) -> None:
    """
    What it takes of memory depends on what is shown, not on the journal.
    """
    journal.dead_letter("no column 'a'")
    body, count = b"x" * 2_000, 20_000
    with closing(sqlite3.connect(journal.bus.journal_path)) as connection, connection:
        connection.executemany(
            "INSERT INTO dead_letter (subscription, seq, dead, reason, message_id, body) VALUES (?, ?, ?, ?, ?, ?)",
            [(NAME, 10 + number, 100.0 + number, f"no column '{number % 3}'", "m", body) for number in range(count)],
        )
    place = JournalLetters(journal.bus, ())

    tracemalloc.start()
    (group,) = place.groups(archived=False)
    of_groups = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    letters = place.letters(group.id, archived=False, limit=50)
    of_letters = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (group.count, group.first_failed_at) == (count + 1, 100.0)
    assert group.newest == letters[0]
    assert [letter.last_failed_at for letter in letters[1:3]] == [100.0 + count - 1, 100.0 + count - 2]
    assert len(letters) == 50
    assert of_groups < 1_000_000
    # About 300 bytes for each letter, without its message.
    assert of_letters < count * 600


def test_the_decision_about_a_letter_goes_with_the_letter(journal: OnBus) -> None:
    """
    After seven days the journal holds neither.
    """
    journal.dead_letter("no column 'a'", "no column 'b'")
    journal.change("archive", journal.letters(journal.groups()[0]["id"])[0]["id"])
    now = HostTime.now()
    with journal.bus.open_journal() as opened:
        before = opened.rows("SELECT name FROM fact WHERE name GLOB 'letter *'")

        keep(opened, KEPT_SECONDS, host=HostTime(now.seconds + 2 * KEPT_SECONDS, now.wall + 2 * KEPT_SECONDS))

        assert len(before) == 1
        assert opened.rows("SELECT name FROM fact WHERE name GLOB 'letter *'") == []
        assert heads(opened) == []


def test_a_retry_is_received_again_until_it_is_acknowledged(journal: OnBus) -> None:
    """
    A consumer that ends in between loses nothing, and later events come in their order.
    """
    journal.dead_letter("no column 'a'", "no column 'b'")
    journal.change("retry", "--all")
    with journal.bus.subscribe(["#"], name=NAME) as receiver:
        first = receiver.receive(SECONDS)
        assert first is not None

    with Publisher.open(read_settings()) as publisher:
        publisher.publish(failed("T9"))

    assert sorted(journal.handle()) == ["T0", "T1", "T9"]
    assert journal.handle() == []


def test_a_batch_has_no_retried_letter_among_other_events(journal: OnBus) -> None:
    """
    The acknowledgement of a batch acknowledges all events before its last one, and a retried one has no such place.
    """
    journal.dead_letter("no column 'a'")
    journal.change("retry", "--all")
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(failed("T8"), failed("T9"))

    batches = []
    with journal.bus.subscribe(["#"], name=NAME, in_batches=True) as receiver:
        while batch := receiver.receive_batch(10, SILENCE):
            batches.append([decode(received.message.body) for received in batch])
            batch[-1].acknowledge(with_earlier=True)

    assert batches == [[failed("T8"), failed("T9")], [failed("T0")]]
    assert journal.groups() == []
    assert journal.handle() == []


def test_other_subscriptions_do_not_get_what_one_retries(journal: OnBus) -> None:
    """
    They have read it already.
    """
    journal.bus.subscribe(["#"], name="archivist").close()
    journal.dead_letter("no column 'a'")
    with journal.bus.subscribe(["#"], name="archivist") as receiver:
        received = receiver.receive(SECONDS)
        assert received is not None
        received.acknowledge()

    journal.change("retry", "--all")

    with journal.bus.subscribe(["#"], name="archivist") as receiver:
        assert receiver.receive(SILENCE) is None
    assert journal.handle() == ["T0"]


def test_texts_of_a_letter_are_redacted_and_escaped(journal: OnBus) -> None:
    """
    Reasons and bodies come from outside.
    """
    settings = read_settings()
    message = Message(
        settings.isb_event_exchange,
        "task.failed.W.A",
        b'{"url": "amqp://user:hunter22@host/"}',
        Properties(message_id="m", content_type="text/plain"),
    )
    with journal.bus.open_journal() as opened:
        opened.append([message])
    journal.bury_again("no access to amqp://user:hunter22@host/ \x1b[31m")

    (group,) = journal.groups()
    name = group["newest"]["id"]
    shown = [run(*each).output for each in (["list"], ["list", group["id"]], ["show", name], ["show", name, "--json"])]

    assert all("hunter22" not in text and "\x1b" not in text for text in shown)
    assert "amqp://[redacted]@host/" in shown[0]


def test_a_selection_is_necessary() -> None:
    """
    A forgotten argument changes nothing.
    """
    for arguments in (["discard"], ["retry", "i1", "--all"]):
        assert run(*arguments).exit_code == 2


def test_discarding_a_group_is_confirmed(journal: OnBus) -> None:
    """
    Without agreement nothing is changed.
    """
    journal.dead_letter("no column 'a'")
    (group,) = journal.groups()

    refused = CliRunner().invoke(app, ["dead-letters", "discard", group["id"]], input="n\n")
    agreed = CliRunner().invoke(app, ["dead-letters", "discard", group["id"]], input="y\n")

    assert refused.exit_code == 1
    assert agreed.stdout.endswith("discarded: 1\n")
