"""
Behaviour of a subscription that is independent of the bus; the promises of both buses are in `tests.bus.contract`.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Subscription, subscribe
from dkist_processing_core.consumer._subscription import event_of
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal.message import Message, Properties
from tests.facts import finished, started
from tests.waiting import SECONDS


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    Settings that name no broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


@pytest.fixture
def publisher(settings: DKISTProcessingCoreConfiguration) -> Iterator[Publisher]:
    """
    A publisher on the journal.
    """
    with Publisher.open(settings) as publisher:
        yield publisher


def test_an_error_that_decoding_does_not_expect_is_a_reason_like_any_other() -> None:
    """
    It does not end the consumer: the message is dead-lettered with it, as with a DecodeError.
    """
    impossible = Properties("m", 5)  # type: ignore[arg-type]

    found = event_of(Message("x", "task.finished.W.A", b"{}", impossible))

    assert isinstance(found, AttributeError)
    assert str(found) == "'int' object has no attribute 'strip'"


def append_nonsense(publisher: Publisher, count: int) -> None:
    """
    Put messages on the bus that are no events.
    """
    exchange = publisher.bus.event_exchange
    publisher._shelf.append(
        [
            Message(exchange, f"task.started.W.A{number}", b"?", Properties(f"m{number}", "application/json"))
            for number in range(count)
        ]
    )


def logged_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    Return the log lines up to the reason, which the codec words.
    """
    return [record.getMessage().partition(": the body")[0] for record in caplog.records]


def test_a_replay_reports_the_messages_that_are_no_events_in_one_line(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Such messages stay on the bus for a week, and each read of it meets them again.
    """
    append_nonsense(publisher, 3)
    publisher.publish(finished("A"))

    assert list(replayed(settings)) == [finished("A")]
    assert logged_in(caplog) == ["3 messages are no events and were passed over: first 'm0'"]


def test_a_running_subscription_reports_the_first_message_that_is_no_event_at_once(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """
    All are counted at its end.
    """
    with subscribe(settings=settings, name="strict", timeout=SECONDS) as subscription:
        append_nonsense(publisher, 2)
        publisher.publish(finished("A"))
        assert next(subscription) == finished("A")
        early = logged_in(caplog)

    assert early == ["1 message is no event and was put among the dead letters: 'm0'"]
    assert logged_in(caplog)[1:] == ["2 messages are no events and were put among the dead letters: first 'm0'"]


def test_a_subscription_of_another_thread_goes_on(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    A name may be shared by threads: only in its own thread is a subscription known to be abandoned.
    """
    opened: list[Subscription] = []
    with subscribe(settings=settings, name="shared", timeout=SECONDS) as mine:
        thread = threading.Thread(target=lambda: opened.append(subscribe(settings=settings, name="shared")))
        thread.start()
        thread.join()
        publisher.publish(started("A"))

        assert started("A") == next(mine)
    opened[0].close()


def test_a_timeout_of_nothing_reads_to_the_end(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    Existing events are yielded without waiting.
    """
    publisher.publish(started("A"), finished("A"))

    with subscribe(settings=settings, replay=True, timeout=0.0) as subscription:
        assert list(subscription) == [started("A"), finished("A")]
        assert list(subscription) == []


def test_a_subscription_that_hears_nothing_for_long_keeps_its_place(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Listening is use: pruning removes only the names that no process uses.
    """
    with subscribe("task.failed", name="patient", timeout=0.05, settings=settings) as listening:
        with open_bus(settings).open_journal() as journal:
            journal._connection.execute("UPDATE subscription SET used = 0")
        assert list(listening) == []

        with open_bus(settings).open_journal() as journal:
            (used,) = journal._connection.execute("SELECT used FROM subscription").fetchone()
        assert used > 0


@pytest.mark.parametrize(
    ("zone", "local", "fold", "utc"),
    [
        # The hour that a clock in Berlin shows twice: `fold` distinguishes them, by PEP 495.
        ("Europe/Berlin", "2026-10-25T02:30", 0, "2026-10-25T00:30"),
        ("Europe/Berlin", "2026-10-25T02:30", 1, "2026-10-25T01:30"),
        # The event that it leaves out: by the offset of before, or with `fold` of after.
        ("Europe/Berlin", "2026-03-29T02:30", 0, "2026-03-29T01:30"),
        ("Europe/Berlin", "2026-03-29T02:30", 1, "2026-03-29T00:30"),
        ("Europe/Berlin", "2026-07-01T02:30", 0, "2026-07-01T00:30"),
        ("Pacific/Honolulu", "2026-10-25T02:30", 0, "2026-10-25T12:30"),
        ("Asia/Tokyo", "2026-10-25T02:30", 1, "2026-10-24T17:30"),
        ("UTC", "2026-10-25T02:30", 0, "2026-10-25T02:30"),
    ],
)
def test_a_local_time_is_one_instant_also_where_clocks_change(
    settings: DKISTProcessingCoreConfiguration,
    publisher: Publisher,
    local_zone: Callable[[str], None],
    zone: str,
    local: str,
    fold: int,
    utc: str,
) -> None:
    """
    A replay from it yields events that reached the bus at that time, and not those of a microsecond before.
    """
    local_zone(zone)
    instant, since = datetime.fromisoformat(f"{utc}Z"), datetime.fromisoformat(local).replace(fold=fold)
    at, before = finished("A", time=instant), started("A", time=instant - timedelta(microseconds=1))
    publisher.publish(before, at)
    with open_bus(settings).open_journal() as journal:
        for seq, event in enumerate([before, at], start=1):
            journal.write("UPDATE message SET appended = ? WHERE seq = ?", event.time.timestamp(), seq)

    assert [at] == list(subscribe(settings=settings, replay=since, timeout=0.0))


def test_a_replay_from_a_time_begins_with_the_first_row_since_then(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    This holds if the rows behind it have earlier times: after a clock was set back, or from a spare file.
    """
    publisher.publish(started("A"), started("B"), finished("B"), finished("A"))
    with open_bus(settings).open_journal() as journal:
        for seq, minutes in enumerate([50, 10, 40, 0], start=1):
            journal.write("UPDATE message SET appended = appended - 60 * ? WHERE seq = ?", minutes, seq)

    since = datetime.now(UTC) - timedelta(minutes=20)

    assert [started("B"), finished("B"), finished("A")] == list(subscribe(settings=settings, replay=since, timeout=0.0))


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Honolulu", "UTC", "Europe/Berlin"])
def test_an_event_s_own_time_needs_a_zone(local_zone: Callable[[str], None], zone: str) -> None:
    """
    It goes to other hosts, which do not know the local zone.
    """
    local_zone(zone)

    with pytest.raises(ValueError, match="time: expected a time with its zone"):
        started("A", time=datetime.fromisoformat("2026-10-25T02:30"))
