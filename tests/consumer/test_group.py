"""Several consumers in one process: one end, one outage in the log, and one address of health and metrics."""

import json
import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.consumer.exposing import serving_at
from dkist_processing_core.consumer.group import Group
from dkist_processing_core.consumer.member import Member
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.services.sockets import free_ports
from tests.waiting import wait_until


@contextmanager
def running(group: Group, *consumers: Consumer, listen: str | None = None) -> Iterator[list[BaseException]]:
    """Run a group in a thread, and yield the list that gets the error by which it ends."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            group.run(
                lambda: map(Member, consumers),
                facts=lambda: {"of": "test"},
                serving=serving_at(health=None, listen=listen),
            )
        except BaseException as error:  # noqa: BLE001 - a test looks at it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        group.stop()
        thread.join(20)
        assert not thread.is_alive()


def consumer_of(name: str, events: list[Event]) -> Consumer:
    """Return a consumer of failures that keeps what it gets."""
    consumer = Consumer(name, provisional=True, settings=read_settings())

    @consumer.on("task.failed")
    def keep(event: Event) -> None:
        events.append(event)

    return consumer


def test_each_consumer_gets_the_events_and_all_end_together() -> None:
    """`stop` ends them in good order, and `run` returns."""
    first: list[Event] = []
    second: list[Event] = []
    with running(Group(read_settings()), consumer_of("first", first), consumer_of("second", second)) as errors:

        def both_have_one() -> bool:
            # A new consumer gets the events from its start on, which comes at an unknown moment.
            with Publisher.open(read_settings()) as publisher:
                publisher.publish(failed("Gather", run_id=f"run-{len(first)}-{len(second)}"))
            return bool(first and second)

        wait_until(both_have_one, every=0.1)

    assert errors == []
    assert {event.name for event in (*first, *second)} == {"task.failed"}


def test_an_error_of_one_ends_all_and_is_raised() -> None:
    """The others end in good order."""
    fails, goes_on = Consumer("fails", settings=read_settings()), Consumer("goes-on", settings=read_settings())
    beats: list[int] = []

    @fails.every(0.05)
    def end() -> None:
        if beats:
            raise SystemExit(3)

    @goes_on.every(0.01)
    def beat() -> None:
        beats.append(1)

    group = Group(read_settings())
    with running(group, fails, goes_on) as errors:
        wait_until(lambda: bool(errors))

    (error,) = errors
    assert isinstance(error, SystemExit)
    assert error.code == 3


def test_each_metric_is_served_once_with_the_values_of_all() -> None:
    """The health has the facts about each consumer."""
    (port,) = free_ports(1)
    group = Group(read_settings())
    with running(group, consumer_of("first", []), consumer_of("second", []), listen=str(port)) as errors:
        health: list[str] = []

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    health.append(answer.read().decode())
            except OSError:
                return False
            return True

        wait_until(answers)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()

    facts = json.loads(health[-1])
    assert errors == []
    assert facts["of"] == "test"
    assert [each["consumer"] for each in facts["consumers"]] == ["first", "second"]
    heads = [line for line in lines if line.startswith("# TYPE dkist_core_consumer_connected ")]
    values = [line for line in lines if line.startswith("dkist_core_consumer_connected{")]
    assert len(heads) == 1
    assert len(values) == 4


def test_what_cannot_be_opened_is_tried_again_until_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The log has one warning; a request to end returns nothing."""
    group, tries = Group(read_settings()), 0

    def opened() -> str:
        nonlocal tries
        tries += 1
        if tries == 4:
            group.stop()
        if tries in (1, 2, 4):
            raise InboxUnavailableError("the database is away")
        return "open"

    with caplog.at_level(logging.WARNING):
        found = group.when_reachable(opened), group.when_reachable(opened)

    assert found == ("open", None)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["the database is away"] * 2
