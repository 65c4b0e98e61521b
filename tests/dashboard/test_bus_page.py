"""
The page about the bus: both buses, also while the broker is away, and dead letters that are handled there.

Not here: the dead letters themselves (test_dead_letters).
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from dkist_processing_core.bus import open_bus
from dkist_processing_core.bus.amqp.link import AmqpLink
from dkist_processing_core.dashboard.bus.facts import KeptLetters, OfBus, of_broker
from dkist_processing_core.dashboard.bus.status import BusStatus, Rates
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.reading import read_settings
from tests.dashboard.ground import Served, Visit, grave_violations
from tests.facts import NOON, started
from tests.services.broker import Broker
from tests.test_dead_letters import NAME as OPERATORS
from tests.test_dead_letters import OnBus
from tests.waiting import SECONDS, wait_until


@pytest.fixture
def status() -> Iterator[BusStatus]:
    """
    The state of the bus of the environment, kept up to date.
    """
    kept = BusStatus(read_settings())
    with kept.kept():
        yield kept


def test_a_dead_letter_is_inspected_retried_and_discarded(visit: Visit) -> None:
    """
    Each change is confirmed on a page that works without JavaScript, and reported afterwards.
    """
    place = OnBus(open_bus(read_settings()))
    place.dead_letter("no column 'a'", "the disk is full")
    page = visit.open("/bus", java_script_enabled=False)
    wait_until(lambda: page.reload() is not None and page.locator("#live_letters tbody tr").count() == 2, every=0.5)

    page.get_by_role("link", name="no column").click()
    expect(page.locator("article")).to_contain_text("task.failed of W, task T0, run r")
    page.get_by_role("link", name="Retry letter").click()
    expect(page.locator("main")).to_contain_text("1 dead letter would be handled once more")
    page.get_by_role("button", name="Retry").click()

    expect(page.get_by_role("status").first).to_contain_text("1 dead letter was retried")
    expect(page.locator("#live_letters tbody tr")).to_have_count(1)
    assert place.handle() == ["T0"]
    page.get_by_role("link", name="the disk is full").click()
    page.get_by_role("link", name="Discard all of the group").click()
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("status").first).to_contain_text("1 dead letter was discarded")
    expect(page.locator("#live_letters")).to_contain_text("There are none")


def test_the_pages_of_dead_letters_are_accessible(visit: Visit) -> None:
    """
    axe-core finds no serious violation on the group and on the question before a change.
    """
    OnBus(open_bus(read_settings())).dead_letter("no column 'a'")
    page = visit.open("/bus")
    wait_until(lambda: page.reload() is not None and page.get_by_role("link", name="no column").count() == 1, every=0.5)
    page.get_by_role("link", name="no column").click()
    of_group = grave_violations(page)
    page.get_by_role("link", name="Discard letter").click()

    assert (of_group, grave_violations(page)) == ([], [])


def test_a_broker_that_is_away_is_reported_with_the_age_of_what_is_shown(owned: Broker, status: BusStatus) -> None:
    """
    What was read before remains, with its time, and the reason is a sentence.
    """
    wait_until(lambda: status.latest().bus is not None)
    read = status.latest().bus
    owned.node.stop()

    wait_until(lambda: status.latest().problem is not None)
    away = status.latest()
    owned.node.start()

    assert away.bus is not None
    assert read is not None
    assert away.bus.at >= read.at
    assert "RabbitMQ" in str(away.problem)
    assert away.away_since is not None
    wait_until(lambda: status.latest().problem is None)


def test_the_state_of_an_embedded_journal_is_read(served: Served, status: BusStatus) -> None:
    """
    It has the archive's span, and what each name has not read.
    """
    served.publish(started("A"), started("B"))

    def has_all() -> bool:
        found = status.latest().bus
        if found is None or found.archive is None or found.archive.messages != 2:
            return False
        return found.archive.newest_number == 2 and found.queues["dkist-core.collect"].waiting == 0

    wait_until(has_all)


def test_rates_are_counted_by_the_minute() -> None:
    """
    A minute without a message has a zero, and the first reading counts nothing.
    """
    rates = Rates()
    for seconds, number in ((0, 100), (10, 130), (55, 131), (130, 140)):
        rates.note(NOON + timedelta(seconds=seconds), number)

    minutes = [NOON + timedelta(minutes=minute) for minute in range(3)]
    assert rates.by_minute(NOON + timedelta(seconds=135)) == tuple(zip(minutes, (31, 0, 9), strict=True))


def test_an_archive_that_begins_anew_counts_no_negative_messages() -> None:
    """
    A broker that was set up again numbers its messages from 0.
    """
    rates = Rates()
    now = datetime.now(UTC)
    for number in (100, 3):
        rates.note(now, number)

    assert [count for _, count in rates.by_minute(now)] == [0]


@pytest.mark.usefixtures("owned")
def test_dead_letters_that_cannot_be_read_now_remain(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    The bus is not away for that reason: only the groups are those of an earlier reading.
    """
    settings = read_settings()
    OnBus(open_bus(settings)).dead_letter("one", "two")
    with closing(AmqpLink.open(settings, SECONDS)) as link:

        def read(settings: Settings, before: OfBus | None) -> OfBus:
            letters = {} if before is None else before.letters
            return of_broker(settings, link, [OPERATORS], letters, datetime.now(UTC), is_changed=True)

        good = read(settings, None)
        address = f'{{"interservice-bus": {{"mesh_address": "127.0.0.1", "mesh_port": {refusing_port}}}}}'
        monkeypatch.setenv("MESH_CONFIG", address)
        bad = read(read_settings(), good)

    assert sum(group.count for group in good.groups) == 2
    assert good.problem is None
    assert bad.groups == good.groups
    assert str(refusing_port) in str(bad.problem)
    assert bad.queues == good.queues


def test_letters_are_read_again_the_less_often_the_more_there_are() -> None:
    """
    While their number stands still, they are not read again.
    """
    kept = KeptLetters(NOON, 1000, [])

    assert kept.are_recent(1000, NOON + timedelta(hours=1))
    assert kept.are_recent(2000, NOON + timedelta(seconds=19))
    assert not kept.are_recent(2000, NOON + timedelta(seconds=21))


def test_a_host_that_cannot_be_read_does_not_hide_the_bus(
    served: Served, monkeypatch: pytest.MonkeyPatch, refusing_port: int
) -> None:
    """
    Each part has its reason.
    """
    served.publish(started("A"))
    monkeypatch.setenv("DKIST_CORE_INBOX", f"postgresql://core@127.0.0.1:{refusing_port}/store")
    status = BusStatus(read_settings())
    with status.kept():
        wait_until(lambda: status.latest().part_problem is not None and status.latest().bus is not None)
        found = status.latest()

    assert found.problem is None
    assert found.host is None
    assert str(refusing_port) in str(found.part_problem)
    assert found.bus is not None
    assert "dkist-core.collect" in found.bus.queues
